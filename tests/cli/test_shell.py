"""What a shell does to a command: pipes, services, bad files, repeated runs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_ovam.base.folder_lock import lock_folder
from napari_ovam.cli import app
from napari_ovam.project import Project

RANDOM = np.random.default_rng(0)


@pytest.fixture
def run(loaded_once, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def picture(path, size=32):
    pixels = RANDOM.integers(0, 255, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def test_one_bad_file_does_not_stop_the_others_and_a_second_run_does_nothing_twice(
    run, tmp_path
):
    for name in ("one.png", "two.png", "three.png"):
        picture(tmp_path / name)
    whole = (tmp_path / "two.png").read_bytes()
    (tmp_path / "two.png").write_bytes(whole[: len(whole) // 2])
    frames = [Image.fromarray(RANDOM.integers(0, 255, (16, 16, 3), np.uint8))] * 2
    frames[0].save(tmp_path / "moves.tiff", save_all=True, append_images=frames[1:])
    words = ["trace", "one.png", "two.png", "moves.tiff", "no.png", "three.png"]
    result = run(*words, "--out", "work")
    assert result.exit_code == 2
    for name in ("two.png", "moves.tiff", "no.png"):
        assert name in result.stderr
    assert names("work") == ["one", "three"]
    before = (tmp_path / "work/traces/one.safetensors").stat().st_mtime_ns
    (tmp_path / "two.png").write_bytes(whole)
    result = run("trace", "one.png", "two.png", "three.png", "--out", "work")
    assert result.exit_code == 0
    assert "one is there already" in result.stderr
    assert names("work") == ["one", "three", "two"]
    assert (tmp_path / "work/traces/one.safetensors").stat().st_mtime_ns == before
    assert run("trace", "moves.tiff", "--page", 1, "--out", "work").exit_code == 0
    assert names("work")[0] == "moves"
    picture(tmp_path / "one.png")  # another picture of that name
    run("trace", "one.png", "--out", "work")
    assert "one-2" in names("work")
    assert run("trace", "no.png", "--out", "other").exit_code == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "half", "float32", "int8"])
def test_the_precision_is_chosen_or_named(tmp_path, monkeypatch, dtype):
    monkeypatch.chdir(tmp_path)
    words = ["generate", "a cat", "--steps", "1", "--out", "work", "--dtype", dtype]
    words += ["--height", "32", "--width", "32"]  # half precision is slow on a CPU
    result = CliRunner().invoke(app, words)
    if dtype == "int8":
        assert result.exit_code == 1
        assert "'int8'" in result.stderr
        assert not (tmp_path / "work").exists()
    else:
        assert result.exit_code == 0
        assert names("work") == ["a-cat-0"]


def test_bytes_that_are_no_text_are_named(run):
    for words in (
        ["generate", "a K\udce4fer"],
        ["trace", "x.png", "--prompt", "\udcff"],
    ):
        picture("x.png")
        result = run(*words, "--out", "work")
        assert result.exit_code != 0
        assert "no UTF-8" in result.stderr


def test_an_image_that_was_generated_is_not_generated_again(run):
    words = ["generate", "a cat", "--steps", 1, "--height", 32, "--width", 32]
    assert run(*words, "--out", "work").exit_code == 0
    result = run(*words, "--count", 2, "--out", "work")
    assert result.exit_code == 0
    assert "a-cat-0 is there already" in result.stderr
    assert names("work") == ["a-cat-0", "a-cat-1"]
    run(*words, "--seed", 1, "--negative-prompt", "dog", "--out", "work")
    assert names("work") == ["a-cat-0", "a-cat-1", "a-cat-1-2"]


def test_phrases_are_split_as_in_the_panel_and_what_is_taken_off_is_said(run, tmp_path):
    picture(tmp_path / "one.png")
    run("trace", "one.png", "--out", "work")
    words = ["--no-save-maps"]
    words += ["--phrase", "cat, (dog:1.3)", "--phrase", "Hat."]
    result = run("maps", "work", *words)
    assert result.exit_code == 0, result.output
    assert "'(dog:1.3)' is read as 'dog'" in result.stderr
    assert [e.name for e in Project.open("work").classes] == ["cat", "dog", "Hat"]
    assert run("maps", "work", "--phrase", "...").exit_code == 1


@pytest.mark.parametrize("command", ["propose", "improve", "import", "maps", "trace"])
def test_no_command_writes_to_a_project_that_is_open(run, tmp_path, command):
    project = Project.create(tmp_path / "work")
    project.classes.add("cat")
    project.save()
    (tmp_path / "set").mkdir()
    picture(tmp_path / "set" / "one.png")
    more = {
        "import": ["set", "--format", "indexed"],
        "maps": ["--phrase", "cat"],
        "trace": ["--out", "work"],
    }
    first = "set/one.png" if command == "trace" else "work"
    if command == "import":
        (tmp_path / "set" / "images").mkdir()
        (tmp_path / "set" / "labels").mkdir()
        picture(tmp_path / "set/images/one.png")
        Image.new("L", (32, 32), 1).save(tmp_path / "set/labels/one.png")
    with lock_folder(project.path):
        result = run(command, first, *more.get(command, []))
    assert result.exit_code == 1
    assert "open in a window or another command" in result.output
    assert names("work") == []


def test_what_a_class_was_not_looked_for_in_is_said(run, tmp_path):
    project = Project.create(tmp_path / "work")
    for name in ("cherry", "dog"):
        project.classes.add(name)
    pixels = RANDOM.integers(0, 255, (32, 32, 3), np.uint8)
    project.add_sample(pixels, {"prompt": "Cherries on a plate"}, "a")
    project.save()
    result = run("propose", "work")
    assert result.exit_code == 0, result.output
    assert "'dog' was not looked for in 1" in result.output
    assert "cherry" not in result.output


PROGRAM = "from napari_ovam.cli import main; main()"


@pytest.fixture
def masks(tmp_path):
    """A data set of an image with its mask, and of one without."""
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    picture(tmp_path / "set/images/one.png")
    Image.new("L", (32, 32), 1).save(tmp_path / "set/labels/one.png")
    Image.new("L", (32, 32), 1).save(tmp_path / "set/labels/猫.png")
    return tmp_path


IMPORT = ("import", "work", "set", "--format", "indexed")


def test_a_terminal_without_the_signs_and_a_reader_that_leaves(masks):
    read, write = os.pipe()
    os.close(read)  # as `| head` that has seen enough
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *IMPORT],
        cwd=masks,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.returncode == 2
    assert b"\\u732b" in done.stderr
    assert b"Broken" not in done.stderr
    assert names(masks / "work") == ["one"]


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams as a shell does")
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_a_service_without_streams(masks, closed):
    done = subprocess.run(  # noqa: S602 (the shell closes the streams)
        f"{sys.executable} -c '{PROGRAM}' {' '.join(IMPORT)} {closed}",
        shell=True,
        cwd=masks,
        check=False,
    )
    assert done.returncode == 2
    assert names(masks / "work") == ["one"]


def names(path):
    return sorted(sample.name for sample in Project.open(path).samples)
