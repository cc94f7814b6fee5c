"""Datasets over night, as a script would make them."""

import re

import pytest
from typer.testing import CliRunner

from napari_ovam.base.folder_lock import lock_folder
from napari_ovam.cli import app
from napari_ovam.cli.dataset import duration, pace
from napari_ovam.project import Project

SMALL = ("--steps", 2, "--height", 64, "--width", 64)


@pytest.fixture
def run(loaded_once):
    return lambda *words: CliRunner().invoke(
        app, ["dataset", *(str(word) for word in words)]
    )


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "pets")
    for name in ("cat", "hat"):
        project.classes.add(name)
    project.save()
    return project.path


def ok(result):
    assert result.exit_code == 0, result.output
    return result.output


def test_from_a_project_to_an_export(run, project, tmp_path):
    night = tmp_path / "night"
    template = ("--template", "a {class} {place}", "--list", "place=on grass,in snow")
    planned = ("plan", project, "--out", night, *template, "--seeds", 2, *SMALL)
    output = ok(run(*planned, "--dry-run"))
    assert "8 images, in shards of 32" in output
    assert re.search(r"about [\d.]+ s each on cpu .* with one worker", output)
    assert re.search(r"each, .* in all; .* are free", output)
    assert not night.exists()
    lenient = ("--filter", "agreement=off,unsure=off")  # two steps make no good ones
    assert "8 items" in ok(run(*planned, *lenient))
    assert "planned in" in ok(run(*planned, *lenient))
    other = run(*planned, "--quota", 5)
    assert other.exit_code == 1
    assert "they differ in quotas, filters" in other.output
    assert "0 images made, 0 failed, 8 left; nobody runs it" in ok(run("status", night))
    assert "8 images, of which" in ok(run("run", night))
    output = ok(run("status", night))
    assert "8 images made, 0 failed, 0 left" in output
    assert "cat: " in output
    assert len(Project.open(night).samples) == 8
    chosen = ("--status", "proposed,rejected")
    ok(run("export", night, "--out", tmp_path / "data", *chosen))
    assert len(list((tmp_path / "data/indexed").rglob("*.png"))) == 16


def test_two_runs_in_one_folder_and_a_folder_without_a_plan(run, project, tmp_path):
    assert "there is no plan in" in run("run", project).output
    assert "there is no plan in" in run("status", tmp_path).output
    with lock_folder(project):
        result = run("run", project)
    assert result.exit_code == 1
    assert "is open in a window or another command" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give one of --prompts, --template and --images"),
        (("--template", "a {thing}"), "there is no such list"),
        (("--template", "a {class}", "--list", "x"), "--list is 'x'"),
        (("--template", "a {class}", "--filter", "sharp=3"), "--filter is 'sharp=3'"),
        (("--template", "a {class}", "--filter", "area=5"), "area=5:95"),
        (("--template", "a {class}", "--filter", "area=5:200"), "percentiles of 0 to"),
        (("--template", "a {class}", "--filter", "area=95:5"), "the smaller first"),
        (("--template", "a {class}", "--quota", 0, "--dry-run"), "nothing to make"),
        (("--template", "a {class}", "--quota", "cat"), "--quota is 'cat'"),
        (("--template", "a {class}", "--quota", "cow=3"), "the quota of 'cow'"),
        (("--template", "a {class}", "--density", "cat=3"), "--density is 'cat'"),
        (("--template", "a {class}", "--agreement", "x"), "--agreement is 'x'"),
        (("--template", "a {class}", "--height", "65"), "height is 65"),
        (("--prompts", "none.txt"), "none.txt"),
    ],
)
def test_mistakes_are_said_in_a_line(run, project, tmp_path, options, said):
    result = run("plan", project, "--out", tmp_path / "night", *options)
    assert result.exit_code == 1
    assert said in result.output
    assert not (tmp_path / "night").exists()


def test_times_are_said_as_people_do():
    assert duration(0.2) == "0 s"
    assert duration(75) == "1 min 15 s"
    assert duration(3 * 86400 + 7205) == "3 d 2 h"
    assert pace(120, 0.5) == "30.0 a minute, 4 min left"
