"""The example notebooks run from an empty namespace, as they stand."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def shown(source: str, names: dict[str, Any]) -> object:
    """Run a cell as a kernel does: return the value that it would show."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)  # noqa: S102 (our own notebook)
    if last is None:
        return None
    value = compile(ast.Expression(last.value), "<cell>", "eval")
    return eval(value, names)  # noqa: S307


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, loaded_once: None) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    values = [shown("".join(cell["source"]), names) for cell in code_cells(path)]
    pictures = [value for value in values if isinstance(value, Image.Image)]
    assert pictures, f"{path.name} shows no picture"


def test_notebooks_are_stored_without_outputs() -> None:
    assert len(NOTEBOOKS) > 1
    for path in NOTEBOOKS:
        assert not any(cell["outputs"] for cell in code_cells(path)), path.name
