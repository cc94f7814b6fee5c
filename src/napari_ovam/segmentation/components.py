"""Connected parts of masks and of labels: which to drop, fill or give away.

Written for a slider. Pixels beside each other in a row that have the same value are
one run, and all is done with runs: there are some thousands where there are a million
pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Runs:
    """The runs of labels or of a mask, (H, W), without those of 0, row by row.

    Attributes
    ----------
    starts, ends
        Where they begin and end (exclusive) in the flat array, (R,) each.
    values
        What is there, (R,).
    lengths
        In pixels, (R,).
    """

    def __init__(self, labels: NDArray[Any]) -> None:
        self.width = labels.shape[1]
        flat = labels.ravel()
        changes = np.empty(flat.size, bool)
        np.not_equal(flat[1:], flat[:-1], out=changes[1:])
        changes[:: self.width] = True
        starts = np.flatnonzero(changes)
        ends = np.append(starts[1:], flat.size)
        kept = flat[starts] != 0
        self.starts, self.ends = starts[kept], ends[kept]
        self.values = flat[self.starts]
        self.lengths = self.ends - self.starts

    def parts(
        self, *, diagonal: bool = False, any_value: bool = False
    ) -> tuple[NDArray[np.intp], int]:
        """Return the connected part of each run, counted from 0, and their number.

        Parameters
        ----------
        diagonal
            Whether diagonal neighbours are connected.
        any_value
            Whether neighbours of different values are.
        """
        # The runs of the next row that a run meets: from `low` up to `high`.
        left = diagonal * (self.starts % self.width > 0)
        right = diagonal * (self.ends % self.width > 0)
        low = np.searchsorted(self.ends, self.starts + self.width - left, "right")
        high = np.searchsorted(self.starts, self.ends + self.width + right, "left")
        met = np.maximum(high - low, 0)
        total = len(self.starts)
        one = np.repeat(np.arange(total), met)
        other = np.arange(len(one)) - np.repeat(np.cumsum(met) - met - low, met)
        if any_value:
            # And the neighbour in the row, if there is one.
            beside = np.flatnonzero(
                (self.ends[:-1] == self.starts[1:]) & (self.ends[:-1] % self.width > 0)
            )
            one, other = np.append(one, beside), np.append(other, beside + 1)
        else:
            same = self.values[one] == self.values[other]
            one, other = one[same], other[same]
        graph = csr_matrix(
            (np.ones(len(one), np.int8), (one, other)), shape=(total, total)
        )
        count, numbers = connected_components(graph, directed=False)
        return numbers.astype(np.intp), count

    def sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Add up what an array (H, W) holds in each run: (R,)."""
        if not len(self.starts):
            return np.zeros(0)
        limits = np.stack([self.starts, self.ends], 1).ravel()
        # The last run may end with the array, where no sum can begin.
        limits = limits[: len(limits) - (limits[-1] == values.size)]
        added = np.add.reduceat(values.ravel(), limits, dtype=np.float64)
        return np.asarray(added[::2])

    def pixels(self, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return where the pixels of some runs, (R,) bool, are in the flat array."""
        lengths = self.lengths[chosen]
        before = np.cumsum(lengths) - lengths
        first: NDArray[np.intp] = np.repeat(self.starts[chosen] - before, lengths)
        return first + np.arange(len(first))


def sure_parts(
    values: NDArray[np.float32], mask: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    """Return a mask without the parts whose mean is below a share of the surest's.

    Parts of less than a tenth of the largest one's pixels set no standard. Diagonal
    neighbours are not connected.

    Parameters
    ----------
    values
        (H, W), the map.
    mask
        (H, W); it is not changed.
    share
        0 to 1.
    """
    runs = Runs(mask)
    parts, count = runs.parts()
    if count < 2:
        return mask
    sizes = np.bincount(parts, runs.lengths)
    means = np.bincount(parts, runs.sums(values)) / sizes
    doubtful = means < share * means[sizes * 10 >= sizes.max()].max()
    result = mask.copy()
    result.ravel()[runs.pixels(doubtful[parts])] = False
    return result


def drop_small_parts(
    labels: NDArray[np.integer[Any]], number: int, smallest: int
) -> None:
    """Make background, in place, of parts of a class with fewer pixels than that.

    Diagonal neighbours are connected.
    """
    runs = Runs(labels == number)
    parts, _ = runs.parts(diagonal=True)
    small = np.bincount(parts, runs.lengths) < smallest
    labels.ravel()[runs.pixels(small[parts])] = 0


def fill_holes(labels: NDArray[np.integer[Any]], number: int) -> None:
    """Give a class, in place, the background that only it encloses.

    That touches neither the border nor another class; diagonal neighbours are not
    connected.
    """
    runs = Runs(labels != number)
    parts, count = runs.parts()
    width, size = runs.width, labels.size
    border = (runs.starts % width == 0) | (runs.ends % width == 0)
    border |= (runs.starts < width) | (runs.ends > size - width)
    taken = runs.sums(labels != 0) > 0
    hole = np.ones(count, bool)
    hole[parts[border | taken]] = False
    labels.ravel()[runs.pixels(hole[parts])] = number


def unite(
    found: NDArray[np.integer[Any]],
    maps: NDArray[np.float32],
    over: NDArray[np.bool_],
) -> NDArray[np.integer[Any]]:
    """Give pieces to the class that has most of their region.

    A piece is connected and of one class; a region is connected and of any. A piece
    moves where the other class's map is over its threshold as well, in half of it at
    least, and where it is not in the region of its own class's largest piece.

    Parameters
    ----------
    found
        (H, W), 1 for the first map and so on, 0 for background; it is not changed.
    maps
        (P, H, W).
    over
        (P, H, W), whether maps are over their thresholds.
    """
    runs = Runs(found)
    kinds, total = runs.values.astype(np.intp), len(maps) + 1
    regions, count = runs.parts(any_value=True)
    sizes = np.bincount(regions * total + kinds, runs.lengths, count * total)
    most = sizes.reshape(count, total).argmax(1)  # the class of most of each region
    if (most[regions] == kinds).all():
        return found
    pieces, count = runs.parts()
    kind, region = np.zeros(count, np.intp), np.zeros(count, np.intp)
    kind[pieces], region[pieces] = kinds, regions
    # Where the largest piece of each class is: nothing is taken from it there.
    largest = np.zeros(total, np.intp)
    order = np.argsort(np.bincount(pieces, _of(runs, maps, kinds)), kind="stable")
    largest[kind[order]] = region[order]  # the last of a kind stays
    rival = most[region]
    claims = np.bincount(pieces, _of(runs, over, most[regions]))
    claimed = claims * 2 >= np.bincount(pieces, runs.lengths)
    moves = (claimed & (rival != kind) & (region != largest[kind]))[pieces]
    result = found.copy()
    result.ravel()[runs.pixels(moves)] = np.repeat(
        rival[pieces][moves], runs.lengths[moves]
    )
    return result


def _of(runs: Runs, values: NDArray[Any], which: NDArray[np.intp]) -> NDArray[Any]:
    """Add up values (P, H, W) in each run, of the class that is given for it."""
    result = np.zeros(len(which))
    for number in np.unique(which).tolist():
        chosen = which == number
        result[chosen] = runs.sums(values[number - 1])[chosen]
    return result
