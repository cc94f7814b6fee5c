"""What the panel loads, and that what the manifest promises is there."""

from __future__ import annotations

import importlib

from qtpy import API_NAME
from test_architecture import commands, loaded_after


def test_the_panel_loads_one_qt_and_nothing_that_only_its_jobs_need():
    loaded = loaded_after("import napari, napari_ovam._qt.annotator, qtpy.QtWidgets")
    assert loaded & {"PyQt6", "PySide6"} == {API_NAME}
    heavy = {"torch", "diffusers", "skimage", "scipy", "pandas", "matplotlib"}
    assert loaded.isdisjoint(heavy - loaded_after("import napari.layers"))


def test_every_command_of_the_manifest_resolves():
    for command in commands():
        module, _, name = command["python_name"].partition(":")
        assert callable(getattr(importlib.import_module(module), name)), command
