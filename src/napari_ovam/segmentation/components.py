"""Connected components of labels: which to drop, which holes to fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def drop_small_components(
    labels: NDArray[np.integer[Any]], number: int, smallest: int
) -> None:
    """Make background, in place, of components of a class with fewer pixels than that.

    Diagonal neighbours are connected.
    """
    components, _ = ndimage.label(labels == number, np.ones((3, 3)))
    small = np.bincount(components.ravel()) < smallest
    small[0] = False
    labels[small[components]] = 0


def fill_holes(labels: NDArray[np.integer[Any]], number: int) -> None:
    """Give a class, in place, the background that only it encloses.

    That touches neither the border nor another class; diagonal neighbours are not
    connected.
    """
    components, count = ndimage.label(labels != number)
    hole = np.ones(count + 1, bool)
    hole[components[labels != 0]] = False  # holds another class; or is the class (0)
    for edge in (components[0], components[-1], components[:, 0], components[:, -1]):
        hole[edge] = False
    hole[0] = False
    labels[hole[components]] = number
