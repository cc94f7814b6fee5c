"""Every test that docs/models.md names exists, and every architecture has its row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from napari_ovam.diffusion.architectures import ARCHITECTURES

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "models.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="no checkout")
def test_the_tests_that_the_table_names_exist():
    text = PAGE.read_text("utf-8")
    named = re.findall(r"`(test_\w+)?(?:::(test_\w+))?(?:\[\w+\])?`", text)
    module, checked = "", 0
    for file, function in named:
        module = file or module
        if module:
            (path,) = TESTS.rglob(f"{module}.py")
            source = path.read_text("utf-8")
            assert not function or f"def {function}(" in source, (module, function)
            checked += bool(function)
    assert checked > 20


@pytest.mark.skipif(not PAGE.is_file(), reason="no checkout")
def test_every_architecture_has_a_row():
    rows = [ln for ln in PAGE.read_text("utf-8").splitlines() if ln.startswith("| ")]
    for architecture in ARCHITECTURES:
        name = architecture.family.name
        first = name.partition(" and ")[0]
        assert any(row.startswith(f"| {first}") for row in rows), (
            architecture.family.name
        )
