"""The format "ome-zarr": a store for each picture, with its labels in it.

NAME.ome.zarr/                  the picture, red, green and blue
NAME.ome.zarr/labels/classes    class ids
NAME.ome.zarr/labels/objects    where objects are told apart
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.datasets.exporters.indexed import save_splits
from napari_ovam.datasets.exporters.indices import ids_dtype
from napari_ovam.images.ome_zarr import Axis
from napari_ovam.images.ome_zarr_write import About, Frame, list_labels, write_pyramid
from napari_ovam.images.zarr_stores import zarr_library

from .meaning import describe_classes, describe_objects

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam.datasets.exporters.dataset import ExportItem, LabelClass

CLASSES, OBJECTS = "classes", "objects"
"""The names of the label images."""

_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


class OmeZarrWriter:
    """Writes the formats "ome-zarr" and "ome-zarr-0.4"."""

    def __init__(
        self, folder: Path, classes: Sequence[LabelClass], version: str = "0.5"
    ) -> None:
        zarr_library()  # said before anything is written
        self.folder, self.classes, self.version = folder, classes, version
        self.splits: dict[str, list[str]] = {}

    def add(self, item: ExportItem) -> None:
        """Write the store of one picture; each array is read back and compared."""
        store = self.folder / f"{item.name}.ome.zarr"
        picture = np.moveaxis(item.image, -1, 0)
        flat = _frame(item, (Axis("c", "channel"),), picture.shape)
        about = About(item.name, {"omero": _omero()})
        write_pyramid(store, picture, flat, about, self.version)
        label_frame = _frame(item, (), item.labels.shape)
        ids = item.labels.astype(ids_dtype(self.classes))
        kinds: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
            CLASSES: (ids, describe_classes(self.classes, self.version))
        }
        if item.instances is not None:
            objects = item.instances.astype(np.uint32)
            meaning = describe_objects(ids, objects, self.classes, self.version)
            if meaning is not None:
                kinds[OBJECTS] = objects, meaning
        if item.split:
            self.splits.setdefault(item.split, []).append(item.name)
        list_labels(store / "labels", list(kinds), self.version)
        for name, (pixels, meaning) in kinds.items():
            write_pyramid(
                store / "labels" / name,
                pixels,
                label_frame,
                About(name, {"image-label": meaning}),
                self.version,
            )

    def finish(self) -> None:
        """Write the names of each split; else each store says all of itself."""
        save_splits(self.folder, self.splits)


def _frame(item: ExportItem, before: Sequence[Axis], shape: Sequence[int]) -> Frame:
    """Return where a picture lies in the world, where its provenance says so."""
    said = (item.provenance or {}).get("placement")
    said = said if isinstance(said, Mapping) else {}
    scale, shift = _pair(said.get("scale"), 1.0), _pair(said.get("translate"), 0.0)
    if 0 in scale:
        scale = (1.0, 1.0)
    units = said.get("units")
    units = units if isinstance(units, list) and len(units) == 2 else ["", ""]
    rows, columns = ("" if unit == "pixel" else str(unit) for unit in units)
    more = len(before)
    return Frame.of(
        (*before, Axis("y", "space", rows), Axis("x", "space", columns)),
        shape,
        (*(1.0 for _ in range(more)), *scale),
        (*(0.0 for _ in range(more)), *shift),
    )


def _pair(values: Any, default: float) -> tuple[float, float]:
    """Return two numbers that a provenance says; anybody may have written it."""
    try:
        first, second = (float(value) for value in values)
    except (TypeError, ValueError):
        return default, default
    finite = np.isfinite([first, second]).all()
    return (first, second) if finite else (default, default)


def _omero() -> dict[str, Any]:
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    return {
        "channels": [
            {"label": name, "color": color, "active": True, "window": window}
            for name, color in _RGB
        ]
    }
