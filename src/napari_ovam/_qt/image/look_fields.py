"""The fields of how the model looks at a loaded image."""

from __future__ import annotations

from typing import NamedTuple

from magicgui.widgets import CheckBox, SpinBox

_TILES = 16  # as in trace_image, which would import torch here


class LookFields(NamedTuple):
    """As the arguments of `trace_image`."""

    noise_level: SpinBox
    noise_seeds: SpinBox
    flip: CheckBox
    max_tiles: SpinBox


def look_fields() -> LookFields:
    """Make the fields."""
    noise_level = SpinBox(label="Noise", name="noise_level", min=0, max=999, value=100)
    noise_level.tooltip = "Time step of the noise, of 1000: 50 to 200 is usual"
    noise_seeds = SpinBox(label="Draws", name="noise_seeds", min=1, max=100, value=3)
    noise_seeds.tooltip = "Draws of noise that the maps are averaged over"
    flip = CheckBox(text="Mirrored as well", name="flip", value=False)
    flip.tooltip = "Twice the time, a little better maps"
    max_tiles = SpinBox(label="Tiles", name="max_tiles", min=1, max=1024, value=_TILES)
    max_tiles.tooltip = (
        "At most so many, where an image is larger than the model's own size; 1 "
        "looks at the whole only"
    )
    return LookFields(noise_level, noise_seeds, flip, max_tiles)
