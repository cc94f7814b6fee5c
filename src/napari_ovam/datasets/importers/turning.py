"""EXIF orientations: pictures are read upright, masks may be of the stored pixels."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_ovam.images.files import opened

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_Any = TypeVar("_Any", bound=np.generic)
UPRIGHT = 1
_TAG = 0x0112


def turned(pixels: NDArray[_Any], orientation: int) -> NDArray[_Any]:
    """Return stored pixels, (H, W, ...), as an EXIF orientation says to show them.

    The eight orientations of Exif 2.3, 4.6.4: where row 0 and column 0 are.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def read_orientation(path: Path) -> tuple[int, tuple[int, int]]:
    """Return the EXIF orientation of a picture, 1 to 8, and (H, W) of it upright.

    Raises
    ------
    ImageFileError
        If it cannot be read.
    """
    with opened(path) as picture:
        found: Any = UPRIGHT
        with suppress(Exception):  # broken EXIF turns nothing, as in reading
            found = picture.getexif().get(_TAG, UPRIGHT)
        known = found if found in range(1, 9) else UPRIGHT
        height, width = picture.height, picture.width
        # Pillow turns TIFFs by itself, and says their size as they will be.
        transposed = known in (5, 6, 7, 8) and picture.format != "TIFF"
        return known, (width, height) if transposed else (height, width)
