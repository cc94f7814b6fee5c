"""What the pages of the documentation show works as it stands.

Commands and examples run page by page, in a folder with what the page speaks of. The
guides have tests of their own, in `tests/workflows`.
"""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from napari_ovam import TokenLibrary, load_token
from napari_ovam.cli import app

ROOT = Path(__file__).parents[1]
PAGES = {page.stem: page for page in sorted((ROOT / "docs").glob("*.md"))}
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A command with less to do; names of the page for what is there.
SHORTER = {
    "generate": ("--count", "1", "--steps", "4"),
    "optimize": ("--iterations", "5"),
}
INSTEAD = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "tiny",
    "owner/name": "tiny",
    "indexed|coco|voc|cvat|labelme|label-studio|datumaro|ome-zarr": "indexed",
    "PHOTOS": "photo-2.jpg",
    "NEW_FOLDER": ".",
    "DATA": "made/cvat",
    "PATH": "made/indexed",
    "IMAGE": "cat-hat-room",
    "DIR": "new",
    "heron": "cat",
}
# They open a window, ask the hub, or are tested elsewhere: their words are checked.
PROJECTS = ("work", "birds", "film", "PROJECT")
GENERATED = "00012-965400086.png"
PARSED_ONLY = {("models", "get"), ("models", "info"), ("demo",), ()}

if not PAGES:
    pytest.skip("no checkout", allow_module_level=True)


def blocks(page: str, *languages: str) -> list[str]:
    found = CODE.findall(PAGES[page].read_text("utf-8"))
    return [code for language, code in found if language in languages]


def commands(page: str, program: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh", "") for line in block.splitlines()]
    found = [shlex.split(line.partition(" || ")[0], comments=True) for line in lines]
    return [words[1:] for words in found if words and words[0] == program]


TESTED = ("dataset", "guide")  # in tests/workflows
WITH_COMMANDS = [p for p in PAGES if p not in TESTED and commands(p, "napari-ovam")]
WITH_PYTHON = [p for p in PAGES if blocks(p, "python")]
WITH_SCRIPTS = [p for p in PAGES if commands(p, "python")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a project of two accepted images, its masks, pictures."""
    from napari_ovam import Project

    folder = tmp_path_factory.mktemp("docs")
    scenes = ROOT / "src/napari_ovam/scenes"
    for name in ("cat-hat-room.png", "photo.jpg", "photo-1.jpg", "photo-2.jpg"):
        shutil.copy(scenes / "cat-hat-room.png", folder / name)
    shutil.copy(ROOT / "src/napari_ovam/samples/car.png", folder / GENERATED)
    pages = [Image.open(scenes / "cat-grass.png")] * 2
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    pictures = [str(folder / "cat-hat-room.png"), str(folder / "photo-1.jpg")]
    work = str(folder / "work")
    call("trace", *pictures, "--prompt", "a cat and a hat", "--out", work)
    call("maps", work, "--phrase", "cat,hat,heron,thing")
    project = Project.open(work)
    for sample in project.samples:
        project.change_sample(sample.name, status="accepted")
    project.save()
    forms = "indexed,coco,cvat,ome-zarr"
    call("export", work, "--format", forms, "--out", str(folder / "made"))
    store = folder / "made" / "ome-zarr" / "cat-hat-room.ome.zarr"
    store.rename(folder / "cells.ome.zarr")
    call("optimize", work, "--phrase", "cat", "--iterations", "3")
    (token,) = (folder / "work/tokens").glob("*.safetensors")
    shutil.copy(token, folder / "cat.safetensors")
    return folder


def call(*words: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.output)


@pytest.fixture
def place(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded_once: None
) -> Path:
    """Work in a folder in which a page's commands and examples find their files."""
    for source in prepared.iterdir():
        copy = shutil.copytree if source.is_dir() else shutil.copy
        for name in PROJECTS if source.name == "work" else ("",):
            copy(source, tmp_path / (name or source.name))
    monkeypatch.setenv("NAPARI_OVAM_TOKENS", str(tmp_path / "library"))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        TokenLibrary().add(load_token(tmp_path / "cat.safetensors"))
    call("tokens", "export", "cat", "voc-tokens.npy")
    return tmp_path


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_run(page: str, place: Path) -> None:
    for words in commands(page, "napari-ovam"):
        used = [INSTEAD.get(word, word) for word in words]
        names = tuple(word for word in words if word.isalpha())
        if any(names[: len(each)] == each for each in PARSED_ONLY if each):
            parse(used)
        elif used:
            call(*used, *(() if "ome-zarr" in used else SHORTER.get(used[0], ())))


def parse(words: list[str]) -> None:
    """Check the words of a command, as they are when it runs."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("napari-ovam", list(words[:1]))
    while hasattr(command, "get_command") and words:
        command = command.get_command(context, words[0])
        assert command is not None, words
        words = words[1:]
    command.make_context("napari-ovam", list(words), parent=context)


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_examples_run(page: str, place: Path) -> None:
    import napari_ovam as ovam
    from napari_ovam.images.files import read

    pipe = ovam.load_pipeline("tiny")
    image = read("photo.jpg")
    made = ovam.trace_image(pipe, image)
    names = {"ovam": ovam, "pipe": pipe, "image": image, "trace": made.trace}
    names |= {"project": ovam.Project.open("work"), "path": "made/coco"}
    names |= {"token": ovam.load_token("cat.safetensors"), "picture": None}
    for block in blocks(page, "python"):
        if "dask_jobqueue" in block:
            continue  # needs a cluster
        example = block.replace('"cuda"', '"cpu"')
        for name in ("stable-diffusion-v1-5/stable-diffusion-v1-5", "owner/name"):
            example = example.replace(name, INSTEAD[name])
        exec(compile(example, str(PAGES[page]), "exec"), names)  # noqa: S102 (ours)


@pytest.mark.parametrize("page", WITH_SCRIPTS)
def test_scripts_are_there_with_their_options(page: str) -> None:
    for script, *words in commands(page, "python"):
        path = ROOT / script
        files = [path] if path.is_file() else sorted(path.glob("*.py"))
        source = "".join(file.read_text("utf-8") for file in files)
        assert source, script
        for word in words:
            assert not word.startswith("--") or f'"{word}"' in source, (script, word)


def test_messages_are_those_of_the_program() -> None:
    """The messages that the page on troubles explains, but for napari's and Qt's."""
    text = PAGES["troubleshooting"].read_text("utf-8")
    listed = re.findall(r'^\| "(.+)" \|', text, re.MULTILINE)
    assert len(listed) > 20
    source = "".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8"))
        for path in (ROOT / "src").rglob("*.py")
    )
    for message in listed:
        for part in filter(None, (part.strip() for part in message.split("…"))):
            assert part in source, message
