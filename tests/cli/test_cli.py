"""The command line, as a script would call it, on the embedded model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image, PngImagePlugin
from pycocotools.coco import COCO
from typer.testing import CliRunner

import napari_ovam
from napari_ovam.base.folder_lock import lock_folder
from napari_ovam.cli import app
from napari_ovam.project import Project

Run = Callable[..., Result]

NAMES = ["a-cat-and-a-hat-on-the-grass-0", "a-cat-and-a-hat-on-the-grass-1"]


@pytest.fixture
def run(loaded_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


def _ok(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def _project(path: Path, count: int = 1) -> Project:
    """Make a project of small images: class 1 is "cat", 2 "hat", 3 on no image."""
    project = Project.create(path)
    for name in ("cat", "hat", "dog"):
        project.classes.add(name)
    for number in range(count):
        sample = project.add_sample(
            np.full((8, 9, 3), number, np.uint8), name=f"i{number}"
        )
        labels = np.zeros((8, 9), np.uint8)
        labels[2:5, 3:6] = 1
        labels[6, 2 : 4 + number % 3] = 2
        labels[0, 0] = 255
        project.save_labels(sample.name, labels, "edited")
    return project


def test_from_a_prompt_to_a_dataset(run: Run, tmp_path: Path) -> None:
    prompt = "a cat and a hat on the grass"
    _ok(run("generate", prompt, "--count", 2, "--steps", 4, "--out", "work"))
    assert sorted(p.stem for p in (tmp_path / "work/images").iterdir()) == NAMES
    about = json.loads(Image.open(f"work/images/{NAMES[1]}.png").text["ovam"])
    assert (about["prompt"], about["seed"], about["steps"]) == (prompt, 1, 4)

    _ok(run("maps", "work", "--phrase", "cat", "--phrase", "hat"))
    cat = np.array(Image.open(f"work/maps/{NAMES[0]}.1-cat.png"))
    assert cat.shape == (256, 256)
    assert cat.max() == 65535
    labels = np.array(Image.open(f"work/labels/{NAMES[0]}.png"))
    assert 1 in labels
    project = Project.open("work")
    assert [s.status for s in project.samples] == ["proposed"] * 2
    assert [(c.id, c.name) for c in project.classes] == [(1, "cat"), (2, "hat")]
    about = project.provenance(NAMES[0])
    assert about["image"]["seed"] == 0
    assert about["proposed_by"]["layers"] == "fine"

    # proposals are made anew; a correction with any program is kept, and is what a
    # token is made from
    labels[:] = 0
    labels[40:90, 30:80] = 1
    Image.fromarray(labels).save(f"work/labels/{NAMES[0]}.png")
    output = _ok(run("maps", "work", "--phrase", "cat", "--no-save-maps")).output
    assert f"{NAMES[0]}: its labels are kept (edited" in output
    assert f"labels/{NAMES[1]}.png" in output
    np.testing.assert_array_equal(Project.open("work").load_labels(NAMES[0]), labels)
    chosen = ("--phrase", "cat", "--image", NAMES[0])
    result = _ok(run("optimize", "work", *chosen, "--iterations", 5))
    assert "IoU" in result.output
    token = napari_ovam.load_token("work/tokens/1-cat.safetensors")
    assert len(token.info["losses"]) == 5
    assert Project.open("work").classes[1].source == "token"
    result = run("optimize", "work", *chosen)
    assert result.exit_code == 1
    assert "--overwrite" in result.output

    _ok(
        run("export", "work", "--format", "indexed", "--format", "coco", "--out", "set")
    )
    exported = np.array(Image.open(f"set/indexed/labels/{NAMES[0]}.png"))
    np.testing.assert_array_equal(exported, labels)
    coco = COCO("set/coco/annotations.json")
    image = next(
        i for i in coco.loadImgs(coco.getImgIds()) if NAMES[0] in i["file_name"]
    )
    assert image["ovam"]["image"]["prompt"] == prompt
    (annotation,) = coco.loadAnns(coco.getAnnIds(image["id"]))
    np.testing.assert_array_equal(coco.annToMask(annotation), labels == 1)
    assert run("export", "work", "--out", "set").exit_code == 1

    # told to, it replaces a person's labels, too
    _ok(run("maps", "work", "--phrase", "cat", "--overwrite", "--no-save-maps"))
    assert (Project.open("work").load_labels(NAMES[0]) != labels).any()


def test_an_image_of_ones_own(run: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 150, 3), "u1")
    Image.fromarray(pixels).save("mine.png")
    _ok(run("trace", "mine.png", "--out", "work"))
    words = ("--layers", "all")
    _ok(run("maps", "work", "--phrase", "cat", "--threshold", "0.9", *words))
    assert np.array(Image.open("work/labels/mine.png")).shape == (90, 150)
    project = Project.open("work")
    assert project.classes[1].threshold == 0.9
    made = project.provenance("mine")
    assert made["source"] == "mine.png"
    assert made["proposed_by"]["thresholds"] == {"1": 0.9}
    assert made["proposed_by"]["layers"] == "all"
    _ok(run("maps", "work", "--phrase", "CAT", "--threshold", "auto"))
    project = Project.open("work")
    assert len(project.classes) == 1
    assert project.classes[1].threshold is None


def test_an_image_of_another_tool_is_traced_with_its_words(run: Run) -> None:
    info = PngImagePlugin.PngInfo()
    written = "a (red cat:1.3), <lora:fur:0.8>"
    info.add_text("parameters", f"{written}\nSteps: 7, Seed: 12, Size: 64x32")
    Image.new("RGB", (64, 32)).save("theirs.png", pnginfo=info)
    result = _ok(run("trace", "theirs.png", "--out", "a"))
    _ok(run("trace", "theirs.png", "--out", "b", "--plain-prompts"))
    _ok(run("trace", "theirs.png", "--out", "c", "--prompt", "mine"))
    assert "<lora:fur:0.8>" in result.stderr
    made = [Project.open(out).provenance("theirs") for out in "abc"]
    assert [each["prompt"] for each in made] == [written, "a red cat", "mine"]
    settings = made[0]["source"]["settings"]
    assert (settings["prompt"], settings["seed"]) == (written, 12)
    assert (settings["height"], settings["width"]) == (32, 64)


def test_a_project_that_a_window_has_open_is_not_written_to(
    run: Run, tmp_path: Path
) -> None:
    _project(tmp_path / "work")
    lock = lock_folder(tmp_path / "work")
    assert lock is not None
    with lock:
        result = run("maps", "work", "--phrase", "cat")
        assert result.exit_code == 1
        assert "work is open in a window" in result.output
        _ok(run("export", "work", "--out", "set"))  # which only reads


def test_export_splits_and_chooses(run: Run, tmp_path: Path) -> None:
    project = _project(tmp_path / "work", 12)
    for number in range(10):
        project.change_sample(f"i{number}", status="accepted")
    project.change_sample("i11", status="rejected")
    words = ("--format", "coco,yolo-seg", "--status", "accepted")
    split = ("--split", "0.6,0.2,0.2")
    result = _ok(run("export", "work", *words, *split, "--seed", 3, "--out", "a"))
    assert "yolo-seg: lowest IoU of the polygons 1.0000 (i0, 'cat')" in result.output
    parts = {
        part: [
            Path(i["file_name"]).stem
            for i in json.loads(Path(f"a/coco/annotations_{part}.json").read_text())[
                "images"
            ]
        ]
        for part in ("train", "val", "test")
    }
    assert [len(names) for names in parts.values()] == [6, 2, 2]
    assert {n for names in parts.values() for n in names} == {
        f"i{number}" for number in range(10)
    }
    _ok(run("export", "work", *words, *split, "--seed", 3, "--out", "b"))
    for part in parts:
        again = Path(f"b/coco/annotations_{part}.json").read_bytes()
        assert again == Path(f"a/coco/annotations_{part}.json").read_bytes()
    _ok(run("export", "work", "--out", "c"))
    assert len(list(Path("c/indexed/labels").iterdir())) == 11
    for wrong in ("0.9,0.9", "half", "1,2,3,4"):
        result = run("export", "work", "--split", wrong, "--out", "d")
        assert result.exit_code == 1
        assert "0.9" in result.output or repr(wrong) in result.output
    assert (
        "rejected, "
        not in run("export", "work", "--status", "new", "--out", "d").output
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["generate", " ", "--out", "work"], "prompt"),
        (["generate", "a cat", "--width", "100", "--out", "work"], "100"),
        (
            ["generate", "a cat", "--model", "no-such-model", "--out", "w"],
            "no-such-model",
        ),
        (["maps", "nowhere", "--phrase", "cat"], "nowhere"),
        (["maps", ".", "--phrase", "cat", "--threshold", "high"], "high"),
        (["maps", ".", "--phrase", "cat", "--layers", "coarse"], "coarse"),
        (["maps", ".", "--phrase", "cat", "--layers", "most"], "most"),
        (["trace", "missing.png", "--out", "work"], "missing.png"),
        (["optimize", ".", "--phrase", "unicorn"], "no project in ."),
        (["export", "nowhere", "--out", "o"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    run: Run, words: list[str], named: str
) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert named in result.output
    assert len(result.output.splitlines()) == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["optimize", "work", "--phrase", "unicorn"], "unicorn"),
        (["optimize", "work", "--phrase", "dog"], "'dog'"),
        (["maps", "work", "--phrase", "cat", "--image", "other"], "'other'"),
        (["export", "work", "--status", "accepted", "--out", "o"], "accepted"),
        (["export", "work", "--format", "gif", "--out", "o"], "gif"),
        (["generate", "a cat", "--out", "full"], "full"),
    ],
)
def test_what_a_project_has_not_is_named(
    run: Run, tmp_path: Path, words: list[str], named: str
) -> None:
    _project(tmp_path / "work")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("precious")
    result = run(*words)
    assert result.exit_code == 1
    assert named in result.output
    assert len(result.output.splitlines()) == 1
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "command",
    ["demo", "generate", "trace", "maps", "optimize", "export", "import", "verify"],
)
def test_help_explains_every_option(run: Run, command: str) -> None:
    lines = _ok(run(command, "--help")).output.splitlines()
    for number, line in enumerate(lines):
        words = line.split()
        if words and words[0].startswith("--"):
            follow = lines[number + 1].strip() if number + 1 < len(lines) else ""
            explained = "  " in line.strip() or not follow.startswith("--")
            assert explained, line


def test_the_other_commands_are_there(run: Run) -> None:
    output = _ok(run("--help")).output
    for command in ("models", "propose", "improve", "tokens"):
        assert f"  {command} " in output


def test_demo_leaves_a_full_folder_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    result = run("demo", "--out", "full")
    assert result.exit_code == 1
    assert "full" in result.output
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
