"""Where labels made from maps are doubtful: what a person should look at first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from skimage.measure import label, regionprops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DOUBTFUL = 0.5
"""Below this uncertainty (three to one) no pixel counts as doubtful."""

SHARE = 0.02
"""How many of an image's pixels are doubtful, at most: half of the wrong ones are in
the 2 % that are doubted most (docs/quality.md)."""

# Of the pixels of an image: smaller places are not worth a visit.
_SMALLEST = 1 / 2000


class Place(NamedTuple):
    """A doubtful place.

    Attributes
    ----------
    row, column
        A pixel in it, close to its middle.
    pixels
        Its size.
    """

    row: int
    column: int
    pixels: int


def uncertainty(
    maps: NDArray[Any], thresholds: float | Sequence[float]
) -> NDArray[np.float32]:
    """Return how close each pixel is to another label, 0 to 1.

    Each class has its probability over its threshold as a score, the background what
    the highest class leaves over one less that threshold; with a and b the two highest
    scores, the uncertainty is 1 - (a - b) / (a + b).

    Parameters
    ----------
    maps
        Shape (P, H, W), as the labels were made of, from 0 to 1: probabilities.
    thresholds
        Above 0, up to 1, one for all or one a class.

    Returns
    -------
    ndarray
        Shape (H, W): 1 where two are equal.

    Raises
    ------
    ValueError
        If shapes or thresholds do not fit.
    """
    maps = np.asarray(maps, np.float32)
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"maps have the shape {maps.shape}: give (classes, H, W)")
    levels = np.asarray(thresholds, np.float32)
    if levels.shape not in ((), (len(maps),)) or not (levels > 0).all():
        raise ValueError(
            f"thresholds are {thresholds!r}: give one above 0, or one for each of "
            f"{len(maps)} maps"
        )
    first = np.zeros(maps.shape[1:], np.float32)
    second, left = np.zeros_like(first), np.ones_like(first)
    for each, level in zip(maps, np.broadcast_to(levels, len(maps)), strict=True):
        score = each / level
        np.minimum(left, (1 - each) / max(1 - level, 1e-6), out=left)
        np.maximum(second, np.minimum(first, score), out=second)
        np.maximum(first, score, out=first)
    np.maximum(second, np.minimum(first, left), out=second)
    np.maximum(first, left, out=first)
    result: NDArray[np.float32] = 1 - (first - second) / (first + second)
    return result


def doubtful_share(doubt: NDArray[np.float32], labels: NDArray[Any]) -> float:
    """Return how many pixels are doubtful for each that is labelled, from 0.

    The higher, the worse the labels of an image are likely to be.

    Parameters
    ----------
    doubt, labels
        (H, W), from `uncertainty`; class ids, 0 for the background.
    """
    return float((doubt >= DOUBTFUL).sum() / max(int((labels > 0).sum()), 1))


def doubtful_places(
    doubt: NDArray[np.float32],
    *,
    level: float | None = None,
    smallest: int | None = None,
    settled: NDArray[np.bool_] | None = None,
) -> list[Place]:
    """Return the connected doubtful places, the largest first.

    Parameters
    ----------
    doubt
        (H, W), from `uncertainty`.
    level
        From 0 to 1: what counts as doubtful. None takes the `SHARE` of the pixels that
        are doubted most, if they are at `DOUBTFUL` or above.
    smallest
        Places with fewer pixels are left out. None is one of 2000 pixels of the image.
    settled
        (H, W), where a person has decided: nothing there is doubtful.
    """
    if level is None:
        level = max(DOUBTFUL, float(np.quantile(doubt, 1 - SHARE)))
    if smallest is None:
        smallest = round(doubt.size * _SMALLEST)
    mask = doubt >= level
    if settled is not None:
        mask = mask & ~settled
    places = []
    for region in regionprops(label(mask, connectivity=2)):
        if region.area >= smallest:
            middle = np.abs(region.coords - region.centroid).sum(1).argmin()
            row, column = region.coords[middle]
            places.append(Place(int(row), int(column), int(region.area)))
    return sorted(places, key=lambda place: -place.pixels)
