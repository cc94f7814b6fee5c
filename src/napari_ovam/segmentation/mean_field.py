"""A dense mean field: pixels that are near and look alike become one thing or another.

Krähenbühl & Koltun (NeurIPS 2011) with one bilateral kernel. Pixels are compared with
those on a lattice of offsets around them, so that a picture of 128 pixels takes some
milliseconds; what depends on the picture alone is computed once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ovam.segmentation.refine import moved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Box = tuple[slice, slice]

# The kernel's deviation in space as a share of the longer side, the lattice's step as
# one of the deviation, and how far it goes in deviations.
_REACH = 1 / 8
_STEP = 1 / 3
_FAR = 2.0
# The deviation in colour, in units of CIE Lab.
_COLOR = 4.0
# The weights of a pixel's own logit and of its neighbours' mean, and how often.
_OWN, _AROUND, _ROUNDS = 0.5, 12.0, 4


class MeanField:
    """The mean field of one picture.

    Parameters
    ----------
    lab
        (h, w, 3) in CIE Lab, a few hundred pixels a side.
    """

    def __init__(self, lab: NDArray[np.float32]) -> None:
        height, width = lab.shape[:2]
        colors = np.ascontiguousarray(np.moveaxis(lab, 2, 0), np.float32) / _COLOR
        deviation = _REACH * max(height, width)
        step = max(1, round(_STEP * deviation))
        most = int(_FAR * deviation // step)
        places = [
            (i * step, j * step)
            for i in range(-most, most + 1)
            for j in range(-most, most + 1)
            if 0 < np.hypot(i, j) * step <= _FAR * deviation
        ]
        weights = np.zeros((len(places), height, width), np.float32)
        for number, (down, right) in enumerate(places[: len(places) // 2]):
            # As seen from the one pixel, and from the other: places are symmetric.
            here: Box = _clipped(-down, height), _clipped(-right, width)
            there: Box = _clipped(down, height), _clipped(right, width)
            apart = ((colors[:, *here] - colors[:, *there]) ** 2).sum(0)
            apart += np.float32((down**2 + right**2) / deviation**2)
            weights[number][here] = weights[-1 - number][there] = np.exp(-apart / 2)
        total = weights.sum(0) + 1  # each pixel beside itself
        weights /= total
        self._own = torch.from_numpy(1 / total)
        self._weights = torch.from_numpy(weights).unbind()
        self._places = places

    def __call__(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (h, w) of what has these logits before."""
        before = torch.from_numpy(np.asarray(logits, np.float32))
        found = before.sigmoid()
        for _ in range(_ROUNDS):
            around = self._own * found
            neighbours = moved(found[None], self._places)
            for weight, each in zip(self._weights, neighbours, strict=True):
                around.addcmul_(weight, each[0])
            found = (_OWN * before + _AROUND * (around - 0.5)).sigmoid()
        result: NDArray[np.float32] = found.numpy()
        return result


def _clipped(by: int, length: int) -> slice:
    """Return the part of a side that stays in it after a move back by so much."""
    return slice(max(0, by), length + min(0, by))
