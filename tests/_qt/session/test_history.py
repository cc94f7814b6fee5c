"""Each label pixel says where it came from, and labels are made again from nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_ovam._qt.session.edits import Edits
from napari_ovam.base import tiles
from napari_ovam.datasets.exporters import HISTORY, export_dataset
from napari_ovam.project import Project
from napari_ovam.project.history import Change, pack_all
from napari_ovam.project.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (9, 11)
MAPS = {
    "by": "maps",
    "sources": {"1": {"phrase": "cat"}, "2": {"phrase": "hat", "token": "3fa2"}},
}
CLICK = {"by": "click", "clicks": [[1.0, 2.0, True]]}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.create(tmp_path / "project")
    for name in ("cat", "hat", "dog"):
        made.classes.add(name)
    made.add_sample(np.full((*SIZE, 3), 90, np.uint8), name="a")
    made.save()
    return made


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tiles, "SIDE", 4)
    tiles.tile_places.cache_clear()
    yield
    tiles.tile_places.cache_clear()


def square(label: int, top: int, left: int, side: int = 3) -> np.ndarray:
    ids = np.zeros(SIZE, np.uint16)
    ids[top : top + side, left : left + side] = label
    return ids


def drawn(edits: Edits, label: int, top: int, left: int, **how: Any) -> None:
    labels = edits.labels
    labels[square(1, top, left) > 0] = label
    edits.take(labels, **how)


def write(project: Project, edits: Edits) -> None:
    mark = edits.steps.mark
    project.save_labels("a", edits.labels, made_by=edits.steps.until(mark))
    edits.steps.forget(mark)


def told(project: Project, row: int, column: int) -> str:
    label = project.load_labels("a", to_edit=False)[row, column]
    return project.load_history("a").at(row, column, label).rpartition(",")[0]


def test_each_pixel_says_what_set_it(project: Project) -> None:
    edits = Edits(square(1, 0, 0) + square(2, 5, 5), about=MAPS)
    write(project, edits)
    drawn(edits, 3, 2, 2)
    with edits.doing(CLICK):
        drawn(edits, 1, 6, 0)
    drawn(edits, 0, 5, 5, about={"tool": "erase"})
    write(project, edits)
    assert told(project, 0, 0) == "by the map of 'cat'"
    assert told(project, 2, 2) == "by a stroke"
    assert told(project, 6, 1) == "by a click"
    assert told(project, 5, 5) == "by the eraser"
    assert told(project, 8, 10) == ""
    assert told(Project.open(project.path), 2, 2) == "by a stroke"
    history = project.load_history("a")
    *_, (_, labels) = history.replay(SIZE)
    assert np.array_equal(labels, edits.labels)
    assert verify(project.path).problems == ()


def test_what_was_undone_counts_for_nothing(project: Project) -> None:
    edits = Edits(square(2, 1, 1, 5), about=MAPS)
    before = edits.labels
    drawn(edits, 3, 2, 2)
    after = edits.labels
    edits.take(before, undone=True)
    write(project, edits)
    assert told(project, 3, 3) == "by the map of 'hat' and its token 3fa2"
    edits.take(after, undone=True)
    write(project, edits)
    assert told(project, 3, 3) == "by a stroke"
    edits.discard()
    write(project, edits)
    assert told(project, 3, 3).startswith("by the map")
    edits.take(square(1, 0, 0, 9), undone=True)
    write(project, edits)
    assert told(project, 3, 3) == "by a script or another plugin"


def test_pixels_that_were_confirmed_are_the_stroke_s(project: Project) -> None:
    edits = Edits(square(2, 1, 1, 5), about=MAPS)
    under = {0: np.ones((4, 4), bool)}
    new = edits.confirm(under, 2)
    write(project, edits)
    assert told(project, 2, 2) == "by a stroke"
    edits.unconfirm(new)
    write(project, edits)
    assert told(project, 2, 2).startswith("by the map")


def test_work_of_before_and_of_others_is_told_as_unknown(project: Project) -> None:
    project.save_labels("a", square(1, 0, 0))
    project.files.history("a").unlink()  # as an older version left it
    project = Project.open(project.path)
    assert project.load_history("a").at(0, 0, 1) == ""
    edits = Edits(square(1, 0, 0))
    drawn(edits, 2, 5, 5)
    write(project, edits)
    assert told(project, 0, 0).startswith("not by this program")
    assert told(project, 5, 5) == "by a stroke"
    with_others = edits.labels
    with_others[8, 10] = 3
    Image.fromarray(with_others.astype(np.uint8)).save(project.files.labels("a"))
    project.load_labels("a")
    assert told(project, 8, 10) == ""
    edits.take(with_others, undone=True)
    drawn(edits, 2, 0, 8)
    write(project, edits)
    assert told(project, 0, 8) == "by a stroke"
    assert told(project, 8, 10)
    assert np.array_equal(project.load_history("a").labels(SIZE), edits.labels)


def test_a_line_that_a_kill_cut_off_loses_no_other(project: Project) -> None:
    edits = Edits(np.zeros(SIZE, np.uint16))
    drawn(edits, 1, 0, 0)
    write(project, edits)
    drawn(edits, 2, 5, 5)
    write(project, edits)
    path = project.files.history("a")
    path.write_bytes(path.read_bytes()[:-30])
    assert told(project, 0, 0) == "by a stroke"
    assert told(project, 5, 5) == ""
    drawn(edits, 3, 0, 8)
    write(project, edits)
    assert told(project, 0, 8) == "by a stroke"
    assert told(project, 5, 5).startswith("not by this program")
    assert np.array_equal(project.load_history("a").labels(SIZE), edits.labels)


def test_merged_classes_keep_their_sources(project: Project) -> None:
    edits = Edits(square(2, 1, 1, 5), about=MAPS)
    drawn(edits, 3, 6, 6)
    write(project, edits)
    project.merge_classes(3, 1)
    project.delete_class(2)
    assert told(project, 6, 6) == "by a stroke"
    labels = project.load_labels("a")
    assert np.array_equal(project.load_history("a").labels(SIZE), labels)
    project.save_labels("a", labels, "accepted")
    assert told(project, 6, 6) == "by a stroke"
    assert verify(project.path).notes == ()


def test_saving_without_saying_how_is_a_script_s(project: Project) -> None:
    project.save_labels("a", square(1, 0, 0), made_by={"by": "import", "from": "voc"})
    project.save_labels("a", square(1, 0, 0) + square(2, 5, 5))
    assert told(project, 0, 0) == "imported from voc"
    assert told(project, 5, 5) == "by a script"


def test_what_was_done_to_objects_is_told_beside_it(project: Project) -> None:
    project.save_labels("a", square(1, 0, 0), made_by=CLICK)
    ids, at = square(1, 0, 0), {"at": "2026-01-05T14:03:00+00:00"}
    change = Change({"by": "cut", **at}, pack_all(ids, ids > 0))
    project.add_to_history("a", [change])
    found = project.load_history("a")
    assert "by a click" in found.at(1, 1, 1)
    assert "its object cut, 2026-01-05" in found.at(1, 1, 1)
    assert np.array_equal(found.labels(SIZE), ids)


def test_it_is_exported_on_request(project: Project, tmp_path: Path) -> None:
    edits = Edits(square(1, 0, 0), about=MAPS)
    drawn(edits, 3, 6, 6)
    write(project, edits)
    items = project.items(history=True)
    forms = ["indexed", HISTORY]
    out = export_dataset(items, project.label_classes(), tmp_path / "out", forms)
    numbers = np.array(Image.open(out / "history" / "a.png"))
    about = json.loads((out / "history" / "a.json").read_text())
    assert about[str(numbers[1, 1])]["by"] == "maps"
    assert about[str(numbers[7, 7])]["by"] == "stroke"
    assert numbers[8, 0] == 0
    assert verify(out).problems == ()


STEP = st.tuples(
    st.sampled_from(["stroke", "maps", "undo", "redo", "write", "open"]),
    st.integers(0, 3),
    st.integers(0, 8),
    st.integers(0, 10),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEP, max_size=25))
@example(  # a new stroke like one that was undone: what is done again is the new one
    steps=[(kind, 1, 0, 0) for kind in ("stroke", "undo", "stroke", "undo", "redo")]
)
def test_any_order_of_work_is_replayed_and_told(tmp_path_factory, steps) -> None:
    project = Project.create(tmp_path_factory.mktemp("any") / "project")
    project.add_sample(np.zeros((*SIZE, 3), np.uint8), name="a")
    edits = Edits(np.zeros(SIZE, np.uint16))
    sources = np.zeros(SIZE, int)  # of each pixel, by a model of its own
    past: list[Any] = []
    future: list[Any] = []
    for number, (kind, label, top, left) in enumerate(steps, start=1):
        now = edits.labels, sources.copy()
        if kind == "stroke":
            with edits.doing({"by": "stroke", "number": number}):
                drawn(edits, label, top, left)
            sources[edits.labels != now[0]] = number
            if (edits.labels != now[0]).any():
                past.append(now)
                future = []
        elif kind == "maps":
            edits.propose(square(label, top, left), {"number": 1000})
            sources[edits.labels != now[0]] = 1000
            past, future = [], []  # as napari's history is emptied
        elif kind in ("undo", "redo"):
            source, target = (past, future) if kind == "undo" else (future, past)
            if not source:
                continue
            labels, sources = source.pop()
            target.append(now)
            edits.take(labels, undone=True, about={"by": kind})
        else:
            write(project, edits)
            if kind == "open":
                project = Project.open(project.path)
    write(project, edits)
    history = project.load_history("a")
    assert np.array_equal(history.labels(SIZE), edits.labels)
    found = history.sources(edits.labels)
    numbers = [0, *(change.about.get("number", -1) for change in history.changes)]
    # Of maps that follow maps the last ones are written: their background is nobody's.
    sources[(sources == 1000) & (edits.labels == 0)] = 0
    numbers = np.take(numbers, found)
    numbers[(numbers == 1000) & (edits.labels == 0)] = 0
    assert np.array_equal(numbers, sources)
