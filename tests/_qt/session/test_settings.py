"""napari's Preferences are what the sections start with."""

from __future__ import annotations

from typing import Any

import pytest
from npe2 import PluginManifest
from qtpy.QtWidgets import QWidget


@pytest.fixture
def chosen(plugin_settings: Any, npe2pm: Any) -> Any:
    """Return the plugin's page of the Preferences, in a folder of the test's own."""
    from napari.settings import get_plugin_settings

    npe2pm.register(PluginManifest.from_distribution("napari-ovam"))
    return get_plugin_settings("napari-ovam").annotator


def test_the_sections_start_with_the_preferences(
    chosen: Any, make_napari_viewer: Any, qtbot: Any
) -> None:
    from napari_ovam._qt.annotator import AnnotatorWidget

    chosen.model = "owner/name"
    chosen.device = "cpu"
    chosen.steps = 7
    chosen.guidance_scale = 2.5
    chosen.folder = "/somewhere/else"
    widget = AnnotatorWidget(make_napari_viewer())
    qtbot.addWidget(widget)

    def find(name: str) -> Any:
        return widget.findChild(QWidget, name)

    assert find("model").currentText() == "owner/name"
    assert find("device").currentText() == "cpu"
    assert find("steps").value() == 7
    assert find("guidance").value() == 2.5
    assert find("folder").text() == "/somewhere/else"
    assert widget.session.choice.model == "owner/name"
    widget.session.close()


def test_an_emptied_model_is_the_embedded_one(chosen: Any) -> None:
    from napari_ovam._qt.session.settings import preferences

    chosen.model = "  "
    assert preferences().model == "tiny"
