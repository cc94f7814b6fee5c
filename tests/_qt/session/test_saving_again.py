"""A save that fails is tried again and stays visible; others' labels are not lost."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from project_window import Window, make_project

from napari_ovam._qt.annotator import ProjectDock
from napari_ovam.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOON = 15_000  # ms: two tries


@pytest.fixture
def window(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Window]:
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr("napari_ovam.project.autosave._RETRY", 1.0)
    viewer = make_napari_viewer()
    widget = ProjectDock(viewer)
    viewer.window.add_dock_widget(widget)
    made = Window(viewer, qtbot, widget)
    made.open(make_project(tmp_path / "pets").path)
    yield made
    widget.session.close()


def saved(window: Window) -> bool:
    return window.session.saving.autosave.pending == 0


def theirs(folder: Path, name: str, place: tuple[slice, slice], value: int) -> None:
    """Change labels as another program does, which knows nothing of this one."""
    path = folder / "labels" / f"{name}.png"
    with Image.open(path) as picture:
        ids = np.array(picture)
    ids[place] = value
    Image.fromarray(ids).save(path)


def test_a_stroke_made_while_the_disk_was_away_is_written(
    window: Window, tmp_path: Path
) -> None:
    folder, away = tmp_path / "pets", tmp_path / "away"
    folder.rename(away)
    window.paint(40, 40)
    painted = window.labels.data.copy()
    window.bot.waitUntil(lambda: "Not saved yet" in window.said, timeout=SOON)
    window.session.hint()  # whatever is said meanwhile
    assert "Not saved yet" in window.said
    assert window.session.message[1] == "error"
    assert not folder.exists(), "another project was begun in its place"
    away.rename(folder)
    window.bot.waitUntil(lambda: saved(window), timeout=SOON)
    window.bot.waitUntil(lambda: "saved" in window.said, timeout=SOON)
    assert "Not saved yet" not in window.said
    project = Project.open(folder)
    np.testing.assert_array_equal(project.load_labels("picture-0"), painted)
    assert project.sample("picture-0").status == "edited"


def test_an_image_that_is_gone_for_a_while_keeps_its_stroke(
    window: Window, tmp_path: Path
) -> None:
    """Nothing of what is written fails for good, whatever the error is."""
    image = tmp_path / "pets" / "images" / "picture-0.png"
    shutil.move(image, tmp_path / "kept.png")
    window.paint(40, 40)
    window.bot.waitUntil(lambda: "Not saved yet" in window.said, timeout=SOON)
    shutil.move(tmp_path / "kept.png", image)
    window.bot.waitUntil(lambda: saved(window), timeout=SOON)
    found = Project.open(tmp_path / "pets").load_labels("picture-0")
    np.testing.assert_array_equal(found, window.labels.data)


def test_an_image_with_a_name_that_systems_refuse_is_kept(
    window: Window, tmp_path: Path
) -> None:
    session = window.session
    image = np.zeros((8, 8, 3), np.uint8)
    for name in ("aux", "CON", "nul.png", "..", "a/b"):
        session.projects.add(image, name, choice=session.choice)
        assert session.current.name == name
    session.saving.flush()
    project = Project.open(tmp_path / "pets")
    assert len(project.samples) == 9
    titles = [sample.provenance["title"] for sample in project.samples[4:]]
    assert titles == ["aux", "CON", "nul.png", "..", "a/b"]


def test_labels_of_both_are_kept(window: Window, tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    window.session.step(1)
    window.until_shown("picture 1")
    theirs(folder, "picture-1", np.s_[50:60, 2:12], 2)
    window.paint(40, 40, number=1)
    mine = window.labels.data.copy()
    window.bot.waitUntil(lambda: "its changes and yours" in window.said, timeout=SOON)
    window.bot.waitUntil(lambda: saved(window), timeout=SOON)
    expected = mine.copy()
    expected[50:60, 2:12] = 2
    np.testing.assert_array_equal(window.labels.data, expected)
    found = Project.open(folder).load_labels("picture-1")
    np.testing.assert_array_equal(found, expected)
    assert not (folder / "replaced").exists()


def test_where_both_changed_a_pixel_the_other_file_is_kept(
    window: Window, tmp_path: Path
) -> None:
    folder = tmp_path / "pets"
    window.session.step(1)
    window.until_shown("picture 1")
    theirs(folder, "picture-1", np.s_[30:60, 30:60], 1)
    window.paint(40, 40, number=2)
    window.bot.waitUntil(lambda: "stay as they are here" in window.said, timeout=SOON)
    window.bot.waitUntil(lambda: saved(window), timeout=SOON)
    found = Project.open(folder).load_labels("picture-1")
    assert found[40, 40] == 2
    assert found[58, 58] == 1
    with Image.open(folder / "replaced" / "picture-1.png") as picture:
        assert (np.array(picture)[30:60, 30:60] == 1).all()


def test_labels_changed_elsewhere_are_shown_when_one_comes_back(
    window: Window, tmp_path: Path
) -> None:
    window.session.step(1)
    window.until_shown("picture 1")
    window.session.step(1)
    window.until_shown("picture 2")
    theirs(tmp_path / "pets", "picture-1", np.s_[50:60, 2:12], 2)
    window.session.step(-1)
    window.until_shown("picture 1")
    window.bot.waitUntil(
        lambda: bool((window.labels.data[50:60, 2:12] == 2).all()), timeout=SOON
    )
    window.paint(40, 40, number=1)  # and a stroke goes on from there
    window.bot.waitUntil(lambda: saved(window), timeout=SOON)
    found = Project.open(tmp_path / "pets").load_labels("picture-1")
    np.testing.assert_array_equal(found, window.labels.data)
    assert (found[50:60, 2:12] == 2).all()
