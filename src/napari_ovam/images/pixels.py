"""From the numbers of any kind of picture to RGB of 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_ovam.images.faults import ImageFileError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_Any = TypeVar("_Any", bound=np.generic)
# Rows and columns of EXIF's orientations 1 to 4, and of 5 to 8 after an exchange.
_TURNS = ((1, 1), (1, -1), (-1, -1), (-1, 1))


def turned(pixels: NDArray[_Any], orientation: int) -> NDArray[_Any]:
    """Return stored pixels, (H, W, ...), as an EXIF orientation, 1 to 8, shows them."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    down, right = _TURNS[(orientation - 1) % 4]
    return np.ascontiguousarray(pixels[::down, ::right])


def stretch(path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values as 0 to 255, their largest at 255; negative ones move 0.

    It raises `ImageFileError` if they are not all finite.
    """
    if not np.isfinite(values).all():
        raise ImageFileError(
            f"{path.name} holds NaN or infinite values: save it without them"
        )
    low = min(0.0, float(values.min()))
    top = max(float(values.max()), low)
    wide = values.dtype.itemsize > 4 or top - low > 1e30
    scale = 255 / (top - low) if top > low else 0.0
    if not np.isfinite(scale):  # a range that is next to nothing
        scale = 0.0
    numbers: NDArray[Any] = values.astype(np.float64 if wide else np.float32)
    grey: NDArray[np.uint8] = ((numbers - low) * scale).round().astype(np.uint8)
    return grey


def grey_of(path: Path, values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Return grey values as 0 to 255: up to 8 bits as they are, wider ones stretched.

    Parameters
    ----------
    path
        Whose they are, for the message.
    values
        Of any shape.
    bits
        How many of each value are in use.
    """
    if values.dtype == bool or (values.dtype == np.uint8 and bits <= 8):
        scale = 255 // (2**bits - 1)
        return values.astype(np.uint8) * np.uint8(scale)
    return stretch(path, values)


def colors_of(path: Path, values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Return colour or opacity as 0 to 255: the upper 8 bits, or 1 as 255.

    Floats beyond 0 to 1 and negative numbers are stretched, all channels alike.
    """
    if values.dtype.kind in "bu":
        if bits < 8:
            return grey_of(path, values, bits)
        return (values >> (bits - 8)).astype(np.uint8)
    inside = values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1
    if inside:
        unit: NDArray[np.uint8] = (values * 255).round().astype(np.uint8)
        return unit
    return stretch(path, values)


def over_white(
    rgb: NDArray[np.uint8], alpha: NDArray[np.uint8], *, multiplied: bool = False
) -> NDArray[np.uint8]:
    """Return (H, W, 3) on white.

    Parameters
    ----------
    rgb
        (H, W, 3).
    alpha
        (H, W), 255 where nothing shines through.
    multiplied
        Whether `rgb` was multiplied by it already.
    """
    opaque = alpha[..., None].astype(np.uint32)
    colored = rgb * (np.uint32(255) if multiplied else opaque)
    mixed = (colored + 255 * (255 - opaque) + 127) // 255
    white: NDArray[np.uint8] = np.minimum(mixed, 255).astype(np.uint8)
    return white
