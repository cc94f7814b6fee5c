"""A dense mean field: pixels that are near and look alike become one thing or another.

Krähenbühl & Koltun (NeurIPS 2011) with one bilateral kernel. Pixels are compared with
those on a lattice of offsets around them, so that a picture of 128 pixels takes some
milliseconds; what depends on the picture alone is computed once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Box = tuple[slice, slice]

# The kernel's deviation in space as a share of the longer side, the lattice's step as
# one of the deviation, and how far it goes in deviations.
_REACH = 1 / 8
_STEP = 1 / 4
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
        self._pairs: list[tuple[Box, Box, NDArray[np.float32]]] = []
        total = np.ones((height, width), np.float32)  # each pixel beside itself
        for i, j in np.ndindex(most + 1, 2 * most + 1):
            down, right = i * step, (j - most) * step
            away = np.hypot(down, right) / deviation
            half = (down, right) > (0, 0)  # the others are these, seen from there
            if not half or away > _FAR or down >= height or abs(right) >= width:
                continue
            here: Box = (
                slice(0, height - down),
                slice(max(0, -right), width - max(0, right)),
            )
            there: Box = (
                slice(down, height),
                slice(max(0, right), width - max(0, -right)),
            )
            apart = ((colors[:, *here] - colors[:, *there]) ** 2).sum(0)
            weight = np.exp(-(apart + away**2) / 2)
            total[here] += weight
            total[there] += weight
            self._pairs.append((here, there, weight))
        self._total = total

    def __call__(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (h, w) of what has these logits before."""
        logits = np.asarray(logits, np.float32)
        found: NDArray[np.float32] = expit(logits)
        for _ in range(_ROUNDS):
            around = found.copy()
            for here, there, weight in self._pairs:
                around[here] += weight * found[there]
                around[there] += weight * found[here]
            around /= self._total
            found = expit(_OWN * logits + _AROUND * (around - 0.5))
        return found
