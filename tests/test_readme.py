"""What the README shows works as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_python_example_runs(
    loaded_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = next(
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        if "import napari_ovam" in block
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(README), "exec"), {})  # noqa: S102 (our own README)
    assert (tmp_path / "cat.safetensors").is_file()
    assert (tmp_path / "masks/indexed/labels/one.png").is_file()


def test_files_that_it_names_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
