"""Pictures and stores are added to a project; pictures that were left are missed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from project_window import SIZE, Window, make_project
from qtpy.QtWidgets import QFileDialog, QMenu

from napari_ovam._qt.project.project_dock import ProjectWidget
from napari_ovam.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def start(dock: Callable[..., Any]) -> Callable[[], Window]:
    return partial(dock, "OVAM project", Window)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    for name in ("red", "blue"):
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def choose(window: Window, monkeypatch: pytest.MonkeyPatch, text: str, folder: Path):
    """Take an entry of the menu "Add…", and a folder in the dialog."""
    ask = lambda *_: str(folder)  # noqa: E731
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", ask)
    menu = QMenu()
    window.widget._fill_add(menu)
    entries = [e for each in (menu, *menu.findChildren(QMenu)) for e in each.actions()]
    (entry,) = [each for each in entries if text in each.text()]
    entry.trigger()
    window.wait()


def test_a_folder_by_reference_then_away_then_located(
    start: Callable[[], Window],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_project(tmp_path / "pets", count=1).path
    window = start()
    window.open(folder)
    choose(window, monkeypatch, "Leave pictures", photos)
    assert window.session.adding.by_reference
    choose(window, monkeypatch, "Folder of pictures", photos)
    window.until_shown("blue")
    assert "2 images added" in window.said
    assert [title for title, _ in window.rows()] == ["picture 0", "blue", "red"]
    assert len(list((folder / "images").iterdir())) == 1
    pixels = np.asarray(Image.open(photos / "blue.png"))
    np.testing.assert_array_equal(window.image.data, pixels)
    window.paint(20, 20)
    window.written()
    window.session.projects.leave()
    window.wait()

    elsewhere = tmp_path / "elsewhere"
    photos.rename(elsewhere)
    window.open(folder)
    assert "2 pictures are missing" in window.said
    window.click_row(1)
    window.until_shown("blue")
    assert len(np.unique(window.image.data)) == 2  # grey squares
    assert window.labels.data[20, 20] == 2
    window.paint(40, 40)
    window.written()
    choose(window, monkeypatch, "Locate missing pictures", elsewhere)
    assert "2 of 2 missing pictures" in window.said
    window.until_shown("blue")
    np.testing.assert_array_equal(window.image.data, pixels)
    assert window.labels.data[20, 20] == window.labels.data[40, 40] == 2
    assert not Project.open(folder).notes


def test_masks_of_another_tool_are_added_and_a_persons_stay(
    start: Callable[[], Window],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = make_project(tmp_path / "pets")
    (photos / "masks").mkdir()
    for name in ("red", "picture-1", "picture-2"):
        if name in {sample.name for sample in project.samples}:
            Image.fromarray(project.load_image(name)).save(photos / f"{name}.png")
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[:30] = 2  # which has no name, and so is a class of its own: 3
        Image.fromarray(mask).save(photos / "masks" / f"{name}.png")
    window = start()
    window.open(project.path)
    window.click_row(2)
    window.until_shown("picture 2")
    window.paint(40, 40, number=1)  # a person's
    window.written()
    window.click_row(1)
    window.until_shown("picture 1")  # proposed: what is shown is replaced

    choose(window, monkeypatch, "Masks as pictures", photos)
    assert "1 image added" in window.said
    assert "1 were there already and are as they were" in window.said
    assert "class 2" in window.session.phrases.text
    window.until_shown("red")
    assert (window.labels.data[:30] == 3).all()
    assert window.session.current.edits.count == SIZE * SIZE  # maps change nothing
    for row, title, status in ((1, "picture 1", "edited"), (2, "picture 2", "edited")):
        window.click_row(row)
        window.until_shown(title)
        assert window.rows()[row][1] == status
        if row == 1:
            window.bot.waitUntil(lambda: bool((window.labels.data[:30] == 3).all()))
    assert window.labels.data[40, 40] == 1


def test_a_store_that_is_opened_with_this_reader_becomes_samples(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("zarr")
    from napari_ovam import ExportItem, LabelClass, export_dataset

    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[8:20, 8:20] = 3
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    about = {"placement": {"scale": [0.5, 2.0], "units": ["micrometer"] * 2}}
    item = ExportItem("cells", pixels, labels, provenance=about)
    classes = [LabelClass(3, "nucleus", (10, 20, 30))]
    out = export_dataset([item], classes, tmp_path / "o", ["ome-zarr"])
    viewer = make_napari_viewer(show=True)
    viewer.open(str(out / "ome-zarr" / "cells.ome.zarr"), plugin="napari-ovam")
    widget = viewer.window._qt_window.findChild(ProjectWidget)
    window = Window(viewer, qtbot, widget)
    window.wait()
    window.until_shown("cells")
    np.testing.assert_array_equal(window.image.data, pixels)
    np.testing.assert_array_equal(window.labels.data, labels)
    assert window.session.classes[3].name == "nucleus"
    assert window.image.scale.tolist() == [0.5, 2.0]
    window.session.close()
