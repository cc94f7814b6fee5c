"""The core knows neither Qt nor napari; the manifest's links and targets hold."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import napari_ovam

ROOT = Path(__file__).parents[1]
FOLDER = Path(napari_ovam.__file__).parent
GUI = ("PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui", "napari", "qtpy", "superqt")
CORE = sorted(
    ".".join(
        ("napari_ovam", *path.relative_to(FOLDER).with_suffix("").parts)
    ).removesuffix(".__init__")
    for path in FOLDER.rglob("*.py")
    if "_qt" not in path.relative_to(FOLDER).parts and path.name != "__main__.py"
)


def loaded_after(code: str) -> set[str]:
    """The top-level names of all modules that a fresh interpreter has loaded."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_core_modules_import_neither_qt_nor_napari():
    assert len(CORE) > 10
    code = "import importlib\n" + "\n".join(
        f"importlib.import_module({module!r})" for module in CORE
    )
    loaded = loaded_after(code)
    assert "torch" in loaded  # the check sees what is imported
    assert loaded.isdisjoint(GUI)


def test_importing_the_package_loads_no_torch():
    heavy = {"torch", "diffusers", "transformers", "numpy", "skimage", "PIL", *GUI}
    assert loaded_after("import napari_ovam").isdisjoint(heavy)


def test_importing_the_command_line_loads_no_torch():
    loaded = loaded_after("import napari_ovam.cli")
    assert loaded.isdisjoint({"torch", "diffusers", "transformers", *GUI})


def test_exporting_needs_no_torch():
    assert loaded_after("import napari_ovam.datasets.exporters").isdisjoint(
        {"torch", *GUI}
    )


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="no checkout")
def test_the_manifest_of_a_checkout_is_the_one_that_is_installed():
    link, real = ROOT / "napari.yaml", ROOT / "src" / "napari_ovam" / "napari.yaml"
    if link.is_symlink():
        assert link.samefile(real)
    else:  # git without symlinks writes the target's path into a plain file
        assert ROOT / link.read_text("utf-8").strip() == real
    assert real.read_bytes() == (FOLDER / "napari.yaml").read_bytes()


def commands() -> list[dict[str, str]]:
    text = (FOLDER / "napari.yaml").read_text("utf-8")
    return yaml.safe_load(text)["contributions"]["commands"] or []


def test_the_manifest_names_the_distribution_and_is_valid():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(FOLDER / "napari.yaml")
    assert manifest.name == "napari-ovam"
    for command in commands():
        assert command["id"].startswith("napari-ovam.")
        assert command["title"]


def test_every_command_of_the_manifest_has_its_module():
    for command in commands():
        module, _, _ = command["python_name"].partition(":")
        path = FOLDER.parent.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or path.is_dir(), command


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring aside."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


def test_modules_functions_and_folders_stay_small():
    long = []
    for path in FOLDER.rglob("*.py"):
        text = path.read_text("utf-8")
        if text.count("\n") > 400:
            long.append(f"{path.relative_to(FOLDER)}: {text.count(chr(10))} lines")
        long += [
            f"{path.relative_to(FOLDER)}: {node.name} has {length(node)} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and length(node) > 60
        ]
    for folder in {path.parent for path in FOLDER.rglob("*.py")}:
        modules = [p for p in folder.glob("*.py") if p.name != "__init__.py"]
        if len(modules) > 16:
            long.append(f"{folder.relative_to(FOLDER)} has {len(modules)} modules")
    assert not long


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="no checkout")
def test_the_files_that_the_architecture_names_exist():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", page)
    assert len(named) > 20
    assert [name for name in named if not (FOLDER / name).is_file()] == []


def test_what_the_panel_asks_of_returning_reads_no_files():
    loaded = loaded_after("from napari_ovam.datasets.returning import AS_IMPORTED")
    assert loaded.isdisjoint({"numpy", "PIL", "tifffile"})
