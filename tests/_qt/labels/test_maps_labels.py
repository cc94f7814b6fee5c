"""Thresholds, and where labels are uncertain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_ovam._qt.session.tasks import Labeller, LabelRequest
from napari_ovam.segmentation.class_maps import class_labels

TIMEOUT = 60_000


@pytest.fixture
def labelled(panel: Any) -> Any:
    panel.press("generate_button")
    panel.find("phrases").setText("cat, hat")
    panel.press("map_button")
    panel.press("labels_button")
    return panel


def test_thresholds_are_a_half_until_a_slider_moves(labelled: Any) -> None:
    cat = labelled.number("cat")
    slider, value = (
        labelled.find(f"{kind}_{cat}") for kind in ("threshold", "automatic")
    )
    assert value.text() == "auto"
    assert slider.value() == 50

    slider.setValue(97)
    labelled.wait()
    assert value.text() == "0.97"
    assert labelled.session.classes[cat].threshold == 0.97
    manual = labelled.labels().data.copy()

    labelled.press(f"automatic_{cat}")
    assert value.text() == "auto"
    assert labelled.session.classes[cat].threshold is None
    assert not np.array_equal(labelled.labels().data, manual)
    assert slider.value() == 50


def test_labels_after_a_slider_was_dragged_are_those_of_its_last_place(
    labelled: Any,
) -> None:
    cat, hat = labelled.number("cat"), labelled.number("hat")
    sample = labelled.session.current
    changed = labelled.paint(labelled.other)
    painted = sample.edits.painted  # also where the label stayed as it was
    assert painted[changed].all()
    kept = labelled.labels().data[painted].copy()
    slider = labelled.find(f"threshold_{cat}")
    for value in range(40, 81, 4):
        slider.setValue(value)
        labelled.bot.wait(10)
    labelled.wait()

    expected = class_labels(sample.maps, {cat: 0.8, hat: None}, sample.image)
    data = labelled.labels().data
    np.testing.assert_array_equal(data[~painted], expected[~painted])
    np.testing.assert_array_equal(data[painted], kept)


def test_a_labeller_follows_thresholds_maps_and_absent_classes() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    maps = {i: rng.random((40, 50), np.float32) for i in (1, 2)}
    labeller = Labeller()
    changes: list[tuple[dict[int, float | None], set[int]]] = [
        ({1: None, 2: None}, set()),
        ({1: 0.3, 2: None}, set()),
        ({1: 0.9, 2: 0.5}, set()),
        ({1: 0.9, 2: 0.5}, {1}),
        ({2: 0.2}, set()),
        ({}, set()),
    ]
    for thresholds, absent in changes:
        request = LabelRequest(thresholds, frozenset(absent))
        labels, likely = labeller.labels(maps, request, image)
        left = {i: values for i, values in maps.items() if i not in absent}
        expected = class_labels(left, thresholds, image)
        np.testing.assert_array_equal(labels, expected)
        assert set(likely) == set(left) & set(thresholds)
    maps[2] = 1 - maps[2]  # as of a token that took the phrase's place
    labels, _ = labeller.labels(maps, LabelRequest({2: 0.2}), image)
    np.testing.assert_array_equal(labels, class_labels(maps, {2: 0.2}, image))


def test_uncertainty_is_a_layer_that_follows_the_labels(labelled: Any) -> None:
    labelled.find("uncertainty").setChecked(True)
    labelled.bot.waitUntil(
        lambda: labelled.layer("uncertainty", 1) is not None, timeout=TIMEOUT
    )
    layer = labelled.layer("uncertainty", 1)
    before = layer.data.copy()
    assert before.shape == labelled.labels().data.shape
    assert 0 <= before.min() < before.max() <= 1
    assert labelled.viewer.layers.selection.active is labelled.labels()

    labelled.find(f"threshold_{labelled.number('cat')}").setValue(90)
    labelled.bot.waitUntil(
        lambda: not np.array_equal(layer.data, before), timeout=TIMEOUT
    )
    labelled.find("uncertainty").setChecked(False)
    assert labelled.layer("uncertainty", 1) is None


def test_one_uncertain_place_after_the_other(labelled: Any) -> None:
    centres = []
    for _ in range(50):
        said = labelled.status  # the number of places left tells one from the next
        labelled.click("uncertain_button")
        labelled.bot.waitUntil(
            lambda said=said: (
                labelled.status != said and "uncertain place" in labelled.status
            ),
            timeout=TIMEOUT,
        )
        if labelled.status.startswith("No uncertain"):
            break
        centres.append(tuple(labelled.viewer.scene.camera.center))
        if "the last one" in labelled.status:
            break
    assert centres
    assert len(set(centres)) == len(centres)


def test_a_place_is_found_though_the_labels_change_meanwhile(labelled: Any) -> None:
    labelled.find("uncertainty").setChecked(True)  # looks for them, too
    labelled.click("uncertain_button")
    labelled.find(f"threshold_{labelled.number('cat')}").setValue(60)
    labelled.bot.waitUntil(
        lambda: "uncertain place" in labelled.status, timeout=TIMEOUT
    )


def test_uncertainty_before_there_are_labels(panel: Any) -> None:
    panel.click("uncertain_button")
    assert "press Labels from maps first" in panel.status


def test_what_is_said_to_be_found_is_what_the_labels_hold(labelled: Any) -> None:
    """Also after other phrases were mapped, and while a threshold is moved."""
    labelled.find("phrases").setText("boat")
    labelled.press("map_button")
    held = set(np.unique(labelled.labels().data)) - {0}
    assert held <= {labelled.number("boat")}
    assert ("Found: boat" if held else "None of the phrases") in labelled.status
    boat = labelled.number("boat")
    labelled.find(f"threshold_{boat}").setValue(100)
    labelled.wait()
    held = set(np.unique(labelled.labels().data)) - {0}
    assert ("Found: boat" if held else "None of the phrases") in labelled.status
