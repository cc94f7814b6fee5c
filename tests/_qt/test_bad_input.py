"""Bad input: a clear message in the panel, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def mapped(panel: Any) -> Any:
    panel.press("generate_button")
    panel.press("map_button")
    return panel


@pytest.fixture
def labelled(mapped: Any) -> Any:
    mapped.press("labels_button")
    return mapped


def is_error(panel: Any) -> bool:
    return panel.session.message[1] == "error"


@pytest.mark.parametrize(
    ("button", "says"),
    [
        ("map_button", "no image"),
        ("labels_button", "no maps"),
        ("optimize_button", "no class"),
        ("export_button", "no labels"),
    ],
)
def test_pressed_too_early(panel: Any, button: str, says: str) -> None:
    panel.press(button)
    assert says in panel.status
    assert is_error(panel)


def test_empty_prompt_and_phrase(panel: Any) -> None:
    panel.find("prompt").setText("  ")
    panel.press("generate_button")
    assert "prompt is empty" in panel.status
    panel.find("prompt").setText("a cat")
    panel.press("generate_button")
    panel.find("phrases").setText(" , ;")
    panel.press("map_button")
    assert "no phrase" in panel.status


def test_a_model_that_does_not_exist(panel: Any) -> None:
    panel.find("model").setCurrentText("no such model")
    panel.press("generate_button")
    assert "no such model" in panel.status
    assert is_error(panel)
    assert not panel.viewer.layers


def test_a_size_that_the_model_cannot_make(panel: Any) -> None:
    panel.find("width").setValue(33)
    panel.press("generate_button")
    assert "width is 33" in panel.status.lower()


def test_a_phrase_that_is_too_long(mapped: Any) -> None:
    def outlined() -> bool:  # a moment after the maps
        return any(layer.name == "outlines" for layer in mapped.viewer.layers)

    mapped.bot.waitUntil(outlined, timeout=10_000)
    names = [la.name for la in mapped.viewer.layers]
    mapped.find("phrases").setText("cat, " + "hat " * 60)
    mapped.press("map_button")
    assert is_error(mapped)
    assert [la.name for la in mapped.viewer.layers] == names
    assert [e.phrase for e in mapped.session.classes] == ["cat", "hat"]


def test_two_jobs_at_once(panel: Any) -> None:
    panel.find("steps").setValue(500)
    panel.click("generate_button")
    panel.click("generate_button")
    assert "still running" in panel.status
    panel.press("cancel_button")
    assert not panel.session.samples


def test_layers_deleted_renamed_and_moved_while_a_job_runs(labelled: Any) -> None:
    panel = labelled
    painted = panel.other
    stroke = panel.paint(painted)
    panel.find("iterations").setValue(20)
    panel.click("optimize_button")
    panel.layer("map", panel.number("hat")).name = "something else"
    panel.viewer.layers.move(0, len(panel.viewer.layers))
    panel.viewer.layers.remove(panel.layer("map", panel.number("cat")))
    panel.viewer.layers.remove(panel.labels())
    panel.wait()

    assert not is_error(panel), panel.status
    assert panel.session.view(panel.number("cat")).token is not None
    panel.press("labels_button")
    assert (panel.labels().data[stroke] == painted).all()


def test_a_deleted_labels_layer_comes_back_with_its_strokes(labelled: Any) -> None:
    panel = labelled
    panel.paint(panel.other)
    labels = panel.labels().data.copy()
    panel.viewer.layers.remove(panel.labels())
    assert "are kept" in panel.status
    panel.press("labels_button")
    np.testing.assert_array_equal(panel.labels().data, labels)


def test_labels_of_another_size(labelled: Any) -> None:
    panel = labelled
    before = panel.labels().data.copy()
    panel.labels().data = np.ones((5, 7), np.uint16)
    panel.bot.wait(50)
    assert "(5, 7)" in panel.status
    assert is_error(panel)
    np.testing.assert_array_equal(panel.labels().data, before)


def test_optimizing_a_class_that_is_not_there(labelled: Any) -> None:
    panel = labelled
    panel.labels().data = np.zeros_like(panel.labels().data)
    panel.press("optimize_button")
    assert "No pixel" in panel.status


@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(30 * 40, dtype=np.float32).reshape(30, 40),
        np.full((30, 40), 7, np.uint16),
        np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8),
        np.random.default_rng(0).random((30, 40, 4)).astype(np.float32),
    ],
    ids=["float", "grey", "rgb", "rgba"],
)
def test_layers_of_any_type_are_converted(panel: Any, pixels: np.ndarray) -> None:
    layer = panel.viewer.add_image(pixels, rgb=pixels.ndim == 3, name="mine")
    panel.widget.sections["Image"].load_layer(layer)
    panel.wait()
    assert panel.session.current.image.shape == (30, 40, 3)
    panel.press("map_button")
    panel.press("labels_button")
    # In the size of the original, whatever the model works in.
    assert panel.labels().data.shape == (30, 40)


def test_a_layer_without_rows_and_columns_is_refused_by_name(panel: Any) -> None:
    layer = panel.viewer.add_image(np.zeros((2, 30, 40)), name="tilted")
    layer.rotate = (0, 20, 0)
    panel.widget.sections["Image"].load_layer(layer)
    assert "tilted" in panel.status
    assert "plane" in panel.status
    assert is_error(panel)
    assert not panel.session.samples


def test_a_file_that_is_no_image(panel: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    panel.widget.sections["Image"].load_path(path)
    panel.wait()
    assert "broken.png" in panel.status
    assert is_error(panel)


def test_an_image_from_disk(panel: Any, tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    pixels = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 50
    Image.fromarray(pixels).save(path)
    panel.widget.sections["Image"].load_path(path)
    panel.wait()
    assert panel.session.current.name == "grey"
    assert panel.session.current.image.max() == 255


def test_a_token_of_another_model(mapped: Any) -> None:
    from dataclasses import replace

    panel = mapped
    cat = panel.number("cat")
    model, phrase = panel.session.choice, "cat"
    token = replace(panel.session.models.encode(model, phrase, None), model="other")
    before = panel.layer("map", cat).data.copy()

    panel.session.sources.give({cat: token})
    panel.wait()

    assert "other" in panel.status
    assert is_error(panel)
    assert panel.session.classes[cat].source == "phrase"
    assert panel.session.view(cat).token is None
    np.testing.assert_array_equal(panel.layer("map", cat).data, before)


def test_an_export_never_overwrites_unasked(labelled: Any) -> None:
    panel = labelled
    panel.press("export_button")
    panel.press("export_button")
    assert "not empty" in panel.status
    panel.find("overwrite").setChecked(True)
    panel.press("export_button")
    assert "Exported" in panel.status


def test_no_space_left(labelled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = labelled

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_ovam.datasets.exporters.indexed.save_png", full)
    panel.press("export_button")
    assert "No space left" in panel.status
    assert not Path(panel.find("folder").text()).expanduser().exists()
    assert panel.labels() is not None


def test_closing_the_window_during_a_job(panel: Any) -> None:
    panel.find("steps").setValue(900)
    panel.click("generate_button")
    panel.bot.waitUntil(
        lambda: any(la.name == "preview" for la in panel.viewer.layers), timeout=60_000
    )
    job = panel.session.job
    panel.viewer.close()
    panel.bot.waitUntil(lambda: not job.is_running, timeout=60_000)
    assert job.cancelled
