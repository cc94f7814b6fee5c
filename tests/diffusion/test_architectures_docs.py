"""Every test that docs/models.md names exists, and every architecture has its row."""

from __future__ import annotations

import re
from pathlib import Path

import diffusers
import pytest

from napari_ovam.diffusion.architectures import ARCHITECTURES
from napari_ovam.hub.families import FAMILIES, ModelError, find_family
from napari_ovam.hub.refused import refused_by_reason

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


# What is named as a pipeline and is none.
_NONE = re.compile(r".*(Output|Blocks|Config)|AutoPipeline.*|DiffusionPipeline")


def pipelines() -> list[str]:
    names = {name for name in diffusers.__all__ if "Pipeline" in name}
    return sorted(name for name in names if not _NONE.fullmatch(name))


@pytest.mark.skipif(not PAGE.is_file(), reason="no checkout")
def test_every_pipeline_of_diffusers_is_listed():
    text = PAGE.read_text("utf-8")
    supported = {name for family in FAMILIES for name in family.pipelines}
    assert supported <= set(pipelines())
    lists = {
        family.name: list(family.pipelines) for family in FAMILIES
    } | refused_by_reason([name for name in pipelines() if name not in supported])
    assert "" not in lists, f"say why in napari_ovam.hub.refused: {lists['']}"
    for title, names in lists.items():
        row = f"| {title} | {', '.join(f'`{name}`' for name in names)} |"
        assert row in text, f"docs/models.md lacks the row\n{row}"


def test_each_is_supported_or_refused_with_its_reason():
    for name in pipelines():
        if name == "ModularPipeline":
            continue
        try:
            assert name in find_family(name).pipelines
        except ModelError as error:
            assert "not supported (" in str(error), name  # noqa: PT017
