"""How maps are seen in the window: as `overlay` lays them, with lines that follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_ovam import overlay

TIMEOUT = 60_000


@pytest.fixture
def mapped(panel: Any) -> Any:
    panel.press("generate_button")
    panel.press("map_button")
    wait_for_lines(panel)
    return panel


def cover(panel: Any) -> Any:
    return panel.layer("cover")


def wait_for_lines(panel: Any, before: np.ndarray | None = None) -> None:
    """Wait until the lines are drawn, and other ones than `before`."""

    def drawn() -> bool:
        layer = cover(panel)
        if layer is None or not layer.visible:
            return False
        return before is None or not np.array_equal(layer.data, before)

    panel.bot.waitUntil(drawn, timeout=TIMEOUT)
    panel.wait()
    panel.bot.wait(200)


def on_canvas(panel: Any, picture: np.ndarray) -> np.ndarray:
    """Return what the window shows in the middle of each pixel of a picture."""
    viewer = panel.viewer
    height, width = picture.shape[:2]
    viewer.scene.camera.center = (0, (height - 1) / 2, (width - 1) / 2)
    viewer.scene.camera.zoom = 4
    panel.bot.wait(200)
    shown = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    rows = shown.shape[0] / 2 + (np.arange(height) - (height - 1) / 2) * 4
    columns = shown.shape[1] / 2 + (np.arange(width) - (width - 1) / 2) * 4
    return shown[np.ix_(rows.astype(int), columns.astype(int))]


def test_the_window_shows_what_overlay_makes(mapped: Any) -> None:
    session = mapped.session
    sample = session.current
    colors = {entry.id: entry.color for entry in session.classes}
    expected = overlay(sample.image, sample.found, colors, maps=sample.maps)
    assert mapped.viewer.layers.selection.active is not None
    shown = on_canvas(mapped, expected)
    wrong = np.abs(shown.astype(int) - expected).max(-1)
    assert np.median(wrong) <= 2
    assert (wrong > 12).mean() < 0.02


def test_lines_follow_a_threshold_that_is_dragged(mapped: Any) -> None:
    cat = mapped.number("cat")
    layer, before = cover(mapped), cover(mapped).data.copy()
    slider = mapped.find(f"threshold_{cat}")
    for value in range(50, 91, 4):
        slider.setValue(value)
        QApplication.processEvents()
    wait_for_lines(mapped, before)
    assert cover(mapped) is layer  # which napari would take long to make anew
    region = mapped.session.current.found == cat
    inside = (layer.data == 255).all(-1) & region
    assert not region.any() or inside.any()
    assert mapped.session.current.edits is not None  # labels follow as well


def test_labels_give_way_to_maps_and_come_back(mapped: Any) -> None:
    assert not mapped.labels().visible
    cat, hat = mapped.number("cat"), mapped.number("hat")
    both = cover(mapped).data.copy()

    mapped.layer("map", hat).visible = False  # the eye in napari's list

    wait_for_lines(mapped, both)
    assert not mapped.find(f"show_map_{hat}").isChecked()
    assert mapped.find(f"show_map_{cat}").isChecked()
    mapped.find(f"show_map_{cat}").click()
    mapped.bot.waitUntil(lambda: mapped.labels().visible, timeout=TIMEOUT)
    assert not cover(mapped).visible

    mapped.session.do("toggle_maps")
    mapped.bot.waitUntil(lambda: not mapped.labels().visible, timeout=TIMEOUT)
    mapped.labels().visible = True  # a person wants both
    mapped.find(f"threshold_{cat}").setValue(80)
    mapped.wait()
    mapped.bot.wait(300)
    assert mapped.labels().visible


def test_the_controls_of_napari_work_on_a_map(mapped: Any) -> None:
    layer = mapped.layer("map", mapped.number("cat"))
    mapped.layer("map", mapped.number("hat")).visible = False
    cover(mapped).visible = False
    mapped.bot.wait(300)
    cover(mapped).visible = False
    image = mapped.session.current.image

    def seen() -> np.ndarray:
        return on_canvas(mapped, image).astype(int)

    plain = seen()
    layer.opacity = 0
    assert np.abs(seen() - image).max() <= 2
    layer.opacity = 1
    layer.contrast_limits = (0.9, 1.0)
    assert (np.abs(seen() - image).max(-1) <= 2).mean() > 0.5
    layer.contrast_limits = (0.0, 1.0)
    layer.gamma = 2
    assert np.abs(seen() - plain).max() > 10
    layer.gamma = 1
    layer.colormap = "gray"
    assert np.abs(np.diff(seen(), axis=-1)).max() <= 2
