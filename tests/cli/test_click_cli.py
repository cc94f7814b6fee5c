"""`napari-ovam click`, as a script would call it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_ovam.cli import app
from napari_ovam.project import Project
from napari_ovam.scenes import load_scenes


def _run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    scene = next(s for s in load_scenes() if set(s.classes.values()) == {"cat"})
    made = Project.create(tmp_path / "pets")
    made.add_sample(scene.image, name="one")
    made.save()
    np.save(tmp_path / "exact.npy", scene.labels > 0)
    return made


def test_a_click_adds_an_object_and_another_corrects(project: Project, tmp_path: Path):
    exact = np.load(tmp_path / "exact.npy")
    row, column = (int(x) for x in np.argwhere(exact).mean(0))
    out = tmp_path / "mask.png"
    words = ("click", project.path, "one", "--class", "cat", "--at", f"{row},{column}")
    result = _run(*words, "--out", out)
    assert result.exit_code == 0, result.output
    mask = np.array(Image.open(out)) == 255
    assert (mask & exact).sum() / (mask | exact).sum() > 0.8
    assert Project.open(project.path).load_labels("one") is None
    assert _run(*words).exit_code == 0
    opened = Project.open(project.path)
    assert np.array_equal(opened.load_labels("one") == 1, mask)
    assert opened.sample("one").status == "edited"
    words = ("click", project.path, "one", "--class", "cat", "--not", f"{row},{column}")
    assert _run(*words).exit_code == 0
    assert Project.open(project.path).load_labels("one")[row, column] == 0


def test_the_history_says_what_clicks_did_and_replays_it(
    project: Project, tmp_path: Path
):
    row, column = np.argwhere(np.load(tmp_path / "exact.npy")).mean(0).astype(int)
    clicked = ("click", project.path, "one", "--class", "cat", "--at")
    assert _run(*clicked, f"{row},{column}").exit_code == 0
    told = _run("history", project.path, "one", "--at", f"{row},{column}")
    assert told.output.startswith("cat, by a click, ")
    assert "nobody knows" in _run("history", project.path, "one", "--at", "0,0").output
    told = _run("history", project.path, "one", "--replay", tmp_path / "again")
    assert "All pixels are as these changes make them" in told.output
    (last,) = (tmp_path / "again").iterdir()
    labels = Project.open(project.path).load_labels("one")
    assert np.array_equal(np.array(Image.open(last)), labels)
    told = _run("export", project.path, "--out", tmp_path / "out", "--history")
    assert told.exit_code == 0, told.output
    numbers = np.array(Image.open(tmp_path / "out" / "history" / "one.png"))
    assert np.array_equal(numbers > 0, labels > 0)
    assert _run("history", project.path, "one", "--at", "900,0").exit_code == 1


def test_a_class_may_have_an_id_above_255(project: Project, tmp_path: Path):
    project.classes.add("cat", 300)
    project.save()
    row, column = np.argwhere(np.load(tmp_path / "exact.npy")).mean(0).astype(int)
    clicked = ("click", project.path, "one", "--class", "cat", "--at")
    result = _run(*clicked, f"{row},{column}")
    assert result.exit_code == 0, result.output
    assert Project.open(project.path).load_labels("one")[row, column] == 300


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--at", "3"], "--at is '3': give 2 numbers"),
        (["--box", "3,4,x,6"], "--box is '3,4,x,6': give 4 numbers"),
        (["--at", "900,3"], "outside"),
        ([], "nothing to go by"),
    ],
)
def test_bad_places_are_named(project: Project, words: list[str], said: str):
    result = _run("click", project.path, "one", "--class", "cat", *words)
    assert result.exit_code == 1
    assert said in result.output
    assert Project.open(project.path).load_labels("one") is None
