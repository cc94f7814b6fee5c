"""Colours for class ids where a format wants one and the class has none."""

import numpy as np
from numpy.typing import NDArray


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
