"""Whatever fails while a project is written, and when: it is written in the end."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_ovam.project import Project
from napari_ovam.project.autosave import Autosave
from napari_ovam.project.index import write_index

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURE = np.full((6, 8, 3), 120, np.uint8)
REFUSED = ["aux", "CON", "nul.png", "COM¹", "..", ".", "", "a/b", "a\\b", "x" * 300]
NAMES = st.sampled_from([*REFUSED, "a", "A", "ä", "a\u0308", "🦊", "-", "a.", "a "])
ERRORS = [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("labels", "labels", "sample", "class", "status", "rename", "flush"),
                *("disk away", "refused", "image away", "mended"),
            ]
        ),
        st.integers(0, 2),
        NAMES,
    ),
    min_size=2,
    max_size=16,
)


def ids(value: int) -> np.ndarray:
    return np.full((6, 8), value, np.uint16)


class Disk:
    """A disk that fails as it is told, also amid a write."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.refuses = folder, 0
        real = Path.replace

        def replace(path: Path, target: Path) -> Path:
            # Only what the autosave writes: the test reads the project beside it.
            beside = threading.current_thread() is not threading.main_thread()
            if self.refuses and beside and folder in path.parents:
                time.sleep(0.005)  # what comes in meanwhile is not to be lost either
                raise OSError(self.refuses, "refused by the test", str(target))
            return real(path, target)

        patch.setattr(Path, "replace", replace)

    @property
    def away(self) -> Path:
        return self.folder.with_name("away")

    @property
    def fails(self) -> bool:
        return bool(self.refuses) or not (self.folder / "images" / "a.png").exists()

    def fail(self, how: str, number: int) -> None:
        self.mend()
        if how == "refused":
            self.refuses = ERRORS[number]
        elif how == "disk away":
            self.folder.rename(self.away)
        elif how == "image away":
            shutil.move(self.folder / "images" / "a.png", self.folder / "kept.png")

    def mend(self) -> None:
        self.refuses = 0
        while self.away.exists():
            # A lock's folder that was made anew is gone in a moment.
            with suppress(OSError):
                self.away.rename(self.folder)
        if (self.folder / "kept.png").exists():
            (self.folder / "kept.png").replace(self.folder / "images" / "a.png")


