"""Thresholds, and where labels are doubtful."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_ovam.labels import automatic_threshold

TIMEOUT = 60_000


@pytest.fixture
def labelled(panel: Any) -> Any:
    panel.press("generate_button")
    panel.find("phrases").setText("cat, hat")
    panel.press("map_button")
    panel.press("labels_button")
    return panel


def test_thresholds_are_each_maps_own_until_a_slider_moves(labelled: Any) -> None:
    cat = labelled.number("cat")
    sample = labelled.session.current
    slider, value = (
        labelled.find(f"{kind}_{cat}") for kind in ("threshold", "automatic")
    )
    assert value.text() == "auto"
    level = automatic_threshold(sample.refined[cat][2])
    assert slider.value() == pytest.approx(100 * level, abs=1)

    slider.setValue(97)
    labelled.wait()
    assert value.text() == "0.97"
    assert labelled.session.classes[cat].threshold == 0.97
    manual = labelled.labels().data.copy()

    labelled.press(f"automatic_{cat}")
    assert value.text() == "auto"
    assert labelled.session.classes[cat].threshold is None
    assert not np.array_equal(labelled.labels().data, manual)
    assert slider.value() == pytest.approx(100 * level, abs=1)


def test_doubt_is_a_layer_that_follows_the_labels(labelled: Any) -> None:
    labelled.find("doubt").setChecked(True)
    labelled.bot.waitUntil(
        lambda: labelled.layer("doubt", 1) is not None, timeout=TIMEOUT
    )
    layer = labelled.layer("doubt", 1)
    before = layer.data.copy()
    assert before.shape == labelled.labels().data.shape
    assert 0 <= before.min() < before.max() <= 1
    assert labelled.viewer.layers.selection.active is labelled.labels()

    labelled.find(f"threshold_{labelled.number('cat')}").setValue(90)
    labelled.bot.waitUntil(
        lambda: not np.array_equal(layer.data, before), timeout=TIMEOUT
    )
    labelled.find("doubt").setChecked(False)
    assert labelled.layer("doubt", 1) is None


def test_one_doubtful_place_after_the_other(labelled: Any) -> None:
    centres = []
    for _ in range(50):
        labelled.click("doubt_button")
        labelled.bot.waitUntil(lambda: "doubtful place" in labelled.status)
        labelled.wait()
        labelled.bot.wait(50)
        if labelled.status.startswith("No doubtful"):
            break
        centres.append(tuple(labelled.viewer.scene.camera.center))
        if "the last one" in labelled.status:
            break
    assert centres
    assert len(set(centres)) == len(centres)


def test_doubt_before_there_are_labels(panel: Any) -> None:
    panel.click("doubt_button")
    assert "press Labels from maps first" in panel.status
