"""What the values of a label image mean: `image-label` of OME-Zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.ids import IGNORE
from napari_ovam.datasets.class_colors import default_color

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_ovam.datasets.exporters.dataset import LabelClass

_UNSURE = (158, 158, 158)
_OPAQUE = 255


def describe_classes(classes: Sequence[LabelClass], version: str) -> dict[str, Any]:
    """Return `image-label` of an image of class ids: colours, names, things."""
    values = [
        (entry.id, _color(entry), {"name": entry.name, "thing": entry.thing})
        for entry in classes
    ]
    values.append((IGNORE, _UNSURE, {"name": "unsure", "ignore": True}))
    return _image_label(sorted(values, key=lambda value: value[0]), version)


def describe_objects(
    labels: NDArray[Any],
    objects: NDArray[Any],
    classes: Sequence[LabelClass],
    version: str,
) -> dict[str, Any] | None:
    """Return `image-label` of an image of objects, each with its class; None of none.

    Parameters
    ----------
    labels, objects
        Class ids and the number of an object, of the same shape, as in `ExportItem`.
    classes, version
        As in `describe_classes`.
    """
    numbers, first = np.unique(objects, return_index=True)
    by_id = {entry.id: entry for entry in classes}
    owners = labels.ravel()[first].tolist()
    values = [
        (number, _color(entry), {"name": entry.name, "class": entry.id})
        for number, owner in zip(numbers.tolist(), owners, strict=True)
        if number and (entry := by_id.get(owner)) is not None
    ]
    return _image_label(values, version) if values else None


def _color(entry: LabelClass) -> tuple[int, int, int]:
    return entry.color or default_color(entry.id)


def _image_label(
    values: Iterable[tuple[int, tuple[int, int, int], dict[str, Any]]], version: str
) -> dict[str, Any]:
    values = list(values)
    return {
        "version": version,
        "colors": [
            {"label-value": value, "rgba": [*color, _OPAQUE]}
            for value, color, _ in values
        ],
        "properties": [{"label-value": value, **about} for value, _, about in values],
        "source": {"image": "../../"},
    }
