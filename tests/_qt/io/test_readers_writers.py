"""Files opened and saved in a real napari: labels, tokens, traces, sample data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pytest
from conftest import TIMEOUT
from PIL import Image

pytest.importorskip("napari")

from napari.utils.colormaps import DirectLabelColormap
from pycocotools import mask as rle

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = "napari-ovam"
COLOURS = {1: (230, 159, 0), 7: (86, 180, 233)}


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    """Return a viewer; napari finds the installed plugin as it does for a person."""
    from napari_ovam._qt.annotator import start_session

    made = make_napari_viewer()
    session = start_session(made)
    yield made
    session.close()


def opened(viewer: Any, qtbot: Any, path: Path) -> Any:
    """Open a file as a drop does, without naming a reader; return its layer."""
    before = len(viewer.layers)
    viewer.open(path)
    qtbot.wait(50)
    assert len(viewer.layers) == before + 1
    return viewer.layers[-1]


def painted(viewer: Any) -> Any:
    """Add a Labels layer with classes 1 and 7, a stroke of 7 painted over it."""
    labels = np.zeros((40, 60), np.uint16)
    labels[5:20, 10:40] = 1
    labels[30:, 50:] = 255
    colours = {i: tuple(c / 255 for c in rgb) for i, rgb in COLOURS.items()}
    layer = viewer.add_labels(
        labels,
        name="a cat labels",
        features={"index": [0, 1, 7, 255], "name": ["background", "cat", "hut", "?"]},
        colormap=DirectLabelColormap(color_dict={None: (1, 0, 1), 0: (0,) * 4}),
    )
    layer.colormap = DirectLabelColormap(
        color_dict={None: (1, 0, 1), 0: (0, 0, 0, 0), **colours}
    )
    layer.brush_size = 5
    layer.selected_label = 7
    layer.paint((12, 20), 7)
    assert (layer.data == 7).sum() > 10
    return layer


def save(viewer: Any, path: Path) -> list[str]:
    """Save the selected layer, as File > Save Selected Layers does."""
    return viewer.layers.save(str(path), selected=True)


def test_painted_labels_come_back_from_an_indexed_png(
    viewer: Any, qtbot: Any, tmp_path: Path
):
    layer = painted(viewer)
    path = tmp_path / "a cat.png"
    assert str(path) in save(viewer, path)
    with Image.open(path) as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), layer.data)
    viewer.layers.clear()
    back = opened(viewer, qtbot, path)
    assert type(back).__name__ == "Labels"
    np.testing.assert_array_equal(back.data, layer.data)
    names = dict(zip(back.features["index"], back.features["name"], strict=True))
    assert (names[1], names[7], names[255]) == ("cat", "hut", "unsure")
    for number, rgb in COLOURS.items():
        np.testing.assert_allclose(back.get_color(number)[:3] * 255, rgb, atol=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a cat.classes.json",
        "a cat.png",
    ]


def test_ids_above_255_take_16_bits(viewer: Any, qtbot: Any, tmp_path: Path):
    layer = viewer.add_labels(np.array([[0, 1], [300, 65535]], np.uint16), name="many")
    save(viewer, tmp_path / "many.png")
    back = opened(viewer, qtbot, tmp_path / "many.png")
    np.testing.assert_array_equal(back.data, layer.data)


def test_painted_labels_are_saved_as_coco(viewer: Any, tmp_path: Path):
    layer = painted(viewer)
    path = tmp_path / "cat.json"
    assert save(viewer, path) == [str(path)]
    content = json.loads(path.read_text())
    assert {c["id"]: c["name"] for c in content["categories"]} == {1: "cat", 7: "hut"}
    assert content["images"][0]["file_name"].endswith("cat.png")
    for entry in content["annotations"]:
        mask = rle.decode(entry["segmentation"]).astype(bool)
        np.testing.assert_array_equal(mask, layer.data == entry["category_id"])
    assert len(content["annotations"]) == 2


def test_labels_that_are_no_2d_image_are_refused_by_shape(viewer: Any, tmp_path: Path):
    viewer.add_labels(np.zeros((3, 8, 8), int), name="stack")
    # a ValueError would not reach the person: napari drops it
    with pytest.raises(RuntimeError, match=r"\(3, 8, 8\)"):
        save(viewer, tmp_path / "stack.png")
    assert not list(tmp_path.iterdir())


def test_an_exported_dataset_opens_with_its_classes(
    viewer: Any, qtbot: Any, tmp_path: Path
):
    from napari_ovam import ExportItem, LabelClass, export_dataset

    labels = np.zeros((16, 24), np.uint8)
    labels[4:9, 3:12] = 3
    image = np.full((16, 24, 3), 90, np.uint8)
    item, owl = ExportItem("x", image, labels), LabelClass(3, "owl", (1, 2, 3))
    export_dataset([item], [owl], tmp_path / "out")
    folder = tmp_path / "out" / "indexed"
    back = opened(viewer, qtbot, folder / "labels" / "x.png")
    assert type(back).__name__ == "Labels"
    np.testing.assert_array_equal(back.data, labels)
    assert "owl" in list(back.features["name"])
    picture = opened(viewer, qtbot, folder / "images" / "x.png")
    assert type(picture).__name__ == "Image"
    np.testing.assert_array_equal(np.asarray(picture.data)[..., :3], image)


def test_a_label_png_of_four_bits_has_the_ids_of_its_file(
    viewer: Any, qtbot: Any, tmp_path: Path
):
    ids = np.arange(12, dtype=np.uint8).reshape(2, 6)
    packed = Image.fromarray(ids).convert("P")
    packed.putdata(ids.ravel().tolist())
    packed.save(tmp_path / "a.png", bits=4)
    path = tmp_path / "a.png"
    data = path.read_bytes()
    plte = data.index(b"PLTE") - 4
    end = plte + 12 + int.from_bytes(data[plte : plte + 4], "big")
    head = data[12:25] + b"\x00" + data[26:29]  # grey where a palette was
    data = (
        data[:12] + head + crc32(head).to_bytes(4, "big") + data[33:plte] + data[end:]
    )
    path.write_bytes(data)
    with Image.open(path) as picture:  # Pillow stretches it
        assert picture.mode == "L"
        assert np.asarray(picture).max() == 187
    table = {"classes": [{"id": i, "name": f"class {i}"} for i in range(1, 12)]}
    text = json.dumps(table)
    (tmp_path / "classes.json").write_text(text, encoding="utf-8-sig")
    back = opened(viewer, qtbot, path)
    np.testing.assert_array_equal(back.data, ids)
    assert "class 11" in list(back.features["name"])


def test_a_trace_becomes_a_sample_that_phrases_are_mapped_on(
    viewer: Any,
    qtbot: Any,
    tmp_path: Path,
    make_pipe: Any,
    model_folder: Path,
):
    import napari_ovam as ovam
    from napari_ovam._qt.session.session import Session
    from napari_ovam.project import Project

    pipe = ovam.load_pipeline(str(model_folder))
    made = ovam.generate(pipe, ovam.GenerationSettings("a cat", steps=2))
    work = Project.create(tmp_path / "work")
    work.add_sample(made.image, {"model": str(model_folder)}, "cat")
    trace = work.save_trace("cat", made.trace)

    (layer,) = viewer.open(trace, plugin=PLUGIN)
    np.testing.assert_array_equal(layer.data, made.image)
    session = Session.of(viewer)
    qtbot.waitUntil(lambda: not session.busy, timeout=TIMEOUT)
    assert session.current is not None, session.message
    session.maps.map_phrases("cat")
    qtbot.waitUntil(lambda: not session.busy, timeout=TIMEOUT)
    phrase = ovam.encode_phrase(pipe, "cat")
    wanted = ovam.phrase_map(made.trace, phrase, normalize="minmax")  # as the panel
    (found,) = session.current.maps.values()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    images = [la for la in viewer.layers if la.name == "cat" and la.rgb]
    assert len(images) == 1  # the layer that was opened is the sample's own

    # and a token for a class of its name, beside the one that runs
    token = ovam.encode_phrase(pipe, "hat")
    ovam.save_token(token, tmp_path / "hat.safetensors")
    viewer.open(tmp_path / "hat.safetensors", plugin=PLUGIN)
    qtbot.waitUntil(
        lambda: (
            (e := session.classes.find("hat")) is not None
            and session.view(e.id).token is not None
        ),
        timeout=TIMEOUT,
    )
    assert session.classes.find("hat").source == "token"
    assert session.classes.find("hat").id in session.current.maps


def test_a_safetensors_file_of_something_else_is_refused(viewer: Any, tmp_path: Path):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(Exception, match="weights"):
        viewer.open(path, plugin=PLUGIN)
    assert not viewer.layers


@pytest.mark.parametrize("key", ["cat-and-hat", "car"])
def test_sample_data_is_ready_for_phrases(viewer: Any, qtbot: Any, key: str):
    from napari_ovam._qt.session.session import Session

    (layer,) = viewer.open_sample(PLUGIN, key)
    assert layer.data.shape[:2] == (256, 256)
    assert layer.data.std() > 5
    session = Session.of(viewer)
    qtbot.waitUntil(lambda: session.current is not None, timeout=TIMEOUT)
    assert session.current.trace.image_size == (256, 256)
    assert any("OVAM annotator" in name for name in viewer.window.dock_widgets)


def test_a_class_table_of_somebody_else_beside_it_is_not_replaced(tmp_path):
    from napari_ovam._qt.io.writers import SaveError, write_png

    table = tmp_path / "cat.classes.json"
    table.write_text("mine")
    labels = np.ones((8, 8), np.uint8)
    with pytest.raises(SaveError, match=r"cat\.classes\.json is there already"):
        write_png(str(tmp_path / "cat.png"), labels, {})
    assert table.read_text() == "mine"
    table.unlink()
    for _ in range(2):  # our own is replaced with its labels
        write_png(str(tmp_path / "cat.png"), labels, {})
    assert json.loads(table.read_text())
