"""Colours and names of classes as napari shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_ovam._qt.session.state import UNSURE
from napari_ovam.images.overlay import map_ramp

if TYPE_CHECKING:
    from napari_ovam.datasets.class_colors import Colour
    from napari_ovam.datasets.classes import ClassTable

_UNSURE_COLOUR = (0.62, 0.62, 0.62, 1.0)
_UNKNOWN_COLOUR = (1.0, 0.0, 1.0, 1.0)


def map_colormap(color: Colour) -> Colormap:
    """Return nothing to a colour, as `overlay` lays maps over a picture."""
    return Colormap(map_ramp(color), name="ovam {:02x}{:02x}{:02x}".format(*color))


def label_colormap(classes: ClassTable) -> DirectLabelColormap:
    """Return the classes' colours; magenta for ids without a class."""
    colours: dict[int | None, Any] = {
        0: (0, 0, 0, 0),
        UNSURE: _UNSURE_COLOUR,
        None: _UNKNOWN_COLOUR,
    }
    for entry in classes:
        colours[entry.id] = (*(c / 255 for c in entry.color), 1.0)
    return DirectLabelColormap(color_dict=colours)


def label_features(classes: ClassTable) -> dict[str, list[Any]]:
    """Return the table that shows names in napari's status bar."""
    rows = [(0, "background"), (UNSURE, "unsure"), *((e.id, e.name) for e in classes)]
    rows.sort()
    return {"index": [i for i, _ in rows], "name": [name for _, name in rows]}
