"""From which value a pixel is a class's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLD = 0.5
"""The probability from which a pixel is a class's, unless told."""

# The search from above begins at this share of the map's range, and what it finds is
# the object where it is so many times as far above the rest as that is above its own.
_FROM_ABOVE, _STANDS_OUT = 0.7, 1.5
_ROUNDS = 40


def threshold_by_share(map: NDArray[Any]) -> float:
    """Return the threshold of a map, higher for a small object than for a large one.

    A map of a small object is mostly the halo around it: its border is at more of the
    way from the mean below to the mean above than a large object's. Starting from
    Otsu's threshold (1979), which lies halfway, t is moved to
    below + k (above - below), with k = 0.40 - 0.25 log10(share of pixels above t)
    between 0.35 and 0.85 (fitted on photographs; docs/quality.md), until it stays.

    Otsu's threshold parts the background itself where the object is tiny. So it is
    searched from high values as well, and what is found there is the object if it
    stands out from all that is above the lower threshold.

    Parameters
    ----------
    map
        (H, W). In a flat map nothing is to be found: infinity.
    """
    from skimage.filters import threshold_otsu

    values = np.sort(map, axis=None)
    if values[0] == values[-1]:
        return float("inf")
    sums = np.cumsum(values, dtype=np.float64)
    start = values[0] + _FROM_ABOVE * (values[-1] - values[0])
    low = _settled(values, sums, float(threshold_otsu(values)))
    high = _settled(values, sums, float(start))
    if high > low:
        above = values[values >= low]
        rest, upper = values[values < low].mean(), above.mean()
        if above[above >= high].mean() - upper > _STANDS_OUT * (upper - rest):
            low = high
    return low


def _settled(values: NDArray[Any], sums: NDArray[np.float64], level: float) -> float:
    """Move a threshold of sorted values until it is where their shares want it."""
    total = len(values)
    for _ in range(_ROUNDS):
        below = int(np.searchsorted(values, level))
        if not 0 < below < total:
            break
        low = sums[below - 1] / below
        high = (sums[-1] - sums[below - 1]) / (total - below)
        share = (total - below) / total
        k = np.clip(0.40 - 0.25 * np.log10(share), 0.35, 0.85)
        wanted = low + k * (high - low)
        done = abs(wanted - level) < 1e-3 * (values[-1] - values[0])
        level = (level + wanted) / 2
        if done:
            break
    # The highest value always counts.
    return min(level, float(values[-1]))
