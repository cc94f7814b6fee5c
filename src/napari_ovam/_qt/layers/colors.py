"""Colours and names of classes as napari shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_ovam._qt.session.state import UNSURE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.datasets.classes import ClassTable
    from napari_ovam.datasets.project_class import ProjectClass

_UNSURE_COLOUR = (0.62, 0.62, 0.62, 1.0)
_UNKNOWN_COLOUR = (1.0, 0.0, 1.0, 1.0)


def map_limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return what is shown black and bright; a map is seldom near 0 anywhere."""
    low = float(values.min())
    return (low, 1.0) if low < 1 else (0.0, 1.0)


def map_colormap(entry: ProjectClass) -> Colormap:
    """Return black to the class's colour."""
    colour = [c / 255 for c in entry.color]
    return Colormap([[0, 0, 0, 1], [*colour, 1]], name=f"ovam {entry.id}")


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
