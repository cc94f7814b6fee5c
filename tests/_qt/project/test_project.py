"""A project folder is opened, walked through, painted in, and found again."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from project_window import SIZE, Window, make_project

from napari_ovam._qt.project.project_dock import ProjectWidget
from napari_ovam.project import Project
from napari_ovam.project.scratch import unfinished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_ovam._qt.session.session import Session


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_project(tmp_path / "pets").path


@pytest.fixture
def start(dock: Callable[..., Any]) -> Callable[[], Window]:
    """Return what opens a window with the table docked."""
    return partial(dock, "OVAM project", Window)


@pytest.fixture
def window(start: Callable[[], Window]) -> Window:
    return start()


def test_open_look_paint_and_find_it_again(
    make_napari_viewer: Callable[..., Any],
    start: Callable[[], Window],
    qtbot: Any,
    folder: Path,
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.open(str(folder), plugin="napari-ovam")
    widget = viewer.window._qt_window.findChild(ProjectWidget)
    window = Window(viewer, qtbot, widget)
    window.until_shown("picture 0")
    assert "pets" in viewer.title
    assert "pets" in window.find("project_name").text()
    assert window.rows() == [
        ("picture 0", "new"),
        ("picture 1", "proposed"),
        ("picture 2", "new"),
        ("picture 3", "proposed"),
    ]
    window.click_row(3)
    window.until_shown("picture 3")
    assert (window.image.data[0, 0] == 3).all()
    assert (window.labels.data[8:24, 8:24] == 1).all()

    window.paint(40, 40)
    painted = window.labels.data.copy()
    assert (painted == 2).any()
    assert window.rows()[3] == ("picture 3", "edited")
    project = window.written()
    assert project.path == folder
    np.testing.assert_array_equal(project.load_labels("picture-3"), painted)
    assert project.sample("picture-3").status == "edited"
    assert project.sample("picture-1").status == "proposed"
    assert unfinished() == []
    window.session.close()

    again = start()
    again.viewer.open(str(folder / "project.json"), plugin=None)  # as the GUI does
    again.until_shown()
    again.click_row(3)
    again.until_shown("picture 3")
    np.testing.assert_array_equal(again.labels.data, painted)
    assert [e.name for e in again.session.classes] == ["cat", "hat"]


def test_one_window_at_a_time(start: Callable[[], Window], folder: Path) -> None:
    first, second = start(), start()
    first.open(folder)
    second.open(folder)
    assert f"{folder} is open in another window" in second.said
    assert second.rows() == []
    first.click("close_project_button")
    first.wait()
    assert first.rows() == []
    assert not [la for la in first.viewer.layers if "picture" in la.name]
    second.open(folder)
    assert second.shown == "picture 0"


def test_only_a_few_images_are_in_memory(window: Window, tmp_path: Path) -> None:
    window.open(make_project(tmp_path / "many", 12).path)
    window.paint(40, 40)
    first = window.labels.data.copy()
    for index in range(1, 12):
        window.session.step(1)
        window.until_shown(f"picture {index}")
        assert (window.image.data[0, 0] == index).all()
        assert (window.labels.data == 1).any() == bool(index % 2)
        assert len(window.viewer.layers) == 2
    window.written()
    window.session.step(-1)
    window.until_shown("picture 10")
    assert len(window.session.samples) <= 7
    window.click_row(0)
    window.until_shown("picture 0")
    np.testing.assert_array_equal(window.labels.data, first)


def test_strokes_can_be_undone_after_looking_at_another_image(
    window: Window, folder: Path
) -> None:
    window.open(folder)
    window.paint(40, 40)
    window.session.step(1)
    window.until_shown("picture 1")
    window.labels.undo()  # nothing was painted here
    assert (window.labels.data[8:24, 8:24] == 1).all()
    window.session.step(-1)
    window.until_shown("picture 0")
    window.labels.undo()
    assert not window.labels.data.any()
    saved = window.written().load_labels("picture-0")
    assert saved is not None
    assert not saved.any()


def test_the_brush_stays_from_image_to_image(window: Window, folder: Path) -> None:
    window.open(folder)
    window.labels.mode = "paint"
    window.labels.brush_size, window.labels.selected_label = 9, 2
    window.session.step(1)
    window.until_shown("picture 1")
    layer = window.labels
    assert (layer.mode, layer.brush_size, layer.selected_label) == ("paint", 9, 2)
    assert window.viewer.layers.selection.active is layer


def test_images_that_are_gone_or_changed_leave_the_rest_working(
    window: Window, tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "pets", 8).path
    window.open(folder)
    (folder / "images" / "picture-4.png").unlink()
    Image.new("RGB", (10, 20)).save(folder / "images" / "picture-5.png")
    (folder / "images" / "picture-6.png").write_bytes(b"no image")
    for row, word in ((4, "picture-4"), (5, "put the image back"), (6, "picture-6")):
        window.click_row(row)
        window.bot.waitUntil(lambda word=word: word in window.said, timeout=5000)
        assert window.shown == "picture 0"
    window.click_row(7)
    window.until_shown("picture 7")
    window.paint(40, 40)
    assert (window.written().load_labels("picture-7") == 2).any()


def test_a_damaged_index_is_recovered_and_said(window: Window, folder: Path) -> None:
    (folder / "project.json").write_text("{ half")
    window.open(folder)
    assert "last good copy" in window.said
    assert len(window.rows()) == 4
    assert json.loads((folder / "project.json").read_text())["samples"]


def test_what_is_no_project_or_too_new_is_refused(
    window: Window, folder: Path, tmp_path: Path
) -> None:
    index = folder / "project.json"
    index.write_text(index.read_text().replace('"format": 1', '"format": 99'))
    before = sorted(folder.iterdir())
    window.open(folder)
    assert "newer" in window.said
    assert {p.name for p in folder.iterdir()} - {p.name for p in before} <= {"in-use"}
    (tmp_path / "other").mkdir()
    window.open(tmp_path / "other")
    assert "is no project" in window.said
    assert not list((tmp_path / "other").iterdir())


def test_a_folder_that_can_only_be_read(
    window: Window, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("napari_ovam._qt.session.project_reading.lock_folder", refuse)
    window.open(folder)
    assert "can only be read" in window.said
    assert "read only" in window.find("project_name").text()
    assert not window.labels.editable
    window.session.step(1)
    window.until_shown("picture 1")
    assert not window.labels.editable
    window.click("accept_button")
    assert "can only be read" in window.said
    assert Project.open(folder).sample("picture-1").status == "proposed"


def test_a_full_disk_is_said_and_tried_again(
    window: Window, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.open(folder)
    with monkeypatch.context() as full:

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("The disk is full")

        full.setattr("napari_ovam.images.png.replacing", fail)
        window.paint(40, 40)
        painted = window.labels.data.copy()
        window.bot.waitUntil(lambda: "The disk is full" in window.said, timeout=5000)
        for index in (1, 2, 3):
            window.session.step(1)
            window.until_shown(f"picture {index}")
    window.session.saving.autosave.flush()
    np.testing.assert_array_equal(window.written().load_labels("picture-0"), painted)


def test_other_folders_are_left_to_others(tmp_path: Path, folder: Path) -> None:
    from napari_ovam._qt.io.readers import project_reader

    (tmp_path / "tiffs").mkdir()
    assert project_reader(str(tmp_path / "tiffs")) is None
    assert project_reader(str(folder / "images" / "picture-0.png")) is None
    assert project_reader(str(folder)) is not None
    assert project_reader(str(folder / "project.json")) is not None


def test_new_and_empty(window: Window, tmp_path: Path) -> None:
    window.session.projects.create(tmp_path / "empty")
    window.wait()
    assert window.said.startswith("empty: 0 images")
    assert Project.open(tmp_path / "empty").samples == []
    window.session.projects.create(tmp_path / "empty")
    window.wait()
    assert "not empty" in window.said


def test_work_of_the_window_goes_on_in_a_project(panel: Any, tmp_path: Path) -> None:
    for name in ("generate", "map", "labels", "generate"):
        panel.press(f"{name}_button")
    session: Session = panel.session
    target = tmp_path / "mine"
    session.projects.save_as(target)
    panel.wait()
    assert "mine: 2 images" in panel.status
    assert unfinished() == []
    panel.click("previous_sample")
    session.step(1)
    assert panel.layer("image").visible
    stroke = panel.paint(panel.other)
    panel.bot.waitUntil(lambda: session.saving.autosave.pending == 0, timeout=3000)
    project = Project.open(target)
    labels = project.load_labels(project.samples[-1].name)
    np.testing.assert_array_equal(labels, panel.labels().data)
    assert stroke.any()
    panel.press("generate_button")  # the next image is added to the project
    panel.bot.waitUntil(lambda: session.saving.autosave.pending == 0, timeout=3000)
    assert len(Project.open(target).samples) == 3
    assert len(session.projects.keys) == 3


def test_an_image_without_a_trace_is_looked_at_when_it_is_mapped(
    panel: Any, tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "pets").path
    session: Session = panel.session
    session.projects.open(folder)
    panel.wait()
    panel.bot.waitUntil(lambda: session.current is not None, timeout=5000)
    assert session.current is not None
    session.current.choice = session.choice
    session.maps.map_phrases("cat, hat")
    panel.wait()
    assert session.current.trace is not None, panel.status
    assert set(session.current.maps) == {1, 2}
    assert session.current.maps[1].shape == (SIZE, SIZE)


def test_all_images_of_a_project_are_exported(panel: Any, tmp_path: Path) -> None:
    folder = make_project(tmp_path / "pets", 20).path
    session: Session = panel.session
    session.projects.open(folder)
    panel.wait()
    panel.bot.waitUntil(lambda: session.current is not None, timeout=5000)
    session.select(session.projects.keys[1])
    panel.bot.waitUntil(lambda: session.current.name == "picture 1", timeout=5000)
    session.review.reject()
    panel.find("folder").setText(str(tmp_path / "out"))
    panel.press("export_button")
    assert "Exported 9 images" in panel.status
    assert "11 without labels or rejected" in panel.status
    written = {p.stem for p in (tmp_path / "out").rglob("labels/*.png")}
    assert written == {f"picture-{i}" for i in range(3, 20, 2)}


def test_work_that_was_put_away_for_a_project_is_offered(
    panel: Any, tmp_path: Path
) -> None:
    panel.press("generate_button")
    panel.session.projects.open(make_project(tmp_path / "pets").path)
    panel.wait()
    panel.bot.waitUntil(lambda: panel.find("recovery").isVisible(), timeout=5000)
    assert "1 image" in panel.find("recovery_text").text()
    session: Session = panel.session
    assert len(session.projects.keys) == 4
    panel.press("recover_button")
    panel.bot.waitUntil(lambda: session.current is not None, timeout=10_000)
    assert [session.current.name] == ["a cat and a hat on the grass"]
    assert len(session.projects.keys) == 1
    assert len(Project.open(tmp_path / "pets").samples) == 4
