"""Projects on disk: what is written is there, whole, and stays what it was."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_ovam.base.user_folders import scratch_folder
from napari_ovam.datasets.class_colors import PALETTE
from napari_ovam.datasets.classes import ClassTable
from napari_ovam.datasets.exporters import export_dataset
from napari_ovam.datasets.project_class import ClassError
from napari_ovam.project import Project, ProjectError
from napari_ovam.project.autosave import Autosave
from napari_ovam.project.by_hand import parse_index
from napari_ovam.project.scratch import (
    Scratch,
    clean,
    copy_project,
    mark_done,
    remove,
    unfinished,
)

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
SETTINGS = {"prompt": "a cat", "seed": 3, "model": "tiny"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))


def labels(value: int = 1) -> np.ndarray:
    ids = np.zeros(IMAGE.shape[:2], np.int64)
    ids[5:20, 5:30] = value
    return ids


# -- classes ---------------------------------------------------------------------


def test_ids_are_given_once() -> None:
    table = ClassTable()
    assert [table.add(name).id for name in ("cat", "hat", "dog")] == [1, 2, 3]
    table.remove(3)
    assert table.add("fox").id == 4
    table.change(1, name="Cat, the 2nd / 猫")
    table.change(1, color=(1, 2, 3))
    assert [(c.id, c.name) for c in table] == [
        (1, "Cat, the 2nd / 猫"),
        (2, "hat"),
        (4, "fox"),
    ]
    assert table[1].phrase == "cat"
    assert table[1].color == (1, 2, 3)
    assert table[2].color == PALETTE[1]
    data = json.dumps({**table.to_json(), "samples": []}).encode()
    again = parse_index(data, Path()).classes
    assert list(again) == list(table)
    again.remove(4)
    assert again.add("owl").id == 5


def test_reserved_ids_are_never_given() -> None:
    table = ClassTable()
    numbers = [table.add(f"class {i}").id for i in range(1000)]
    assert 0 not in numbers
    assert 255 not in numbers
    assert len(set(numbers)) == 1000
    for number in (0, 255, -1, 65_536):
        with pytest.raises(ClassError, match=str(number)):
            table.add("x", number)


def test_a_class_that_cannot_be_is_refused_and_nothing_changes() -> None:
    table = ClassTable()
    table.add("cat")
    table.add("hat")
    before = list(table)
    with pytest.raises(ClassError, match="named 'cat' already"):
        table.change(2, name="cat ")
    with pytest.raises(ClassError, match="needs a name"):
        table.add("  ")
    with pytest.raises(ClassError, match="id 1 belongs to 'cat'"):
        table.add("dog", 1)
    with pytest.raises(ClassError, match="colour"):
        table.change(1, color=(0, 0, 256))
    with pytest.raises(ClassError, match="no class has the id 9"):
        table.change(9, name="x")
    with pytest.raises(ClassError, match="threshold"):
        table.change(1, thresholds={"phrase": 2.0, "token": 0.5})
    assert list(table) == before


# -- the folder ------------------------------------------------------------------


def test_what_was_saved_is_opened_again(project: Project) -> None:
    cat = project.classes.add("cat")
    sample = project.add_sample(IMAGE, SETTINGS)
    assert sample.name == "a-cat"
    painted = labels() > 0
    project.save_labels("a-cat", labels(cat.id), painted=painted, absent=[7])

    opened = Project.open(project.path)
    assert opened.notes == []
    assert list(opened.classes) == [cat]
    (found,) = opened.samples
    assert (found.name, found.status, found.absent) == ("a-cat", "edited", (7,))
    assert found.provenance["version"]
    np.testing.assert_array_equal(opened.load_image("a-cat"), IMAGE)
    np.testing.assert_array_equal(opened.load_labels("a-cat"), labels(cat.id))
    np.testing.assert_array_equal(opened.load_painted("a-cat"), painted)
    assert opened.settings("a-cat") == SETTINGS


@pytest.mark.parametrize(("largest", "mode"), [(255, "L"), (256, "I;16")])
def test_labels_are_grey_and_wide_only_where_needed(
    project: Project, largest: int, mode: str
) -> None:
    project.add_sample(IMAGE, name="a")
    project.save_labels("a", labels(largest))
    with Image.open(project.path / "labels" / "a.png") as picture:
        assert picture.mode == mode
    np.testing.assert_array_equal(project.load_labels("a"), labels(largest))


def test_names_never_clash(project: Project) -> None:
    names = [project.add_sample(IMAGE, {"prompt": "Cat"}).name]
    names += [project.reserve("cat"), project.reserve("cat")]
    names += [
        project.reserve("../../x"),
        project.reserve(""),
        project.reserve("猫" * 99),
    ]
    assert len({n.casefold() for n in names}) == len(names)
    assert not any("/" in n or n.startswith(".") or not n for n in names)
    for name in names[1:]:
        project.add_sample(IMAGE, name=name)
    with pytest.raises(ProjectError, match="'Cat' already"):
        project.add_sample(IMAGE, name="Cat")
    with pytest.raises(ValueError, match="a/b"):
        project.add_sample(IMAGE, name="a/b")


def test_wrong_labels_are_refused(project: Project) -> None:
    project.add_sample(IMAGE, name="a")
    for wrong in (labels()[:-1], labels().astype(float), labels(65_536), labels(-1)):
        with pytest.raises(ValueError, match="a: "):
            project.save_labels("a", wrong)
    with pytest.raises(ProjectError, match="no image 'b'"):
        project.save_labels("b", labels())
    with pytest.raises(ProjectError, match="'done'"):
        project.change_sample("a", status="done")  # type: ignore[arg-type]
    assert project.load_labels("a") is None
    assert project.sample("a").status == "new"


def test_a_project_is_exported_without_what_was_rejected(project: Project) -> None:
    project.classes.add("cat")
    for name in ("a", "b", "c"):
        project.add_sample(IMAGE, name=name)
    project.save_labels("a", labels(), "accepted")
    project.save_labels("b", labels(), "rejected")
    items = project.items()
    assert len(items) == 1
    out = project.path.parent / "out"
    export_dataset(items, project.label_classes(), out)
    with Image.open(out / "indexed" / "labels" / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels())


def test_a_token_and_a_trace_belong_to_the_project(project: Project) -> None:
    torch = pytest.importorskip("torch")
    from napari_ovam import Token

    number = project.classes.add("Cat / 猫").id
    token = Token("cat", "abc", torch.ones(2, 4))
    assert project.load_token(number) is None
    path = project.save_token(number, token)
    assert path.name == "1-cat.safetensors"
    project.classes.change(number, name="dog")
    project.save_token(number, token)
    opened = Project.open(project.path)
    assert [p.name for p in (project.path / "tokens").iterdir()] == [path.name]
    found = opened.load_token(number)
    assert found is not None
    assert torch.equal(found.embedding, token.embedding)


# -- damage ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b'{"format": 1}', b"\xff\xfe", b"3", b"[" * 100_000],
)
def test_a_damaged_index_is_recovered_and_said(
    project: Project, content: bytes | None
) -> None:
    project.classes.add("cat")
    project.add_sample(IMAGE, name="a")
    project.save_labels("a", labels(), "accepted")
    index = project.path / "project.json"
    if content is None:
        index.unlink()
    else:
        index.write_bytes(content)

    opened = Project.open(project.path)

    assert [c.name for c in opened.classes] == ["cat"]
    assert opened.sample("a").status == "accepted"
    assert "last good copy" in opened.notes[0]
    assert Project.open(project.path).notes == []
    if content is not None:
        assert (project.path / "project.json.damaged").read_bytes() == content


def test_what_is_no_project_is_named(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="is no project"):
        Project.open(tmp_path)
    with pytest.raises(ProjectError, match="not empty"):
        Project.create(project.path)
    for name in ("project.json", "project.json.bak"):
        (project.path / name).write_text("{")
    with pytest.raises(ProjectError, match="so is its copy"):
        Project.open(project.path)


def test_a_newer_project_is_left_alone(project: Project) -> None:
    index = project.path / "project.json"
    content = json.loads(index.read_text()) | {"format": 99, "program": "ovam 9"}
    index.write_text(json.dumps(content))
    with pytest.raises(ProjectError, match=r"'ovam 9', which is newer"):
        Project.open(project.path)
    assert json.loads(index.read_text()) == content


def test_files_outside_the_project_are_never_touched(project: Project) -> None:
    project.classes.add("cat")
    project.save()
    index = project.path / "project.json"
    content = json.loads(index.read_text())
    outside = "../../outside.safetensors"
    content["classes"][0]["token"] = outside
    index.write_text(json.dumps(content))
    opened = Project.open(project.path)
    assert opened.classes[1].token is None
    assert "class 1 ('cat')" in opened.notes[0]
    assert outside in opened.notes[0]


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """Give a folder, and take away what the system's administrator may do."""
    if os.name == "nt":
        pytest.skip("folders are made read-only in another way there")
    with tempfile.TemporaryDirectory() as folder:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65_534, -1)
            os.seteuid(65_534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


def test_a_read_only_project_is_opened_and_keeps_what_it_has(
    ordinary_user: Path,
) -> None:
    project = Project.create(ordinary_user / "project")
    project.add_sample(IMAGE, SETTINGS, "a")
    project.save_labels("a", labels(1))
    (project.path / "project.json").write_text("{")
    folders = [project.path, *filter(Path.is_dir, project.path.iterdir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        opened = Project.open(project.path)
        assert "last good copy" in opened.notes[0]
        assert "could not be written" in opened.notes[1]
        with pytest.raises(PermissionError):
            opened.save_labels("a", labels(2))
        with pytest.raises(PermissionError):
            opened.add_sample(IMAGE, name="b")
        np.testing.assert_array_equal(opened.load_labels("a"), labels(1))
        assert [sample.name for sample in opened.samples] == ["a"]
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_images_that_came_or_went_are_said(project: Project) -> None:
    project.add_sample(IMAGE, name="gone")
    (project.path / "images" / "gone.png").unlink()
    Image.fromarray(IMAGE).save(project.path / "images" / "new.png")
    opened = Project.open(project.path)
    assert opened.sample("new").status == "new"
    assert any("gone" in note for note in opened.notes)
    with pytest.raises(ValueError, match=r"gone\.png"):
        opened.load_image("gone")


def test_a_full_disk_keeps_the_old_labels(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.add_sample(IMAGE, name="a")
    project.save_labels("a", labels(1))

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("napari_ovam.base.atomic.os.fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            project.save_labels("a", labels(2))
    np.testing.assert_array_equal(
        Project.open(project.path).load_labels("a"), labels(1)
    )
    assert not list(project.path.rglob("*.tmp"))


# -- autosave --------------------------------------------------------------------


def test_autosave_writes_the_last_of_many_changes_by_itself(project: Project) -> None:
    autosave = Autosave(project, delay=0.2)
    name = autosave.add_sample(IMAGE, SETTINGS, "cat")
    ids = labels()
    for value in range(1, 6):
        ids[ids > 0] = value
        autosave.save_labels(name, ids)
    ids[:] = 9  # what comes later is not what was saved
    until = time.monotonic() + 3
    while autosave.pending and time.monotonic() < until:
        time.sleep(0.02)
    np.testing.assert_array_equal(
        Project.open(project.path).load_labels(name), labels(5)
    )
    assert autosave.close()


def test_autosave_flushes_and_closes(project: Project) -> None:
    autosave = Autosave(project, delay=60)
    name = autosave.add_sample(IMAGE)
    assert autosave.flush()
    assert Project.open(project.path).sample(name).status == "new"
    autosave.save_labels(name, labels())
    assert autosave.pending == 1
    assert autosave.close()
    np.testing.assert_array_equal(project.load_labels(name), labels())
    with pytest.raises(ProjectError, match="closed"):
        autosave.save_index()


def test_autosave_tries_again_after_a_full_disk(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = []
    project.add_sample(IMAGE, name="a")
    autosave = Autosave(project, delay=0.05, failed=errors.append)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("napari_ovam.base.atomic.os.fsync", no_space)
        autosave.save_labels("a", labels())
        assert not autosave.flush()
    assert isinstance(errors[0], OSError)
    assert autosave.flush()
    np.testing.assert_array_equal(project.load_labels("a"), labels())
    autosave.close()


def test_what_needs_an_image_waits_until_that_is_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = []
    autosave = Autosave(project, delay=60, failed=errors.append)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("napari_ovam.base.atomic.os.fsync", no_space)
        name = autosave.add_sample(IMAGE)
        autosave.save_labels(name, labels())
        assert not autosave.flush()
        assert autosave.pending == 2
    assert [type(error) for error in errors] == [OSError]
    assert autosave.flush()
    np.testing.assert_array_equal(project.load_labels(name), labels())
    autosave.close()


def test_a_slow_write_does_not_hold_up_what_comes_after_it(project: Project) -> None:
    started, ended = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        time.sleep(1)

    autosave = Autosave(project, delay=1)
    autosave.submit(("slow", None), slow)
    assert started.wait(5)
    begun = time.monotonic()
    autosave.submit(("next", None), ended.set)
    assert ended.wait(5)
    assert time.monotonic() - begun < 1.8
    autosave.close()


def test_what_cannot_be_written_does_not_hold_up_the_rest(project: Project) -> None:
    failing, written = threading.Event(), threading.Event()

    def fail() -> None:
        failing.set()
        raise OSError(28, "No space left on device")

    autosave = Autosave(project, delay=0.1)
    autosave.submit(("large", None), fail)
    assert failing.wait(5)
    time.sleep(0.2)
    autosave.submit(("small", None), written.set)
    assert written.wait(3)
    assert not autosave.flush()
    assert autosave.pending == 1
    autosave.close()


def test_one_thing_that_fails_does_not_stop_the_others(project: Project) -> None:
    errors: list[Exception] = []
    autosave = Autosave(project, delay=0.05, failed=errors.append)
    autosave.save_labels("nobody", labels())
    name = autosave.add_sample(IMAGE)
    assert not autosave.close()  # it would be tried again
    assert "nobody" in str(errors[0])
    assert project.load_image(name).shape == IMAGE.shape


# -- scratch ---------------------------------------------------------------------


def test_work_without_a_folder_is_offered_until_it_is_adopted(tmp_path: Path) -> None:
    first = Scratch()
    first.start()
    assert first.path.parent == scratch_folder() == tmp_path / "scratch"
    first.project.add_sample(IMAGE, name="a")
    first.project.save_labels("a", labels())
    assert unfinished() == []  # it is in use
    first.close()
    assert unfinished() == [first.path]

    copy_project(first.path, tmp_path / "mine" / "project")
    mark_done(first.path)
    assert unfinished() == []
    chosen = Project.open(tmp_path / "mine" / "project")
    np.testing.assert_array_equal(chosen.load_labels("a"), labels())
    assert not (chosen.path / "done").exists()
    assert first.path.is_dir()
    with pytest.raises(ProjectError, match="not empty"):
        copy_project(first.path, chosen.path)


def test_an_empty_scratch_project_leaves_nothing(tmp_path: Path) -> None:
    scratch = Scratch()
    scratch.start()
    scratch.close()
    assert not scratch.path.exists()
    assert unfinished() == []


def test_a_scratch_project_that_is_done_is_not_offered() -> None:
    scratch = Scratch()
    scratch.project.add_sample(IMAGE, name="a")
    scratch.close()
    mark_done(scratch.path)
    assert unfinished() == []
    assert (scratch.path / "images" / "a.png").is_file()


def test_only_scratch_projects_that_nobody_uses_are_removed(project: Project) -> None:
    scratch = Scratch()
    scratch.start()
    scratch.project.add_sample(IMAGE, name="a")
    with pytest.raises(ProjectError, match="in use"):
        remove(scratch.path)
    scratch.close()
    assert unfinished() == [scratch.path]
    remove(scratch.path)
    assert not scratch.path.exists()
    for path in (project.path, scratch_folder(), scratch_folder() / ".."):
        with pytest.raises(ProjectError, match="is not in"):
            remove(path)
    assert project.path.is_dir()


PAINTER = """
import sys, time
import numpy as np
from napari_ovam.project.autosave import Autosave
from napari_ovam.project.by_hand import parse_index
from napari_ovam.project.scratch import Scratch
scratch = Scratch()
autosave = Autosave(scratch.project)
autosave.submit(("start", None), scratch.start)
scratch.project.classes.add("cat")
image = np.zeros((200, 300, 3), np.uint8)
name = autosave.add_sample(image, {"prompt": "a cat"})
labels = np.zeros(image.shape[:2], np.uint16)
for stroke in range(10**9):
    labels.ravel()[stroke % labels.size] = 300  # one pixel a stroke
    autosave.save_labels(name, labels)
    print(stroke, time.time(), flush=True)
    time.sleep(0.01)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of POSIX")
@pytest.mark.parametrize("seconds", [3.6, 4.3])
def test_a_kill_loses_nothing_older_than_three_seconds(seconds: float) -> None:
    painter = subprocess.Popen([sys.executable, "-c", PAINTER], stdout=subprocess.PIPE)
    assert painter.stdout is not None
    painter.stdout.readline()
    time.sleep(seconds)
    killed = time.time()
    painter.send_signal(signal.SIGKILL)
    lines = painter.stdout.read().decode().splitlines()
    painter.wait()
    times = [line.split() for line in lines if len(line.split()) == 2]
    old = max(int(stroke) for stroke, at in times if float(at) < killed - 3)

    (path,) = unfinished()
    project = Project.open(path)
    (sample,) = project.samples
    found = project.load_labels(sample.name)
    assert found is not None
    assert found.shape == (200, 300)
    assert int((found == 300).sum()) > old
    assert [c.name for c in project.classes] == ["cat"]
    assert project.notes == []
    assert project.settings(sample.name) == {"prompt": "a cat"}
    pictures = list(path.rglob("[!.]*.png"))
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(picture) as whole:
            assert np.asarray(whole).shape[:2] == (200, 300)


def test_what_was_done_a_month_ago_is_cleaned_away() -> None:
    old, new, unfinished_ = Scratch(), Scratch(), Scratch()
    for each in (old, new, unfinished_):
        each.start()
        each.project.add_sample(IMAGE, SETTINGS)
        each.close()
    for each in (old, new):
        mark_done(each.path)
    os.utime(old.path / "done", (0, 0))
    assert clean() == [old.path]
    assert not old.path.exists()
    assert new.path.is_dir()
    assert unfinished() == [unfinished_.path]


def test_pictures_put_into_the_folder_look_as_they_do_elsewhere(tmp_path: Path) -> None:
    from napari_ovam.images.files import read

    images = Project.create(tmp_path / "p").path / "images"
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 4096, (9, 14), dtype=np.uint16)
    clear = Image.fromarray(rng.integers(0, 256, (9, 14, 4), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(images / "wide.png")
    clear.save(images / "clear.png")
    clear.convert("P").save(images / "palette.png")
    clear.convert("RGB").save(images / "turned.png", exif=exif)
    clear.convert("CMYK").save(images / "ink.png", "JPEG")
    project = Project.open(tmp_path / "p")
    names = ["clear", "ink", "palette", "turned", "wide"]
    assert [sample.name for sample in project.samples] == names
    for name in names:
        image = project.load_image(name)
        np.testing.assert_array_equal(image, read(images / f"{name}.png"))
        project.save_labels(name, np.ones(image.shape[:2], np.uint8))


def test_pictures_that_are_no_images_of_the_project_are_named(tmp_path: Path) -> None:
    images = Project.create(tmp_path / "p").path / "images"
    pages = [Image.new("RGB", (8, 6), color) for color in ("red", "lime")]
    for name in ("BIG.PNG", "photo.JPG", "scan.tif", "fine.png"):
        pages[0].save(images / name)
    pages[0].save(images / "moving.png", save_all=True, append_images=pages[1:])
    (images / "broken.png").write_bytes(b"no picture")
    (images / "phone.heic").write_bytes(b"no picture that is opened")
    (images / "a").mkdir()
    (images / "notes.txt").write_text("mine")
    project = Project.open(tmp_path / "p")
    assert [sample.name for sample in project.samples] == ["fine"]
    (note,) = (note for note in project.notes if "left out" in note)
    assert "7 pictures" in note
    assert "a: it is a folder" in note
    assert "rename it to BIG.png" in note
    assert "broken.png is no picture" in note
    assert len(list(images.iterdir())) == 9
