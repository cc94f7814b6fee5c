"""From a prompt to labels at once: how many clicks it takes, and what is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 60_000


def names(panel: Any) -> list[str]:
    return [entry.name for entry in panel.session.classes.active]


def prompt(panel: Any, text: str) -> None:
    panel.find("prompt").setText(text)
    panel.bot.waitUntil(lambda: panel.session.phrases._prompt == text)


def test_one_click_from_the_start_to_labels(panel: Any) -> None:
    panel.bot.mouseClick(panel.find("generate_button"), Qt.MouseButton.LeftButton)
    panel.wait()

    assert names(panel) == ["cat", "hat"]
    sample = panel.session.current
    assert set(sample.maps) == {1, 2}
    assert {panel.layer("map", i).name for i in (1, 2)} == {"cat", "hat"}
    labels = panel.labels()
    assert labels.visible
    assert labels.data.any()
    assert panel.viewer.layers.selection.active is labels  # to be painted on
    assert sample.status == "proposed"
    assert "brush" in panel.status
    assert "Found: " in panel.status


def test_the_key_does_what_the_button_does(panel: Any) -> None:
    panel.session.do("generate")  # of Keys, of the menu, and of what Enter is to it
    panel.wait()
    assert panel.labels().data.any()
    panel.viewer.layers.selection.active = panel.labels()
    canvas = panel.viewer.window._qt_viewer.canvas.native
    panel.bot.keyClick(canvas, "g", Qt.KeyboardModifier.ShiftModifier)
    panel.wait()
    assert len(panel.session.samples) == 2
    assert panel.labels().data.any()


def test_phrases_follow_the_prompt_and_what_was_typed_stays(panel: Any) -> None:
    phrases = panel.find("phrases")
    assert phrases.text() == "cat, hat"
    prompt(panel, "a red car on the snow")
    assert phrases.text() == "car"
    phrases.setText("car, wheel")
    prompt(panel, "two foxes beside a boat")
    assert phrases.text() == "wheel, foxes, boat"
    phrases.setText("")
    prompt(panel, "a boat")
    assert phrases.text() == "boat"


def test_an_image_is_searched_for_what_its_own_prompt_names(panel: Any) -> None:
    panel.press("generate_button")
    first = panel.labels().data.copy()
    prompt(panel, "a car on the snow")
    panel.press("generate_button")
    assert names(panel) == ["cat", "hat", "car"]
    assert set(panel.session.current.maps) == {3}
    assert set(np.unique(panel.labels().data)) <= {0, 3}

    panel.click("previous_sample")
    panel.find("threshold_1").setValue(99)
    panel.find("threshold_1").setValue(50)
    panel.wait()
    np.testing.assert_array_equal(panel.labels(sample=0).data, first)


def test_a_loaded_image_gets_labels_as_well(panel: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    prompt(panel, "a photo of a dog with a ball")
    panel.widget.sections["Image"].load_path(path)
    panel.wait()
    assert names(panel) == ["dog", "ball"]
    assert set(panel.session.current.maps) == {1, 2}
    assert panel.labels() is not None
    assert panel.labels().visible


def test_it_can_be_switched_off(panel: Any) -> None:
    panel.click("at_once")
    panel.press("generate_button")
    assert not panel.session.classes.active
    assert panel.labels() is None
    assert "press Map" in panel.status
    panel.press("map_button")
    assert panel.labels() is None
    assert panel.layer("map", 1).visible
    panel.bot.waitUntil(lambda: panel.layer("cover") is not None, timeout=TIMEOUT)
    panel.press("labels_button")
    assert panel.labels().visible


@pytest.mark.parametrize("cancelled", [True, False])
def test_without_an_image_there_are_no_classes(
    panel: Any, tmp_path: Path, cancelled: bool
) -> None:
    model = panel.find("model").currentText()
    panel.find("steps").setValue(500)
    if not cancelled:
        panel.find("model").setCurrentText(str(tmp_path))  # where none is
    panel.click("generate_button")
    if cancelled:
        panel.bot.waitUntil(
            lambda: any(la.name == "preview" for la in panel.viewer.layers),
            timeout=TIMEOUT,
        )
        panel.click("cancel_button")
    panel.wait()
    assert not panel.session.samples
    assert not list(panel.session.classes)
    panel.find("steps").setValue(2)
    panel.find("model").setCurrentText(model)
    panel.press("generate_button")
    assert names(panel) == ["cat", "hat"]
