"""Images of other tools, of several pages and from a drop: what loading them does."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QInputDialog

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
PARAMETERS = (
    "a red cat on the snow\nNegative prompt: a dog\n"
    "Steps: 7, Sampler: Euler a, CFG scale: 6.5, Seed: 4294967295, Size: 64x32, "
    "Model: {model}, Version: v1.9.3"
)


def load(panel: Any, path: Path) -> Any:
    panel.widget.sections["Image"].load_path(path)
    panel.wait()
    return panel.session.current


def a1111(folder: Path, model: str = "someones-mix", **changed: str) -> Path:
    text = PARAMETERS.format(model=model)
    for old, new in changed.items():
        text = text.replace(old, new)
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text)
    path = folder / "theirs.png"
    Image.fromarray(PIXELS).save(path, pnginfo=info)
    return path


def comfyui(folder: Path) -> Path:
    graph = {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 12,
                "steps": 4,
                "cfg": 3.0,
                "sampler_name": "euler",
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "SD/mix.safetensors"},
        },
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 32}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a blue house"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "a car"}},
    }
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(graph))
    path = folder / "comfy.png"
    Image.fromarray(PIXELS).save(path, pnginfo=info)
    return path


def invokeai(folder: Path) -> Path:
    about = {
        "positive_prompt": "a tree at night",
        "negative_prompt": "a hat",
        "seed": 3,
        "steps": 5,
        "cfg_scale": 4.0,
        "width": 64,
        "height": 32,
        "model": {"name": "sd-mix"},
    }
    info = PngImagePlugin.PngInfo()
    info.add_text("invokeai_metadata", json.dumps(about))
    path = folder / "invoke.png"
    Image.fromarray(PIXELS).save(path, pnginfo=info)
    return path


def form(panel: Any) -> tuple[Any, ...]:
    names = ("seed", "steps", "guidance", "width", "height")
    values = tuple(panel.find(name).value() for name in names)
    return (panel.find("prompt").text(), panel.find("negative").text(), *values)


@pytest.mark.parametrize(
    ("write", "tool", "model", "values"),
    [
        (
            a1111,
            "AUTOMATIC1111",
            "someones-mix",
            ("a red cat on the snow", "a dog", 4294967295, 7, 6.5, 64, 32),
        ),
        (comfyui, "ComfyUI", "mix", ("a blue house", "a car", 12, 4, 3.0, 64, 32)),
        (invokeai, "InvokeAI", "sd-mix", ("a tree at night", "a hat", 3, 5, 4, 64, 32)),
    ],
)
def test_what_a_tool_wrote_fills_the_form_and_the_image_is_traced(
    panel: Any, tmp_path: Path, write: Any, tool: str, model: str, values: Any
) -> None:
    path = write(tmp_path)
    sample = load(panel, path)
    assert form(panel) == values
    np.testing.assert_array_equal(sample.image, PIXELS)
    assert sample.settings is None  # it is not known to be what they make
    assert sample.about["prompt"] == values[0]
    assert sample.trace is not None
    assert tool in panel.status
    assert model in panel.status
    # The model is not on this machine: nothing to offer.
    assert not panel.find("make_again_button").isVisible()


def test_the_words_of_the_file_are_kept_in_the_project(
    panel: Any, tmp_path: Path
) -> None:
    from napari_ovam.project import Project

    load(panel, a1111(tmp_path))
    panel.session.saving.flush()
    project = Project.open(panel.session.projects.opened.project.path)
    (entry,) = project.samples
    source = entry.provenance["source"]
    assert source["raw"]["parameters"] == PARAMETERS.format(model="someones-mix")
    assert source["model"] == "someones-mix"
    assert entry.provenance["prompt"] == "a red cat on the snow"


def test_weights_and_tags_are_said_and_taken_out_on_demand(
    panel: Any, tmp_path: Path
) -> None:
    written = "a (red cat:1.3) BREAK snow, <lora:fur:0.8>"
    first = load(panel, a1111(tmp_path, **{"a red cat on the snow": written}))
    assert first.about["prompt"] == written  # as the file has it
    assert "<lora:fur:0.8>" in panel.status
    panel.press("plain_prompt_button")
    panel.wait()
    assert panel.session.current is not first
    assert panel.session.current.about["prompt"] == "a red cat, snow"
    assert panel.find("prompt").text() == "a red cat, snow"
    assert not panel.find("plain_prompt_button").isVisible()
    load(panel, a1111(tmp_path))
    assert not panel.find("plain_prompt_button").isVisible()


def test_lies_are_named_and_left_out(panel: Any, tmp_path: Path) -> None:
    load(panel, a1111(tmp_path, **{"Steps: 7": "Steps: 9999999"}))
    assert "9999999" in panel.status
    assert panel.find("steps").value() == 0
    assert panel.find("guidance").value() == 6.5


def test_the_model_at_hand_is_offered_and_other_pixels_are_said(
    panel: Any, tmp_path: Path, model_folder: Path
) -> None:
    first = load(panel, a1111(tmp_path, model_folder.name))
    assert first.trace is not None
    assert panel.find("make_again_button").isVisible()

    panel.press("make_again_button")  # noise was drawn by someone else's tool
    assert "other pixels" in panel.status
    assert panel.session.samples == [first]
    assert not panel.find("make_again_button").isVisible()


def test_the_same_pixels_of_another_tool_bring_the_trace_of_their_generation(
    panel: Any, tmp_path: Path, model_folder: Path
) -> None:
    panel.find("prompt").setText("a cat on the grass")
    panel.press("generate_button")
    made = panel.session.current
    info = PngImagePlugin.PngInfo()
    height, width = made.shape
    info.add_text(
        "parameters",
        f"a cat on the grass\nSteps: {made.settings.steps}, CFG scale: "
        f"{made.settings.guidance_scale}, Seed: {made.settings.seed}, "
        f"Size: {width}x{height}, Model: {model_folder.name}",
    )
    path = tmp_path / "same.png"
    Image.fromarray(made.image).save(path, pnginfo=info)

    traced = load(panel, path)
    assert traced.settings is None
    panel.press("make_again_button")
    again = panel.session.current
    assert again not in (made, traced)
    assert again.settings == made.settings
    for old, new in zip(made.trace.layers, again.trace.layers, strict=True):
        assert old.queries.equal(new.queries)


def test_of_several_pages_one_is_asked_for(
    panel: Any, tmp_path: Path, qtbot: Any
) -> None:
    pages = [Image.new("RGB", (40, 32), colour) for colour in ("red", "green", "blue")]
    path = tmp_path / "pages.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])

    assert load(panel, path) is None
    assert "3 pages" in panel.status
    assert panel.status == "pages.tif holds 3 pages: choose one of them."
    dialog = panel.find("page_dialog")
    assert isinstance(dialog, QInputDialog)
    assert dialog.isVisible()
    dialog.setIntValue(3)
    dialog.accept()
    qtbot.waitUntil(lambda: panel.session.current is not None, timeout=60_000)
    panel.wait()
    assert panel.session.current.name == "pages page 3"
    assert tuple(panel.session.current.image[0, 0]) == (0, 0, 255)


def test_how_the_model_looks_is_a_setting(panel: Any, tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    Image.fromarray(PIXELS).save(path)
    assert len(load(panel, path).trace.calls) == 3
    panel.find("noise_seeds").setValue(2)
    panel.find("flip").setChecked(True)
    sample = load(panel, path)
    assert len(sample.trace.calls) == 4  # two draws, each mirrored as well
    assert sample.about["flip"] is True
    panel.find("flip").setChecked(False)

    # Running it again for exact maps looks at it in the same way.
    panel.session.images.exact()
    panel.wait()
    assert sample.exact
    assert len(sample.trace.calls) == 4


def test_the_form_starts_with_the_defaults_of_the_method(panel: Any) -> None:
    from napari_ovam import trace_image

    defaults = inspect.signature(trace_image).parameters
    for name in ("noise_level", "noise_seeds", "max_tiles"):
        assert panel.find(name).value() == defaults[name].default
    assert panel.find("flip").isChecked() == defaults["flip"].default


def test_a_prompt_of_ten_thousand_characters(panel: Any, tmp_path: Path) -> None:
    long = "a cat and a hat on the grass, " * 340
    path = a1111(tmp_path, **{"a red cat on the snow": long})
    sample = load(panel, path)
    assert sample is not None
    assert panel.find("prompt").text() == long.strip()


def test_dropped_images_are_loaded_one_after_the_other(
    panel: Any, tmp_path: Path, qtbot: Any
) -> None:
    paths = [tmp_path / "one.png", tmp_path / "two.webp", tmp_path / "notes.txt"]
    for path in paths[:2]:
        Image.fromarray(PIXELS).save(path)
    paths[2].write_text("no image")
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    event = QDropEvent(
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    panel.widget.sections["Image"].dropEvent(event)
    qtbot.waitUntil(lambda: len(panel.session.samples) == 2, timeout=60_000)
    panel.wait()
    assert [sample.name for sample in panel.session.samples] == ["one", "two"]


def test_what_is_made_of_a_layer_lies_where_the_layer_does(panel: Any) -> None:
    source = panel.viewer.add_image(
        PIXELS,
        name="from a microscope",
        scale=(0.5, 2),
        translate=(10, 20),
        rotate=20,
        units=("um", "um"),
    )
    panel.widget.sections["Image"].load_layer(source)
    panel.wait()
    for name in ("map", "labels"):
        panel.press(f"{name}_button")
    cat = panel.number("cat")
    for role, number in (("image", 0), ("map", cat), ("labels", 0)):
        layer = panel.layer(role, number)
        np.testing.assert_allclose(
            layer.data_to_world((7, 31)), source.data_to_world((7, 31))
        )
        assert layer.units == source.units


def test_a_black_frame_is_not_said_to_be_the_models(panel: Any, tmp_path: Path) -> None:
    path = tmp_path / "night.png"
    Image.fromarray(np.zeros_like(PIXELS)).save(path)
    load(panel, path)
    assert "black" in panel.status
    assert "model" not in panel.status
    assert "seed" not in panel.status
