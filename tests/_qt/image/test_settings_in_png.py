"""A PNG of ours says how it was made: loading it makes the same trace again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ovam.images.png import write_png

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def made(panel: Any, tmp_path: Path) -> Path:
    """Generate an image, and return it as a file with its settings."""
    panel.find("seed").setValue(5)
    panel.press("generate_button")
    sample = panel.session.current
    path = tmp_path / "mine.png"
    write_png(path, sample.image, {"model": "m", **asdict(sample.settings)})
    return path


def test_the_same_pixels_bring_the_trace_of_their_generation(
    panel: Any, made: Path
) -> None:
    first = panel.session.current
    panel.find("seed").setValue(9)
    panel.find("prompt").setText("something else")
    panel.widget.sections["Image"].load_path(made)
    panel.wait()
    again = panel.session.current
    assert again is not first
    assert again.name == "mine"
    assert again.settings == first.settings
    for old, new in zip(first.trace.layers, again.trace.layers, strict=True):
        assert old.queries.equal(new.queries)
    assert panel.find("seed").value() == 5
    assert panel.find("prompt").text() == "a cat and a hat on the grass"
    assert panel.find("steps").value() == first.settings.steps
    assert not panel.find("trace_anyway_button").isVisible()


def test_other_pixels_are_said_and_can_be_traced_instead(
    panel: Any, made: Path
) -> None:
    sample = panel.session.current
    image = sample.image.copy()
    image[:4] = 255 - image[:4]
    write_png(made, image, {"model": "m", **asdict(sample.settings)})

    panel.widget.sections["Image"].load_path(made)
    panel.wait()
    assert len(panel.session.samples) == 1
    assert "other pixels" in panel.status
    panel.press("trace_anyway_button")

    loaded = panel.session.current
    np.testing.assert_array_equal(loaded.image, image)
    assert loaded.settings is None  # it was not made by them
    assert loaded.trace is not None
