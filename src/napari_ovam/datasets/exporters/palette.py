"""Colours for class ids where a format wants one and the class has none.

As one number, a colour is red·65536 + green·256 + blue.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SHARES = np.array([1 << 16, 1 << 8, 1], np.int64)


def voc_palette() -> NDArray[np.uint8]:
    """Return the 256 colours of Pascal VOC, (256, 3) RGB.

    The bits of an id are dealt in turn to red, green and blue, the lowest bits to
    the highest places (the VOC development kit's rule).
    """
    ids = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (ids >> (3 * place + channel)) & 1
            colors[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colors


def pack_colors(colors: ArrayLike) -> NDArray[np.int64]:
    """Return colours, (..., 3), as one number each, (...)."""
    packed: NDArray[np.int64] = np.asarray(colors, np.int64) @ _SHARES
    return packed


def unpack_color(value: int) -> tuple[int, int, int]:
    """Return (red, green, blue) of a number."""
    return value >> 16, value >> 8 & 255, value & 255
