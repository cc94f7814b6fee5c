"""What the guide tells to type in a shell works, in its order."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_ovam.cli import app

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide.md"
# What would take long: each command with other words.
SHORTER = {
    "generate": ("--count", "2", "--steps", "4"),
    "optimize": ("--iterations", "5"),
}


@pytest.mark.skipif(not GUIDE.is_file(), reason="no checkout")
def test_the_shell_commands_of_the_guide(
    loaded_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 10
    monkeypatch.chdir(tmp_path)
    for line in lines:
        command, _, accepted = line.partition(" || ")
        program, *words = shlex.split(command)
        if program == "napari-ovam":
            done = CliRunner().invoke(app, [*words, *SHORTER.get(words[0], ())])
            assert done.exit_code == 0 or accepted, (line, done.output)
        else:
            script = str(ROOT / words[0])
            monkeypatch.setattr("sys.argv", [script, *words[1:], "--steps", "2"])
            runpy.run_path(script, run_name="__main__")
    assert (tmp_path / "predictions.png").is_file()


@pytest.mark.skipif(not GUIDE.is_file(), reason="no checkout")
def test_pictures_and_pages_of_the_guide_exist() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", GUIDE.read_text(encoding="utf-8"))
    assert len(targets) > 10
    for target in targets:
        assert (GUIDE.parent / target).exists(), target
