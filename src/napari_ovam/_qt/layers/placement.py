"""Where an image lies in the world, so that what is made of it lies there too.

Kept as JSON in the sample's provenance. Of a stack it is the place of its planes, and
`Plane` says where they are along the other axes.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image
from napari.utils.transforms import CompositeAffine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Layer

    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam.images.arrays.stacks import Plane

    Pair = tuple[float, float]

PLACEMENT = "placement"
"""What the provenance of a sample calls it."""

_PLAIN: Mapping[str, Any] = {
    "scale": [1.0, 1.0],
    "translate": [0.0, 0.0],
    "rotate": [[1.0, 0.0], [0.0, 1.0]],
    "shear": [0.0],
    "affine": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "units": ["pixel", "pixel"],
    "axis_labels": ["-2", "-1"],
}
PARTS = tuple(_PLAIN)
"""Properties of napari's layers that say where one lies; each has an event."""

# Of layers with fewer pixels than the image, how many of its pixels one is high, wide.
_grids: WeakKeyDictionary[Layer, Pair] = WeakKeyDictionary()
_ONE = (1.0, 1.0)
_SAME = 1e-9  # of what is computed by napari, relative to the largest


def placement_of(
    layer: Layer, axes: Sequence[int] = (-2, -1), pixel: Pair = _ONE
) -> dict[str, Any]:
    """Return how the pictures of a layer are placed, as JSON: what is not plain.

    Parameters
    ----------
    layer
        Of any kind; of a pyramid the place is that of its largest level.
    axes
        Its rows and columns.
    pixel
        How many of the layer's rows and columns a pixel of the picture covers.

    Raises
    ------
    ValueError
        If the pictures are turned out of their plane.
    """
    rows = [axis % layer.ndim for axis in axes]
    physical, world = layer._transforms["data2physical"], layer.affine
    if _mixes(physical.linear_matrix, rows) or _mixes(world.linear_matrix, rows):
        raise ValueError(
            f"{layer.name!r} is turned out of the plane of its pictures: turn it "
            "within the plane only"
        )
    plane, world = physical.set_slice(rows), world.set_slice(rows)
    labels = None if layer._has_default_axis_labels() else list(plane.axis_labels)
    found = {
        "scale": plane.scale.tolist(),
        "translate": plane.translate.tolist(),
        "rotate": plane.rotate.tolist(),
        "shear": np.asarray(plane.shear).tolist(),
        "affine": world.affine_matrix.tolist(),
        "units": [str(unit) for unit in plane.units],
        "axis_labels": labels or _PLAIN["axis_labels"],
    }
    found = _on_grid(found, pixel)
    return {name: value for name, value in found.items() if value != _PLAIN[name]}


def planes_of(layer: Layer, axes: Sequence[int]) -> dict[str, Any]:
    """Return where the planes of a layer are along some axes, as `Plane` has it."""
    physical, world = layer._transforms["data2physical"], layer.affine
    linear = (world.linear_matrix @ physical.linear_matrix).diagonal()
    start = world.linear_matrix @ physical.translate + world.translate
    return {
        "scale": tuple(float(linear[axis]) for axis in axes),
        "translate": tuple(float(start[axis]) for axis in axes),
        "units": tuple(str(layer.units[axis]) for axis in axes),
    }


def _mixes(matrix: Any, rows: Sequence[int]) -> bool:
    """Whether a linear matrix mixes other axes with rows and columns, or each other."""
    mixed = matrix - np.diag(matrix.diagonal())
    mixed[np.ix_(rows, rows)] = 0
    return bool((np.abs(mixed) > _SAME * np.abs(matrix).max()).any())


def _on_grid(fields: Mapping[str, Any], pixel: Pair) -> dict[str, Any]:
    """Return the place of coarser pixels that cover the same area as finer ones.

    Places are those of the pixels' middles, as napari has them.
    """
    if pixel == _ONE:
        return dict(fields)
    scale, rotate = fields["scale"], fields["rotate"]
    linear = CompositeAffine(scale, rotate=rotate, shear=fields["shear"]).linear_matrix
    moved = fields["translate"] + linear @ (np.subtract(pixel, 1) / 2)
    grid = np.multiply(scale, pixel)
    return {**fields, "scale": grid.tolist(), "translate": moved.tolist()}


def placed(sample: LiveSample, pixel: Pair = _ONE) -> dict[str, Any]:
    """Return the arguments of napari's layers that place one over a sample's image.

    `pixel` is how many of the image's pixels one of the layer's is high and wide.
    """
    found = sample.about.get(PLACEMENT)
    fields = _placed(json.dumps(found)) if found else _PLAIN
    return _on_grid(fields, pixel)


def placed_stack(sample: LiveSample, plane: Plane) -> dict[str, Any]:
    """Return the arguments that place the whole stack of a sample's image."""
    fields, more = placed(sample), len(plane.at)
    affine = np.eye(3 + more)
    affine[more:, more:] = fields["affine"]
    labels = fields["axis_labels"]
    if labels != _PLAIN["axis_labels"]:
        fields["axis_labels"] = [*plane.axes, *labels]
    else:
        fields["axis_labels"] = [str(axis) for axis in range(-2 - more, 0)]
    for name in ("scale", "translate", "units"):
        fields[name] = [*getattr(plane, name), *fields[name]]
    return {**fields, "affine": affine}  # napari adds axes to the others itself


def place(layer: Layer, sample: LiveSample, pixel: Pair | None = None) -> None:
    """Place a layer over a sample's image; where it is there already, nothing is done.

    `pixel`, as in `placed`, is kept for the next time.
    """
    if pixel is not None:
        _grids[layer] = pixel
    wanted = placed(sample, pixel_of(layer))
    if layer.ndim > 2 and sample.plane is not None:
        wanted = placed_stack(sample, sample.plane)
    now = {name: getattr(layer, name) for name in wanted}
    for name, value in wanted.items():  # each takes napari about 7 ms
        if not _same(now[name], value):
            setattr(layer, name, value)


def pixel_of(layer: Layer) -> Pair:
    """Return how many pixels of the image one of a layer is high and wide."""
    return _grids.get(layer, _ONE)


def _same(now: Any, wanted: Any) -> bool:
    if isinstance(wanted[0], str):
        return [str(each) for each in now] == list(wanted)
    now, wanted = np.asarray(now), np.asarray(wanted)
    return now.shape == wanted.shape and bool((now == wanted).all())


@lru_cache(maxsize=64)
def _placed(text: str) -> Mapping[str, Any]:
    """Return a whole placement; plain where a file's is none that napari takes."""
    try:
        fields = {**_PLAIN, **json.loads(text)}
        Image(np.zeros((1, 1)), **fields)
    except Exception:  # noqa: BLE001 (of a project.json that somebody wrote)
        return _PLAIN
    return fields
