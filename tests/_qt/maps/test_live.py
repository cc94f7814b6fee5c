"""Maps follow typing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

TIMEOUT = 60_000


@pytest.fixture
def mapped(panel: Any) -> Any:
    panel.session.at_once = False  # hat is no class before it is typed
    panel.press("generate_button")
    panel.find("phrases").setText("cat")
    panel.press("map_button")
    return panel


def typed(panel: Any) -> Any:
    """The layer of what is typed, if there is one."""
    return panel.layer("typed", 1)


def wait_for(panel: Any, phrase: str) -> np.ndarray:
    name = f"typing: {phrase}"
    panel.bot.waitUntil(
        lambda: typed(panel) is not None and typed(panel).name == name, timeout=TIMEOUT
    )
    return typed(panel).data


def type_keys(panel: Any, text: str) -> None:
    field = panel.find("phrases")
    field.moveCursor(field.textCursor().MoveOperation.End)
    panel.bot.keyClicks(field, text, delay=20)


def test_what_is_typed_is_mapped_before_it_is_a_class(mapped: Any) -> None:
    type_keys(mapped, ", hat")
    values = wait_for(mapped, "hat")
    assert [entry.name for entry in mapped.session.classes] == ["cat"]

    mapped.press("map_button")

    assert [entry.name for entry in mapped.session.classes] == ["cat", "hat"]
    mapped.bot.waitUntil(lambda: typed(mapped) is None, timeout=TIMEOUT)
    np.testing.assert_allclose(
        mapped.layer("map", mapped.number("hat")).data, values, atol=1e-3
    )


def test_the_newest_text_wins(mapped: Any) -> None:
    type_keys(mapped, ", h")
    wait_for(mapped, "h")
    layer = typed(mapped)
    type_keys(mapped, "at")
    wait_for(mapped, "hat")
    assert typed(mapped) is layer  # which napari would take long to make anew
    mapped.find("phrases").setText("cat")
    mapped.bot.waitUntil(lambda: typed(mapped) is None, timeout=TIMEOUT)


def test_it_waits_while_a_job_runs(mapped: Any) -> None:
    mapped.click("generate_button")
    type_keys(mapped, ", hat")
    mapped.wait()
    wait_for(mapped, "hat")  # on the new image, which is shown now
    assert not [la for la in mapped.viewer.layers if la.name == "typing: h"]


def test_a_phrase_that_cannot_be_mapped_is_no_error(mapped: Any) -> None:
    type_keys(mapped, ", hat")
    wait_for(mapped, "hat")
    before = mapped.status
    mapped.find("phrases").setText("cat, " + "hat " * 500)
    mapped.bot.waitUntil(lambda: typed(mapped) is None, timeout=TIMEOUT)
    assert mapped.status == before
    mapped.find("phrases").setText("cat, hat")
    wait_for(mapped, "hat")


def test_it_can_be_switched_off(mapped: Any) -> None:
    type_keys(mapped, ", hat")
    wait_for(mapped, "hat")
    mapped.session.live.set_on(False)
    assert typed(mapped) is None
    type_keys(mapped, "s")
    mapped.bot.wait(600)
    assert typed(mapped) is None
