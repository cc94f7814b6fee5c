"""Projects and unfinished work that commit 889dbec wrote open unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ovam._qt.annotator import start_session
from napari_ovam.project import Project
from napari_ovam.project.scratch import unfinished
from napari_ovam.segmentation.instances.files import load_instances

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def session(
    make_napari_viewer: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    shutil.copytree(FIXTURES / "scratch_889dbec", tmp_path / "scratch")
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    made = start_session(make_napari_viewer())
    yield made
    made.close()


def pixels() -> np.ndarray[Any, Any]:
    """Return what was painted in the first image."""
    ids = np.zeros((16, 24), np.uint8)
    ids[2:6, 2:6] = ids[2:6, 10:14] = 1
    ids[8:], ids[0, 0] = 2, 255
    return ids


@pytest.mark.parametrize("kind", ["project", "scratch"])
def test_everything_is_there(
    session: Any, qtbot: Any, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(FIXTURES / "project_889dbec", folder)
    if kind == "scratch":
        (folder,) = unfinished()
    session.projects.open(folder)
    qtbot.waitUntil(lambda: session.current is not None, timeout=30_000)

    assert session.opened.chosen == (kind == "project")
    cat, sky, dog = session.classes
    assert (cat.name, cat.source, cat.token) == ("cat", "token", "1-cat.safetensors")
    assert (sky.id, sky.name, sky.color, sky.thing) == (
        2,
        "sky, blue",
        (1, 2, 3),
        False,
    )
    assert (dog.id, dog.key, dog.active) == (4, "7", False)
    assert dict(dog.thresholds) == {"phrase": 0.25, "token": 0.5}
    assert session.view(1).token.embedding.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert session.classes.retired == {3: 1}
    keys, projects = session.projects.keys, session.projects
    assert [projects.status(key) for key in keys] == [
        *("edited", "proposed", "accepted", "rejected"),
    ]
    assert projects.title(keys[0]) == "a cat, 0"
    sample = session.current
    assert sample.absent == {4}
    layer = session.layers.find(sample.key, "labels")
    np.testing.assert_array_equal(layer.data, pixels())
    np.testing.assert_array_equal(sample.edits.painted, pixels() == 2)
    session.select(keys[1])
    qtbot.waitUntil(lambda: session.current.key == keys[1], timeout=30_000)
    assert session.layers.find(keys[1], "labels").data[3, 3] == 1  # what was class 3

    session.saving.flush()
    project = Project.open(folder)
    assert [dict(entry.thresholds) for entry in project.classes]
    found = load_instances(project.path, keys[0], project.load_labels(keys[0]))
    assert sorted(found.classes.values()) == [1, 1, 2]


def test_unfinished_work_is_the_project_of_the_window(
    session: Any, qtbot: Any, tmp_path: Path
) -> None:
    """Nothing is copied: what is done goes on in it, and Save as keeps all of it."""
    (folder,) = unfinished()
    session.projects.open(folder)
    qtbot.waitUntil(lambda: session.current is not None, timeout=30_000)
    assert unfinished() == []  # this window has it
    layer = session.layers.find(session.current.key, "labels")
    layer.paint((12, 12), 1)
    session.take_all()
    session.saving.flush()
    project = Project.open(folder)
    assert project.load_labels("cat-0")[12, 12] == 1
    session.projects.save_as(tmp_path / "mine")
    qtbot.waitUntil(lambda: not session.busy, timeout=30_000)
    assert session.project.path == tmp_path / "mine"
    assert unfinished() == []
    layer.paint((14, 2), 1)
    session.take_all()
    session.saving.flush()
    assert Project.open(tmp_path / "mine").load_labels("cat-0")[14, 2] == 1
    assert Project.open(folder).load_labels("cat-0")[14, 2] == 2
