"""Masks as annotation tools write them: exact codes of one object each.

CVAT runs along the rows of a box, LabelMe a PNG of a box, Label Studio runs of RGBA
pixels packed bit by bit (its `brush` module; the form is that of thi.ng's rle-pack).
"""

from __future__ import annotations

import base64
import warnings
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Box = tuple[slice, slice]
"""Rows and columns."""

_CHANNELS = 4
_SIZES = (3, 4, 8, 16)  # how many bits a run's length may have, as Label Studio writes


_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


class MaskCodeError(ValueError):
    """A code that is no mask of the size that it should have."""


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box around a mask, (H, W), of at least one pixel."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def paste(
    part: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return a mask, (H, W), of a part of it whose first pixel is at (row, column).

    It raises `MaskCodeError` if the part reaches out of it.
    """
    (row, column), (height, width) = corner, part.shape
    if row < 0 or column < 0 or row + height > size[0] or column + width > size[1]:
        raise MaskCodeError(
            f"its mask of {width} x {height} pixels at {column}, {row} reaches out of "
            f"the picture of {size[1]} x {size[0]}"
        )
    mask = np.zeros(size, bool)
    mask[row : row + height, column : column + width] = part
    return mask


def encode_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the runs of a mask along its rows, the first one of False (perhaps 0)."""
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def decode_runs(runs: Sequence[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of `encode_runs`, (H, W).

    It raises `MaskCodeError` if the runs do not add up to its pixels.
    """
    count = np.array(runs, np.int64)
    if (count < 0).any() or count.sum() != shape[0] * shape[1]:
        raise MaskCodeError(f"its runs do not add up to {shape[0] * shape[1]} pixels")
    return np.repeat(np.arange(len(count)) % 2 == 1, count).reshape(shape)


def encode_png(mask: NDArray[np.bool_]) -> str:
    """Return a mask, (H, W), as a one-bit PNG in base64."""
    code = BytesIO()
    Image.fromarray(mask).save(code, format="PNG")
    return base64.b64encode(code.getvalue()).decode("ascii")


def decode_png(text: str, largest: int) -> NDArray[np.bool_]:
    """Return what is not 0 in a PNG in base64, (H, W).

    It raises `MaskCodeError` if it is none, or has more than `largest` pixels.
    """
    try:
        code = BytesIO(base64.b64decode(text, validate=False))
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(code, formats=["PNG"]) as picture:
                if picture.width * picture.height > largest:
                    raise MaskCodeError("its mask is larger than its picture")
                pixels = np.asarray(picture.convert("RGB"))
    except MaskCodeError:
        raise
    except _BOMBS as error:
        raise MaskCodeError("its mask is larger than its picture") from error
    except (OSError, ValueError, TypeError, SyntaxError) as error:
        raise MaskCodeError(f"its mask is no PNG in base64: {error}") from error
    return np.asarray(pixels.any(axis=2))


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Return a mask as Label Studio's bytes: RGBA pixels, each 0 or 255."""
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.concatenate([starts, [flat.size]])) * _CHANNELS
    bits = [f"{flat.size * _CHANNELS:032b}{8 - 1:05b}"]
    bits += [f"{size - 1:04b}" for size in _SIZES]
    for value, length in zip(flat[starts].tolist(), lengths.tolist(), strict=True):
        while length > 0:
            run = min(length, 1 << _SIZES[-1])
            place = next(i for i, size in enumerate(_SIZES) if run <= 1 << size)
            bits.append(f"1{place:02b}{run - 1:0{_SIZES[place]}b}")
            bits.append("11111111" if value else "00000000")
            length -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(code: Sequence[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where Label Studio's RGBA pixels are not transparent, (H, W).

    It raises `MaskCodeError` if the code is cut off, or of another size.
    """
    try:
        data = bytes(code)
    except (TypeError, ValueError) as error:
        raise MaskCodeError("its code is no list of bytes") from error
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    at = 0

    def take(count: int) -> int:
        nonlocal at
        first, last = at >> 3, (at + count + 7) >> 3
        if at + count > bits.size:
            raise MaskCodeError("its code is cut off")
        word = int.from_bytes(data[first:last], "big") >> (8 * last - at - count)
        at += count
        return word & ((1 << count) - 1)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    if total != shape[0] * shape[1] * _CHANNELS or word != 8:
        raise MaskCodeError(f"its code is not of {shape[0]} x {shape[1]} RGBA pixels")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated, size = take(1), sizes[take(2)]
        run = take(size) + 1
        if done + run > total:
            raise MaskCodeError("its code holds more pixels than the picture")
        if repeated:
            values[done : done + run] = take(word)
        elif at + run * word > bits.size:
            raise MaskCodeError("its code is cut off")
        else:
            values[done : done + run] = np.packbits(bits[at : at + run * word])
            at += run * word
        done += run
    alpha = values.reshape(*shape, _CHANNELS)[..., _CHANNELS - 1]
    return np.asarray(alpha > 0)
