"""What the manifest promises napari, beyond what tests/test_architecture.py holds."""

from __future__ import annotations

from pathlib import Path

import pytest

import napari_ovam

pytest.importorskip("npe2")

from npe2 import PluginManifest

FOLDER = Path(napari_ovam.__file__).parent


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(FOLDER / "napari.yaml")


def test_the_panel_and_its_docks_are_offered(manifest: PluginManifest):
    assert [w.display_name for w in manifest.contributions.widgets] == [
        "OVAM annotator",
        "OVAM project",
        "OVAM token library",
    ]


def test_what_is_contributed_names_commands_that_exist(manifest: PluginManifest):
    made = manifest.contributions
    commands = {command.id for command in made.commands}
    parts = [*made.widgets, *made.readers, *made.writers, *made.sample_data]
    used = {part.command for part in parts}
    used |= {item.command for items in made.menus.values() for item in items}
    assert used == commands  # none is missing, and none is left over


def test_the_icon_and_the_sample_data_are_shipped(manifest: PluginManifest):
    _, _, icon = str(manifest.icon).partition(":")
    assert (FOLDER / icon).is_file()
    traces = list((FOLDER / "samples").glob("*.safetensors"))
    assert len(traces) == len(manifest.contributions.sample_data) >= 2
    assert all(trace.with_suffix(".png").is_file() for trace in traces)
    assert sum(p.stat().st_size for p in (FOLDER / "samples").iterdir()) < 2_000_000


def test_every_preference_has_a_title_and_a_default(manifest: PluginManifest):
    groups = manifest.contributions.configurations
    assert set(groups) == {"annotator", "keys"}
    assert set(groups["annotator"].properties) == {
        "model",
        "device",
        "steps",
        "guidance_scale",
        "folder",
        "at_once",
        "learn",
        "largest_picture",
        "stack_memory",
    }
    for group in groups.values():
        for entry in group.properties.values():
            assert entry.title
            assert entry.default is not None
