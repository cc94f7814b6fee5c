"""Sample data: generated scenes with their traces, ready for phrases."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from .readers import trace_layer

if TYPE_CHECKING:
    from .readers import LayerTuple


def cat_and_hat() -> list[LayerTuple]:
    """Open "a cat and a hat on the grass"."""
    return [_scene("cat-and-hat", "a cat and a hat on the grass")]


def car() -> list[LayerTuple]:
    """Open "a car on the snow"."""
    return [_scene("car", "a car on the snow")]


def _scene(file: str, name: str) -> LayerTuple:
    folder = files("napari_ovam") / "samples"
    # The package is a folder on disk: these paths outlast the block.
    with as_file(folder / f"{file}.safetensors") as trace:
        return trace_layer(trace, trace.with_suffix(".png"), name)
