"""Two programs write to one project: nothing is lost, and nothing is silent."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_ovam.base import folder_lock
from napari_ovam.base.folder_lock import describe_holder, lock_folder, write_lock
from napari_ovam.project import ConflictError, Project
from napari_ovam.project.autosave import Autosave

PICTURE = np.full((8, 8, 3), 90, np.uint8)


def ids(number: int) -> np.ndarray:
    found = np.zeros((8, 8), np.uint8)
    found[:4, :4] = number
    return found


@pytest.fixture
def both(tmp_path) -> tuple[Project, Project]:
    first = Project.create(tmp_path / "project")
    first.classes.add("cat")
    for name in "ab":
        first.add_sample(PICTURE, name=name)
    return first, Project.open(first.path)


def test_what_each_added_is_there(both):
    first, second = both
    first.classes.add("boat")
    first.save()
    second.add_sample(PICTURE, name="c")
    second.change_sample("a", status="rejected", absent=[1])
    first.add_sample(PICTURE, name="d")
    first.change_sample("b", status="accepted", provenance={"by": "first"})
    second.classes.change(1, color=(1, 2, 3))
    second.save()
    first.classes.change(1, phrase="a cat")
    first.save()
    for project in (first, Project.open(first.path)):
        assert [s.name for s in project.samples] == ["a", "b", "c", "d"]
        assert project.sample("a").status == "rejected"
        assert project.sample("a").absent == (1,)
        assert project.sample("b").status == "accepted"
        assert project.sample("b").provenance["by"] == "first"
        assert [entry.name for entry in project.classes] == ["cat", "boat"]
        assert project.classes[1].color == (1, 2, 3)
        assert project.classes[1].phrase == "a cat"


def test_one_id_for_two_classes_is_refused_by_name_and_can_be_mended(both):
    first, second = both
    table = second.classes
    first.classes.add("boat")
    first.save()
    table.add("dog")
    with pytest.raises(ConflictError, match=r"'boat'.*'dog'"):
        second.save()
    with pytest.raises(ConflictError):
        second.save_labels("a", ids(2))
    assert not second.files.labels("a").exists()
    table.remove(2)
    assert second.refresh()
    assert table.by_name("boat").id == 2
    number = table.add("dog").id
    second.save_labels("a", ids(number))
    names = {entry.id: entry.name for entry in Project.open(first.path).classes}
    assert names == {1: "cat", 2: "boat", number: "dog"}


def test_a_person_counts_before_a_program_and_it_is_said(both):
    first, second = both
    first.change_sample("a", status="accepted")
    second.classes.add("dog")
    second._change("a", "proposed", None, {})  # as an announced one, not written yet
    second.save()
    assert second.sample("a").status == "accepted"
    assert any("a: it was accepted" in note for note in second.notes)
    history = second.sample("a").provenance["history"]
    assert {each["status"] for each in history} == {"accepted", "proposed"}


def test_a_class_that_another_removed_does_not_come_back(both):
    first, second = both
    first.classes.add("boat")
    first.save_labels("a", ids(2))
    second.refresh()
    first.merge_classes(2, 1)
    second.save_labels("b", ids(2))  # its window still painted with it
    found = Project.open(first.path)
    assert [entry.name for entry in found.classes] == ["cat"]
    assert found.load_labels("b").max() == 1


@pytest.mark.parametrize("how", ["program", "window", "in place", "new"])
def test_labels_of_another_are_never_replaced_unseen(both, how):
    first, second = both
    if how != "new":
        first.save_labels("a", ids(1))
        second.load_labels("a")
    path = first.files.labels("a")
    if how == "window":
        first.save_labels("a", ids(7))
    elif how == "in place":  # same size, within one tick of the clock
        with path.open("r+b") as file:
            Image.fromarray(ids(7)).save(file, "png")
            file.truncate()
    else:
        Image.fromarray(ids(7)).save(path)
    theirs = path.read_bytes()
    assert second.labels_changed("a")
    with pytest.raises(ConflictError, match="labels of a were changed"):
        second.save_labels("a", ids(3))
    assert path.read_bytes() == theirs
    second.load_labels("a", to_edit=False)  # a look does not count
    with pytest.raises(ConflictError):
        second.save_labels("a", ids(3))
    second.save_labels("a", ids(3), keep_others=True)
    assert (second.path / "replaced" / "a.png").read_bytes() == theirs
    assert any("kept as" in note for note in second.notes)
    np.testing.assert_array_equal(second.load_labels("a"), ids(3))
    assert not second.labels_changed("a")


def test_labels_that_were_taken_in_are_replaced_and_no_others(both):
    first, second = both
    first.save_labels("a", ids(1))
    theirs, mark = second.load_labels("a", to_edit=False), second.labels_mark("a")
    first.save_labels("a", ids(7))
    with pytest.raises(ConflictError):
        second.save_labels("a", ids(3), over=theirs)
    second.see_labels("a", mark)  # as they were a moment ago
    with pytest.raises(ConflictError):
        second.save_labels("a", ids(3))
    second.save_labels("a", ids(3), over=ids(7))
    assert first.labels_changed("a")
    first.see_labels("a", first.labels_mark("a"))
    first.save_labels("a", ids(4))
    np.testing.assert_array_equal(second.load_labels("a"), ids(4))


def test_the_same_labels_are_no_conflict(both):
    first, second = both
    first.save_labels("a", ids(1))
    second.save_labels("a", ids(1))
    shutil.copy(first.files.labels("a"), first.path / "x.png")
    (first.path / "x.png").replace(first.files.labels("a"))  # another file, the same
    second.save_labels("a", ids(2))


def test_an_image_of_another_is_never_replaced(both):
    first, second = both
    first.add_sample(PICTURE, name="c")
    before = first.files.image("c").read_bytes()
    with pytest.raises(ValueError, match="'c' already"):
        second.add_sample(PICTURE // 2, name="c")
    assert first.files.image("c").read_bytes() == before
    assert second.add_sample(PICTURE // 2, name=second.reserve("c")).name == "c-2"


def test_what_waits_to_be_written_waits_on(both):
    first, second = both
    errors: list[Exception | None] = []
    autosave = Autosave(second, delay=0.01, failed=errors.append)
    Image.fromarray(ids(7)).save(first.files.labels("a"))
    autosave.save_labels("a", ids(3))
    assert not autosave.flush()
    assert isinstance(errors[0], ConflictError)
    assert autosave.pending == 1
    assert autosave.close()  # the last chance: both are kept
    np.testing.assert_array_equal(Project.open(first.path).load_labels("a"), ids(3))
    assert (first.path / "replaced" / "a.png").is_file()


def test_a_project_whose_disk_is_away_is_not_made_anew(both):
    project, _ = both
    away = project.path.with_name("away")
    project.path.rename(away)
    for write in (
        lambda: project.save_labels("a", ids(1)),
        lambda: project.add_sample(PICTURE),
        lambda: project.change_sample("a", status="accepted"),
        project.save,
    ):
        with pytest.raises(OSError, match=r"not there|gone"):
            write()
        assert not project.path.exists()
    away.rename(project.path)
    project.change_sample("a", status="accepted")
    assert Project.open(project.path).sample("a").status == "accepted"


ACTS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(
            ["class", "sample", "status", "labels", "load", "refresh", "token name"]
        ),
        st.integers(0, 3),
    ),
    max_size=14,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTS)
def test_no_order_of_two_writers_loses_a_thing(tmp_path_factory, acts):
    path = tmp_path_factory.mktemp("project") / "p"
    first = Project.create(path)
    for name in "abcd":
        first.add_sample(PICTURE, name=name)
    writers = [first, Project.open(path)]
    classes: set[str] = set()
    samples = set("abcd")
    labels: dict[str, int] = {}  # what is on the disk, by name
    seen: list[dict[str, int]] = [{}, {}]
    decided: set[str] = set()
    for step, (who, what, place) in enumerate(acts):
        project, name = writers[who], "abcd"[place]
        unseen = what == "labels" and labels.get(name) != seen[who].get(name)
        try:
            if what == "class":
                project.classes.add(f"class {step}")
                project.save()
                classes.add(f"class {step}")
            elif what == "sample":
                samples.add(project.add_sample(PICTURE, {"prompt": "cat"}).name)
            elif what == "status":
                project.change_sample(name, status="accepted")
                decided.add(name)
            elif what == "labels":
                project.save_labels(name, ids(step + 1), None)
                assert not unseen, "another's labels were replaced"
                labels[name] = seen[who][name] = step + 1
            elif what == "load":
                project.load_labels(name)
                seen[who] |= {name: labels[name]} if name in labels else {}
            elif what == "refresh":
                project.refresh()
            else:
                project.change_sample(name, provenance={f"key {step}": step})
        except ConflictError as error:
            refused = str(error)
            assert what == "class" or unseen
            assert (
                f"class {step}" if what == "class" else f"labels of {name}"
            ) in refused
            if what == "class":  # mended as it says
                project.classes.remove(project.classes.by_name(f"class {step}").id)
    found = Project.open(path)
    assert {entry.name for entry in found.classes} == classes
    assert {sample.name for sample in found.samples} == samples
    assert {s.name for s in found.samples if s.status == "accepted"} == decided
    for name, number in labels.items():
        np.testing.assert_array_equal(found.load_labels(name), ids(number))
    for step, (_, what, place) in enumerate(acts):
        if what == "token name":
            assert found.sample("abcd"[place]).provenance[f"key {step}"] == step


def test_two_processes_that_write_at_once_lose_nothing(tmp_path):
    Project.create(tmp_path / "p")
    program = (
        "import sys, numpy as np\n"
        "from napari_ovam.project import Project\n"
        "project = Project.open(sys.argv[1])\n"
        "for i in range(12):\n"
        "    sample = project.add_sample(np.full((4, 4, 3), i, np.uint8), None)\n"
        "    project.change_sample(sample.name, provenance={'by': sys.argv[2]})\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "p"), name])
        for name in ("x", "y")
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    by = [s.provenance["by"] for s in Project.open(tmp_path / "p").samples]
    assert (by.count("x"), by.count("y")) == (12, 12)


def test_threads_that_write_at_once_lose_nothing(both):
    def work(project: Project) -> None:
        for _ in range(8):
            project.add_sample(PICTURE)

    threads = [threading.Thread(target=work, args=(each,)) for each in both * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Project.open(both[0].path).samples) == 2 + 32


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_works_and_is_said(tmp_path, monkeypatch, code):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    project = Project.create(tmp_path / "p")
    with lock_folder(project.path) as held:
        assert "no locks" in held.note
        assert lock_folder(project.path) is None
        assert "process" in describe_holder(project.path)
        project.add_sample(PICTURE, name="a")
    with lock_folder(project.path):
        pass
    assert describe_holder(project.path) == ""


def test_another_reason_than_locks_is_said_as_it_is(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken"):
        lock_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        lock_folder(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_write_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.05)
    with write_lock(tmp_path), pytest.raises(OSError, match="another program"):  # noqa: SIM117
        with write_lock(tmp_path):
            pass
