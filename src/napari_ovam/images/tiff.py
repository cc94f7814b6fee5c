"""TIFFs, by tifffile: planes, orientations and numbers that Pillow reads wrongly.

Pillow (13.0) takes 16-bit planes that are not compressed for colours of one another,
does not turn grey that is not compressed, and knows no floats in colour.
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from napari_ovam.images.faults import ImageFileError, check_size, named_faults
from napari_ovam.images.pixels import colors_of, grey_of, over_white, turned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import IntEnum
    from pathlib import Path

    from numpy.typing import NDArray

_DEFLATE = (COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE)
_ORIENTATION = 0x0112
_PHOTOMETRICS = (
    *(PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB),
    *(PHOTOMETRIC.PALETTE, PHOTOMETRIC.SEPARATED),
)
_MULTIPLIED, _OPACITY = EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA


def count_pages(path: Path) -> int:
    """Return how many pages a TIFF has."""
    with _opened(path) as file:
        return len(file.pages)


def page_size(path: Path) -> tuple[int, int]:
    """Return (H, W) of the first page, turned as it says."""
    with _opened(path) as file:
        page = _page(path, file, 0)
        size = page.imagelength, page.imagewidth
        return size if _orientation(page) < 5 else size[::-1]


def read_page(path: Path, number: int) -> NDArray[np.uint8] | None:
    """Read a page as (H, W, 3) RGB; None where Pillow reads it right.

    It raises `ImageFileError` if it is broken, too large, or of a kind that is not read
    here.
    """
    with _opened(path) as file:
        page = _page(path, file, number)
        if not _are_known_channels(page):
            raise _refusal(path, page)
        if not _are_known_numbers(page):
            if _is_for_pillow(path, number):
                return None
            raise _refusal(path, page)
        _check_parts(path, page)
        values = _values(page)
        return turned(_rgb(path, page, values), _orientation(page))


def read_values(path: Path) -> NDArray[Any] | None:
    """Read the numbers of a page as they are, (H, W, channels), turned as it says.

    None where only Pillow unpacks them. All else as for `read_page`.
    """
    with _opened(path) as file:
        page = _page(path, file, 0)
        if not _are_known_numbers(page):
            return None
        _check_parts(path, page)
        values = _values(page)
        if page.photometric == PHOTOMETRIC.MINISWHITE and values.dtype.kind in "bu":
            values = (1 << page.bitspersample) - 1 - values
        return turned(values, _orientation(page))


def read_orientation(path: Path) -> int:
    """Return how the first page of a TIFF says to turn it, 1 to 8."""
    with _opened(path) as file:
        return _orientation(_page(path, file, 0))


def _values(page: tifffile.TiffPage) -> NDArray[Any]:
    planes = page.asarray(maxworkers=1).reshape(page.shaped)[:, 0]
    return np.moveaxis(planes, 0, -1).reshape(*planes.shape[1:3], -1)


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    with named_faults(path):
        try:
            with tifffile.TiffFile(path) as file:
                yield file
        except tifffile.TiffFileError as error:
            raise ValueError(str(error)) from error


def _page(path: Path, file: tifffile.TiffFile, number: int) -> tifffile.TiffPage:
    page = file.pages[number].aspage()
    check_size(path, page.imagewidth, page.imagelength)
    return page


def _is_for_pillow(path: Path, number: int) -> bool:
    try:
        with Image.open(path, formats=["TIFF"]) as picture:
            picture.seek(number)
            return True
    except (OSError, SyntaxError, EOFError):
        return False


def _refusal(path: Path, page: tifffile.TiffPage) -> ImageFileError:
    kind = f"{page.samplesperpixel} channels of {page.bitspersample} bits"
    photometric = _name(PHOTOMETRIC, page.photometric)
    codec = _name(COMPRESSION, page.compression)
    return ImageFileError(
        f"{path.name} is a TIFF of {kind} ({page.dtype}, {photometric}, "
        f"compression {codec}), which is not opened here: save it as grey, RGB, or RGB "
        "with transparency, not compressed"
    )


def _name(names: type[IntEnum], value: int) -> str:
    try:
        return names(value).name
    except ValueError:
        return str(value)


def _are_known_numbers(page: tifffile.TiffPage) -> bool:
    """Whether they are read here: as they are, or compressed by deflate."""
    return (
        page.dtype is not None
        and page.dtype.kind in "buif"
        and page.bitspersample in (1, 8, 16, 32, 64)
        and page.compression in (COMPRESSION.NONE, *_DEFLATE)
        and page.predictor in (1, 2)
        and page.imagedepth == 1
        and page.photometric in _PHOTOMETRICS
    )


def _are_known_channels(page: tifffile.TiffPage) -> bool:
    """Whether they are grey, colour or a palette, with opacity or without."""
    count = page.samplesperpixel
    if page.photometric == PHOTOMETRIC.RGB:
        return bool(count >= 3)
    if page.photometric in (PHOTOMETRIC.PALETTE, PHOTOMETRIC.SEPARATED):
        whole = page.dtype is not None and page.dtype.kind == "u"
        return whole and count >= (1 if page.photometric == PHOTOMETRIC.PALETTE else 4)
    known = page.photometric in _PHOTOMETRICS
    return not known or count == 1 or (count == 2 and _has_opacity(page))


def _has_opacity(page: tifffile.TiffPage) -> bool:
    return bool(page.extrasamples) and page.extrasamples[0] in (_MULTIPLIED, _OPACITY)


def _check_parts(path: Path, page: tifffile.TiffPage) -> None:
    """Refuse strips and tiles that are larger, or unpack to more, than they say."""
    height = page.tilelength or min(page.rowsperstrip, page.imagelength)
    width = page.tilewidth or page.imagewidth
    check_size(path, width, height)
    if page.compression == COMPRESSION.NONE:
        return
    size = width * height * page.samplesperpixel * max(page.bitspersample // 8, 1)
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        page.parent.filehandle.seek(offset)
        packed, left = page.parent.filehandle.read(count), size
        unpacker = zlib.decompressobj()
        while packed and left >= 0:
            left -= len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
        if left < 0:
            raise ValueError("it unpacks to more than its size says")


def _rgb(
    path: Path, page: tifffile.TiffPage, values: NDArray[Any]
) -> NDArray[np.uint8]:
    """Return (H, W, 3) of the numbers (H, W, channels) of a page."""
    bits, kind = page.bitspersample, page.photometric
    rgb: NDArray[np.uint8]
    if kind == PHOTOMETRIC.PALETTE:
        table = np.asarray(page.colormap)
        table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        rgb = table.T[np.minimum(values[..., 0], table.shape[1] - 1)]
        extra = values[..., 1:2]
    elif kind == PHOTOMETRIC.SEPARATED:
        inks = np.ascontiguousarray(colors_of(path, values[..., :4], bits))
        rgb = np.array(Image.fromarray(inks, "CMYK").convert("RGB"))
        extra = values[..., 4:5]
    elif kind == PHOTOMETRIC.RGB:
        rgb, extra = colors_of(path, values[..., :3], bits), values[..., 3:4]
    else:
        grey = grey_of(path, values[..., :1], bits)
        grey = 255 - grey if kind == PHOTOMETRIC.MINISWHITE else grey
        rgb, extra = np.repeat(grey, 3, axis=-1), values[..., 1:2]
    if not extra.size or not _has_opacity(page):
        return rgb
    alpha = colors_of(path, extra[..., 0], bits)
    return over_white(rgb, alpha, multiplied=page.extrasamples[0] == _MULTIPLIED)


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(_ORIENTATION)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1
