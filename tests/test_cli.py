"""The command line, as a script would call it, on the embedded model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

import napari_ovam
from napari_ovam.cli import app

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


def _ok(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_from_a_prompt_to_a_dataset(run: Run, tmp_path: Path) -> None:
    prompt = "a cat and a hat on the grass"
    _ok(run("generate", prompt, "--count", 2, "--steps", 4, "--out", "work"))
    names = ["a-cat-and-a-hat-on-the-grass-0", "a-cat-and-a-hat-on-the-grass-1"]
    assert sorted(p.stem for p in (tmp_path / "work/images").iterdir()) == names
    about = json.loads(Image.open(f"work/images/{names[1]}.png").text["ovam"])
    assert (about["prompt"], about["seed"], about["steps"]) == (prompt, 1, 4)

    _ok(run("maps", "work", "--phrase", "cat", "--phrase", "hat"))
    cat = np.array(Image.open(f"work/maps/{names[0]}.cat.png"))
    assert cat.shape == (128, 128)
    assert cat.max() == 65535
    labels = np.array(Image.open(f"work/labels/{names[0]}.png"))
    assert 1 in labels

    # a person's correction is kept by another call, and is what a token is made from
    labels[:] = 0
    labels[40:90, 30:80] = 1
    Image.fromarray(labels).save(f"work/labels/{names[0]}.png")
    assert "kept" in _ok(run("maps", "work", "--phrase", "cat")).output
    chosen = ("--phrase", "cat", "--image", names[0])
    result = _ok(run("optimize", "work", *chosen, "--iterations", 5))
    assert "IoU" in result.output
    token = napari_ovam.load_token("work/tokens/cat.safetensors")
    assert len(token.info["losses"]) == 5
    result = run("optimize", "work", *chosen)
    assert result.exit_code == 1
    assert "--overwrite" in result.output

    _ok(
        run("export", "work", "--format", "indexed", "--format", "coco", "--out", "set")
    )
    exported = np.array(Image.open(f"set/indexed/labels/{names[0]}.png"))
    np.testing.assert_array_equal(exported, labels)
    coco = COCO("set/coco/annotations.json")
    image = next(
        i for i in coco.loadImgs(coco.getImgIds()) if names[0] in i["file_name"]
    )
    (annotation,) = coco.loadAnns(coco.getAnnIds(image["id"]))
    np.testing.assert_array_equal(coco.annToMask(annotation), labels == 1)
    assert run("export", "work", "--out", "set").exit_code == 1


def test_an_image_of_ones_own(run: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 150, 3), "u1")
    Image.fromarray(pixels).save("mine.png")
    _ok(run("trace", "mine.png", "--out", "work"))
    _ok(run("maps", "work", "--phrase", "cat", "--threshold", "0.9"))
    assert np.array(Image.open("work/labels/mine.png")).shape == (90, 150)


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
        (["trace", "missing.png", "--out", "work"], "missing.png"),
        (["optimize", ".", "--phrase", "unicorn"], "unicorn"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    run: Run, words: list[str], named: str
) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert named in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "command", ["demo", "generate", "trace", "maps", "optimize", "export"]
)
def test_help_explains_every_option(run: Run, command: str) -> None:
    lines = _ok(run(command, "--help")).output.splitlines()
    for number, line in enumerate(lines):
        words = line.split()
        if words and words[0].startswith("--"):
            follow = lines[number + 1].strip() if number + 1 < len(lines) else ""
            explained = "  " in line.strip() or not follow.startswith("--")
            assert explained, line


def test_demo_leaves_a_full_folder_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    result = run("demo", "--out", "full")
    assert result.exit_code == 1
    assert "full" in result.output
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
