"""Where an image lies in the world, so that what is made of it lies there too."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Layer

    from napari_ovam._qt.session.state import LiveSample

PLACEMENT = "placement"
"""What the provenance of a sample calls it."""

_PLAIN: Mapping[str, Any] = {
    "scale": [1.0, 1.0],
    "translate": [0.0, 0.0],
    "rotate": [[1.0, 0.0], [0.0, 1.0]],
    "shear": [0.0],
    "affine": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "units": ["pixel", "pixel"],
}


def placement_of(layer: Layer) -> dict[str, Any]:
    """Return how a 2D layer is placed, as JSON: what differs from plain pixels."""
    found = {
        "scale": layer.scale.tolist(),
        "translate": layer.translate.tolist(),
        "rotate": np.asarray(layer.rotate).tolist(),
        "shear": np.asarray(layer.shear).tolist(),
        "affine": layer.affine.affine_matrix.tolist(),
        "units": [str(unit) for unit in layer.units],
    }
    return {name: value for name, value in found.items() if value != _PLAIN[name]}


def placed(sample: LiveSample) -> dict[str, Any]:
    """Return the arguments of napari's layers that place one over a sample's image."""
    found = sample.about.get(PLACEMENT)
    return dict(_placed(json.dumps(found)) if found else _PLAIN)


@lru_cache(maxsize=64)
def _placed(text: str) -> Mapping[str, Any]:
    """Return a whole placement; plain where a file's is none that napari takes."""
    try:
        fields = {**_PLAIN, **json.loads(text)}
        Image(np.zeros((1, 1)), **fields)
    except Exception:  # noqa: BLE001 (of a project.json that somebody wrote)
        return _PLAIN
    return fields
