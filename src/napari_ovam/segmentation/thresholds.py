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
# How far around a threshold the steepest level is looked for, in logits of the share of
# pixels above it, at how many levels, and what that distance costs.
_NEAR, _LEVELS, _FAR = 0.4, 11, 0.7


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


def steepest_near(map: NDArray[Any], level: float) -> float:
    """Return the level near a threshold along whose border a map is steepest.

    A map averaged over what looks alike changes at the borders of things: of the levels
    that part off up to a half more or less, the one is taken along whose border
    neighbours differ most, weighed against its distance.

    Parameters
    ----------
    map
        (H, W), not flat.
    level
        A value that some pixels have or exceed, and others do not.
    """
    values = np.sort(map, axis=None)
    total = len(values)
    share = 1 - np.searchsorted(values, level) / total
    if not 0 < share < 1:
        return level
    found = [(_steepness(map, level), level)]
    for x in np.linspace(-_NEAR, _NEAR, _LEVELS):
        above = total / (1 + (1 - share) / share * np.exp(-x))
        if 2 < above < total - 2:
            other = float(values[int(total - above)])
            found.append((_steepness(map, other) - _FAR * x**2, other))
    return max(found)[1]


def _steepness(map: NDArray[Any], level: float) -> float:
    """Return the logarithm of how much neighbours on both sides of a level differ."""
    above, steps, count = map >= level, 0.0, 0
    for axis in (0, 1):
        border = np.diff(above, axis=axis)
        steps += float(np.abs(np.diff(map, axis=axis))[border].sum())
        count += int(border.sum())
    return float(np.log(steps / count)) if steps else -np.inf


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