@pytest.fixture
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_ovam.project.autosave._RETRY", 0.02)
        yield patch


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(ACTS)
def test_no_moment_of_failure_loses_a_thing(
    tmp_path_factory: Any, patched: pytest.MonkeyPatch, acts: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("project") / "p"
    project = Project.create(folder)
    project.add_sample(PICTURE, name="a")
    disk = Disk(project.path, patched)
    errors: list[Exception | None] = []
    autosave = Autosave(project, delay=0.0, failed=errors.append)
    titles, labels, statuses = {"a": ""}, {"a": None}, {"a": "new"}
    for step, (act, place, text) in enumerate(acts, start=1):
        time.sleep(0.001)  # the thread's turn
        name = list(titles)[place % len(titles)]
        if act == "labels":
            labels[name] = ids(step)
            autosave.save_labels(name, ids(step), status=None)
            project.change_sample(name, status="edited", write=False)
            statuses[name] = "edited"
        elif act == "sample":
            about = {"title": text}
            name = autosave.add_sample(PICTURE + step, name=text, provenance=about)
            assert name not in titles, "two samples became one"
            titles[name], labels[name], statuses[name] = text, None, "new"
        elif act in ("class", "rename"):
            if act == "class":
                project.classes.add(f"class {step}")
            elif len(project.classes):
                entry = next(iter(project.classes))
                project.classes.change(entry.id, name=f"renamed {step}")
            autosave.save_index()
        elif act == "status":
            project.change_sample(name, status="accepted", write=False)
            statuses[name] = "accepted"
            autosave.save_index()
        elif act == "flush":
            written = autosave.flush()
            if not written:  # it is said, and it is not gone
                assert isinstance(errors[-1], Exception)
                assert str(errors[-1])
                assert autosave.pending
            assert written or disk.fails
        elif act == "mended":
            disk.mend()
        else:
            disk.fail(act, place)
    disk.mend()
    assert autosave.close(), (errors[-3:], autosave._waiting)
    assert not errors or errors[-1] is None, "it is not said that all is saved"
    found = Project.open(folder)
    assert not found.notes
    assert {s.name: s.provenance.get("title", "") for s in found.samples} == titles
    for name, mine in labels.items():
        assert found.sample(name).status == statuses[name]
        there = found.load_labels(name)
        assert (there is None) == (mine is None)
        if mine is not None:
            np.testing.assert_array_equal(there, mine)
    assert [(c.id, c.name) for c in found.classes] == [
        (c.id, c.name) for c in project.classes
    ]
    if "disk away" not in {act for act, *_ in acts}:  # with what was being written
        assert not list(folder.rglob("*.tmp")), "halves of files are left behind"


def test_it_is_tried_again_without_being_asked(
    tmp_path: Path, patched: pytest.MonkeyPatch
) -> None:
    project = Project.create(tmp_path / "p")
    project.add_sample(PICTURE, name="a")
    disk = Disk(project.path, patched)
    said, whole = threading.Event(), threading.Event()
    autosave = Autosave(
        project, delay=0.0, failed=lambda e: (said if e else whole).set()
    )
    disk.fail("refused", 0)
    autosave.save_labels("a", ids(7))
    assert said.wait(10)
    assert autosave.pending
    disk.mend()
    assert whole.wait(10)
    np.testing.assert_array_equal(Project.open(project.path).load_labels("a"), ids(7))
    autosave.close()


def test_a_try_that_was_under_way_is_not_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.create(tmp_path / "p")
    project.add_sample(PICTURE, name="a")
    autosave = Autosave(project, delay=0.0)
    began, ended, real = threading.Event(), threading.Event(), Path.replace

    def replace(path: Path, target: Path) -> Path:
        if not began.is_set():
            began.set()
            ended.wait(10)
            raise OSError(errno.ENOSPC, "refused by the test")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    autosave.save_labels("a", ids(7))
    assert began.wait(10)
    threading.Timer(0.1, ended.set).start()
    assert autosave.close()
    np.testing.assert_array_equal(Project.open(project.path).load_labels("a"), ids(7))


def test_what_a_person_decides_while_labels_are_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.create(tmp_path / "p")
    project.add_sample(PICTURE, name="a")
    project.change_sample("a", status="edited")
    write = project._write

    def slowly(name: str, *more: Any) -> None:
        write(name, *more)
        project.change_sample("a", status="accepted", write=False)

    monkeypatch.setattr(project, "_write", slowly)
    project.save_labels("a", ids(7), status=None)
    assert project.sample("a").status == "accepted"
    assert Project.open(project.path).sample("a").status == "accepted"


@pytest.mark.parametrize("file", ["project.json", "project.json.bak"])
def test_an_index_of_which_one_copy_was_refused_is_written_by_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    project = Project.create(tmp_path / "p")
    refused: list[Path] = []
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if Path(target).name == file and not refused:
            refused.append(path)
            raise OSError(errno.ENOSPC, "refused by the test")
        return real(path, target)

    autosave = Autosave(project, delay=0.0)
    monkeypatch.setattr(Path, "replace", replace)
    name = autosave.add_sample(PICTURE, name="a")
    autosave.flush()
    assert refused
    assert autosave.close()
    assert [sample.name for sample in Project.open(project.path).samples] == [name]


def test_a_decision_during_a_save_that_fails_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.create(tmp_path / "p")
    project.add_sample(PICTURE, name="a")

    def fail() -> None:
        project.change_sample("a", status="accepted", write=False)
        raise OSError(errno.ENOSPC, "refused by the test")

    with monkeypatch.context() as patch:
        patch.setattr(project, "save", fail)
        with pytest.raises(OSError, match="refused"):
            project.change_sample("a", status="edited")
    project.change_sample("a")
    assert Project.open(project.path).sample("a").status == "accepted"


def test_an_image_whose_index_was_written_before_the_disk_went_is_not_in_its_own_way(
    tmp_path: Path, patched: pytest.MonkeyPatch
) -> None:
    project = Project.create(tmp_path / "p")
    autosave = Autosave(project, delay=0.0)
    tries: list[Path] = []

    def write(folder: Path, index: Any) -> str:
        mark = write_index(folder, index)
        tries.append(folder)
        if len(tries) == 1:  # what looks at the file that was written
            raise OSError(errno.EIO, "the disk went")
        return mark

    patched.setattr("napari_ovam.project.store.write_index", write)
    name = autosave.add_sample(PICTURE, name="b")
    project.change_sample(name, status="accepted", write=False)
    autosave.flush()
    assert autosave.close()
    assert len(tries) > 1
    assert Project.open(project.path).sample(name).status == "accepted"
