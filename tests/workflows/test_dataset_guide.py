"""What docs/dataset.md tells to type on the way to reviewed pictures works."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_ovam.cli import app
from napari_ovam.project import Project

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "dataset.md"
QUICK = ("--steps", "2", "--height", "64", "--width", "64")
# What would take long: each command with other words.
SHORTER = {
    "generate": ("--count", "1", *QUICK),
    "plan": (
        *("--seeds", "1", "--quota", "3", *QUICK),
        *("--filter", "agreement=off,unsure=off"),
    ),
}


@pytest.mark.skipif(not PAGE.is_file(), reason="no checkout")
def test_from_an_empty_folder_to_a_trained_network(
    loaded_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition("## From an empty folder")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 12
    monkeypatch.chdir(tmp_path)
    for line in lines:
        command, _, accepted = line.partition(" || ")
        program, *words = shlex.split(command)
        if words[:2] == ["dataset", "export"]:  # a person has looked at them
            project = Project.open("night")
            assert len(project.samples) >= 3
            for sample in project.samples:
                project.change_sample(sample.name, status="accepted")
        if program == "napari-ovam":
            name = words[1] if words[0] == "dataset" else words[0]
            done = CliRunner().invoke(app, [*words, *SHORTER.get(name, ())])
            assert done.exit_code == 0 or accepted, (line, done.output)
        else:
            script = str(ROOT / words[0])
            monkeypatch.setattr("sys.argv", [script, *words[1:], "--steps", "2"])
            runpy.run_path(script, run_name="__main__")
    assert (tmp_path / "predictions.png").is_file()


@pytest.mark.skipif(not PAGE.is_file(), reason="no checkout")
def test_files_and_pages_that_it_names_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (PAGE.parent / target).exists(), target
    for name in re.findall(r"`((?:tests|benchmarks|examples)/[\w/]+\.py)", text):
        assert (ROOT / name).exists(), name
