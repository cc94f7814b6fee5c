"""A save that fails is tried again and stays visible; others' labels are not lost."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from project_window import SIZE, Window, make_project

from napari_ovam._qt.session.edits import Edits
from napari_ovam._qt.session.saving import _write_labels
from napari_ovam.base.folder_lock import write_lock
from napari_ovam.project import Project
from napari_ovam.project.scratch import unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = 15_000  # ms: two tries


@pytest.fixture
def window(
    dock: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Window:
    monkeypatch.setattr("napari_ovam.project.autosave._RETRY", 1.0)
    made = dock("OVAM project", Window)
    made.open(make_project(tmp_path / "pets").path)
    return made


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
    window.bot.waitUntil(lambda: "Not saved yet" not in window.said, timeout=SOON)
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


def test_a_disk_that_is_full_while_both_are_joined_loses_neither(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ovam.project import labels as module

    window.session.step(1)
    window.until_shown("picture 1")
    theirs(tmp_path / "pets", "picture-1", np.s_[50:60, 2:12], 2)
    tries, write = [], module.write_labels

    def full_twice(*arguments: Any) -> None:
        tries.append(arguments)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(module, "write_labels", full_twice)
    window.paint(40, 40, number=1)
    expected = window.labels.data.copy()
    expected[50:60, 2:12] = 2
    window.bot.waitUntil(lambda: len(tries) > 2, timeout=SOON)
    window.bot.waitUntil(lambda: saved(window), timeout=SOON)
    found = Project.open(tmp_path / "pets").load_labels("picture-1")
    np.testing.assert_array_equal(found, expected)


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


@pytest.mark.parametrize("away", [True, False])
def test_what_a_closing_window_could_not_write_is_offered_later(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    session, folder = window.session, tmp_path / "pets"
    window.session.step(1)
    window.until_shown("picture 1")
    session.class_changes.add("boat")
    session.saving.flush()
    if away:
        folder.rename(tmp_path / "away")
    else:
        write_png = Project.save_labels

        def refuse(self: Project, *arguments: Any, **more: Any) -> None:
            if self.path == folder:
                raise OSError(errno.EIO, "Input/output error")
            write_png(self, *arguments, **more)

        monkeypatch.setattr(Project, "save_labels", refuse)
    window.paint(40, 40, number=2)
    painted = window.labels.data.copy()
    image = session.projects.add(
        np.full((SIZE, SIZE, 3), 7, np.uint8),
        "new one",
        choice=session.choice,
        edits=Edits(np.ones((SIZE, SIZE), int)),
    ).image
    session.close()
    if away:
        assert not folder.exists()
    [left] = unfinished()
    found = Project.open(left)
    assert not found.notes
    np.testing.assert_array_equal(found.load_labels("picture-1"), painted)
    assert found.load_painted("picture-1")[40, 40]
    assert found.sample("picture-1").status == "edited"
    assert found.sample("picture-1").provenance["unsaved in"] == str(folder)
    np.testing.assert_array_equal(found.load_image("new-one"), image)
    assert (found.load_labels("new-one") == 1).all()
    assert [c.name for c in found.classes] == [c.name for c in session.classes]


FAILURES = {
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "read only": OSError(errno.EROFS, "Read-only file system"),
    "denied": PermissionError(errno.EACCES, "Permission denied"),
    "stale": OSError(errno.ESTALE, "Stale file handle"),
}
do = st.tuples(
    st.sampled_from(
        [
            *("paint", "paint", "next", "previous", "accept", "new image", "class"),
            *("rename", "hint", "wait", "fail", "fail", "away", "mend"),
        ]
    ),
    st.sampled_from(list(FAILURES)),
    st.sampled_from(["aux", "CON", "nul.png", "..", "a/b", "x" * 300, "ä", "cat"]),
)


def test_in_any_order_what_fails_stays_visible_and_is_written_in_the_end(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, folder, away = window.session, tmp_path / "pets", tmp_path / "away"
    monkeypatch.setattr("napari_ovam.project.autosave._RETRY", 0.1)
    autosave = session.saving.autosave
    autosave._delay = 0.0
    wrong: list[OSError] = []
    real = Path.replace

    def replace_file(path: Path, target: Path) -> Path:
        if wrong and folder in path.parents:
            raise wrong[0]
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace_file)
    left: dict[str, np.ndarray] = {}
    titles: dict[str, str] = {}

    def mend() -> None:
        wrong.clear()
        if away.exists():
            away.rename(folder)

    def keep() -> None:
        left[session.current.key] = window.labels.data.copy()

    def leave(act: Callable[[], Any]) -> None:
        keep()
        act()
        window.bot.waitUntil(lambda: not session.projects.wanted, timeout=9000)

    def run(acts: list[tuple[str, str, str]]) -> None:
        for step, (kind, how, name) in enumerate(acts):
            if kind == "paint":
                window.paint(5 * step, 30, step % 3)
            elif kind in ("next", "previous") and not away.exists():
                leave(lambda kind=kind: session.step(1 if kind == "next" else -1))
            elif kind == "accept" and not away.exists():
                leave(lambda: window.click("accept_button"))
            elif kind == "new image":
                image = np.full((SIZE, SIZE, 3), step, np.uint8)
                edits = Edits(np.ones((SIZE, SIZE), int))
                keep()
                session.projects.add(image, name, choice=session.choice, edits=edits)
                titles[session.current.key] = name
            elif kind == "class":
                session.class_changes.add(f"class {len(session.classes)} {step}")
            elif kind == "rename":
                session.class_changes.change(1, name=f"cat {step}")
            elif kind == "hint":
                session.hint()
            elif kind == "wait":
                window.bot.wait(20)
            elif kind == "mend":
                mend()
            elif not wrong and not away.exists():
                if kind == "away":
                    session.saving.autosave.flush()  # and nothing is half done
                    folder.rename(away)
                else:
                    wrong.append(FAILURES[how])
        session.take_all()
        if autosave.pending and (wrong or away.exists()):
            window.bot.waitUntil(lambda: "Not saved yet" in window.said, timeout=SOON)
            for say in (session.hint, lambda: session.say("Something else.")):
                say()
                assert "Not saved yet" in window.said
                assert session.message[1] == "error"
        mend()
        window.bot.waitUntil(lambda: saved(window), timeout=SOON)
        window.bot.waitUntil(lambda: "Not saved yet" not in window.said, timeout=SOON)
        keep()
        project = window.written()
        for key, labels in left.items():
            found = project.load_labels(key)
            there = np.zeros_like(labels) if found is None else found
            np.testing.assert_array_equal(there, labels)
        for key, title in titles.items():
            assert project.sample(key).provenance["title"] == title
        assert [c.name for c in project.classes] == [c.name for c in session.classes]

    settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # one window lives through all of them
    )(given(st.lists(do, min_size=4, max_size=12))(run))()


def test_a_stroke_before_the_window_shows_what_was_joined_takes_nothing_back(
    window: Window, tmp_path: Path
) -> None:
    window.paint(4, 5, 1)
    window.written()
    sample = window.session.current
    path = tmp_path / "pets" / "labels" / f"{sample.key}.png"

    def theirs(row: int) -> None:
        ids = np.array(Image.open(path))
        ids[row, :9] = 2
        Image.fromarray(ids).save(path)

    def stroke(row: int) -> None:
        labels = sample.edits.labels
        labels[row, :9] = 1
        sample.edits.take(labels)
        changes = sample.edits.steps.until(sample.edits.steps.mark)
        _write_labels(sample, sample.edits.now, changes, lambda *_: None)

    for row in (20, 30):
        theirs(row)
        stroke(row + 1)
        stroke(row + 2)
    found = np.array(Image.open(path))
    assert found[[20, 30], 3].tolist() == [2, 2]
    assert found[[21, 22, 31, 32], 3].tolist() == [1, 1, 1, 1]


both = st.tuples(
    st.sampled_from(
        [
            *("paint", "paint", "next", "previous", "accept", "wait", "flush", "look"),
            *("their labels", "their labels", "their labels", "their status"),
            *("their class", "their image", "their note"),
        ]
    ),
    st.integers(0, 3),
    st.integers(0, 20),
)


def test_in_any_order_the_work_of_two_programs_is_all_there(
    window: Window, tmp_path: Path
) -> None:
    """One paints in the window above, one in the files below."""
    session, folder = window.session, tmp_path / "pets"
    autosave = session.saving.autosave
    autosave._delay = 0.05
    half = SIZE // 2
    above: dict[str, np.ndarray] = {}
    below: dict[str, np.ndarray] = {}
    decided: dict[str, str] = {}
    more: dict[str, set[str]] = {"classes": set(), "images": set(), "notes": set()}

    def keep() -> None:
        above[session.current.key] = window.labels.data[:half].copy()

    def leave(act: Callable[[], Any]) -> None:
        keep()
        act()
        window.bot.waitUntil(lambda: not session.projects.wanted, timeout=9000)

    def their_labels(key: str, row: int) -> None:
        path = folder / "labels" / f"{key}.png"
        with write_lock(folder):  # its own read and write belong together
            ids = np.zeros((SIZE, SIZE), np.uint8)
            if path.is_file():
                with Image.open(path) as picture:
                    ids = np.array(picture)
            ids[half + row, :9] = 1 + row % 2
            Image.fromarray(ids).save(path)
        below[key] = ids[half:]

    def run(acts: list[tuple[str, int, int]]) -> None:
        for step, (kind, which, row) in enumerate(acts):
            key = f"picture-{which}"
            if kind == "paint":
                window.paint(row // 2 + 4, 5 * step % SIZE, 1 + which % 2)
            elif kind in ("next", "previous"):
                leave(lambda kind=kind: session.step(1 if kind == "next" else -1))
            elif kind == "accept":
                decided[session.current.key] = "accepted"
                leave(lambda: window.click("accept_button"))
            elif kind == "wait":
                window.bot.wait(60)
            elif kind == "look":
                session.take_all()
            elif kind == "flush":
                autosave.flush()
            elif kind == "their labels":
                their_labels(key, row)
            else:
                other = Project.open(folder)
                name = f"{kind} {step} {len(more['notes'])}"
                if kind == "their class":
                    other.classes.add(f"{name} {len(other.classes)}")
                    other.save()
                    more["classes"].add(f"{name} {len(other.classes) - 1}")
                elif kind == "their image":
                    image = np.full((SIZE, SIZE, 3), step, np.uint8)
                    more["images"].add(other.add_sample(image).name)
                elif kind == "their note":
                    other.change_sample(key, provenance={name: step})
                    more["notes"].add(f"{key} {name}")
                elif kind == "their status":
                    other.change_sample(key, absent=[2])
        keep()
        project = window.written()
        for key, labels in above.items():
            found = project.load_labels(key)
            there = np.zeros((SIZE, SIZE), np.uint8) if found is None else found
            np.testing.assert_array_equal(there[:half], labels)
        for key, labels in below.items():
            np.testing.assert_array_equal(project.load_labels(key)[half:], labels)
        assert more["classes"] <= {entry.name for entry in project.classes}
        assert more["images"] <= {sample.name for sample in project.samples}
        for note in more["notes"]:
            key, name = note.split(" ", 1)
            assert name in project.sample(key).provenance
        for key in decided:
            history = project.sample(key).provenance["history"]
            assert "accepted" in {each["status"] for each in history}
        assert not (folder / "replaced").exists()

    settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # one window lives through all of them
    )(given(st.lists(both, min_size=4, max_size=14))(run))()
