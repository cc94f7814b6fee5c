"""Open pictures from anywhere as (H, W, 3) RGB, or say by name why not.

What comes out has the pixels that an image viewer shows: turned as EXIF says,
transparent parts on white, one page of those a file may hold.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from napari_ovam.images.faults import (
    BROKEN,
    MAX_PIXELS,
    ImageFileError,
    check_size,
    named_faults,
)
from napari_ovam.images.pixels import over_white, stretch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "ImageFileError",
    "image_size",
    "is_tiff",
    "opened",
    "page_count",
    "read",
    "read_orientation",
]

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")
"""What is opened, where Pillow has it, and AVIF. Others run programs or decode badly
tested formats: Pillow hands EPS to Ghostscript."""

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".jp2"),
)
"""How files of these formats usually end, in lower case."""

# Wide modes that are shown by stretching 0 (or the least) to the largest value.
_WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112
# Where Pillow finds EXIF and XMP in the head of a PNG.
_EXIF = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


def read(path: str | Path, *, page: int | None = None) -> NDArray[np.uint8]:
    """Read a picture as (H, W, 3) RGB.

    Greyscale becomes grey RGB, transparent parts white, CMYK RGB. More than 8 bits are
    stretched so that the largest value is white and 0, or the least if below, black;
    16-bit colour keeps its upper 8 bits. A picture is turned as its EXIF says, and
    EXIF that cannot be read is ignored. Colour profiles are not applied.

    It raises `ImageFileError` if the file is missing, empty, broken or cut off; of
    another kind; of more than `MAX_PIXELS`; or of several pages, with `page` None.

    Parameters
    ----------
    path
        PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF, PPM or JPEG 2000, whatever it is called.
    page
        Which of several pages or frames, from 0. None takes the only one.
    """
    path = Path(path)
    count, kind = _count_pages(path)
    if page is None and count > 1:
        raise ImageFileError(
            f"{path.name} holds {count} {kind}, and one is wanted: say which with "
            f"page, 0 to {count - 1}, or save it as a file"
        )
    if page is not None and not 0 <= page < count:
        raise ImageFileError(
            f"page is {page}, and {path.name} holds {count}: give 0 to {count - 1}"
        )
    if is_tiff(path):
        from napari_ovam.images import tiff

        pixels = tiff.read_page(path, page or 0)
        if pixels is not None:
            return pixels
    with opened(path) as picture:
        if count > 1:
            picture.seek(page or 0)
            check_size(path, *picture.size)
        if picture.format == "PNG" and "LA;16B" in str(getattr(picture, "tile", "")):
            return _deep_grey(path)
        picture.load()
        return _rgb(path, _upright(picture))


def page_count(path: str | Path) -> int:
    """Return how many pages or frames a picture file holds, usually 1.

    It raises `ImageFileError` as from `read`, for what its head says.
    """
    return _count_pages(Path(path))[0]


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (H, W) of a picture as `read` turns it, of its first page, by its head.

    It raises `ImageFileError` as from `read`, for what its head says.
    """
    path = Path(path)
    if is_tiff(path):
        from napari_ovam.images import tiff

        return tiff.page_size(path)
    with opened(path) as picture:
        size = picture.height, picture.width
        return size if _orientation(path, picture) < 5 else size[::-1]


def read_orientation(path: str | Path) -> int:
    """Return how `read` turns the stored pixels of a picture: EXIF's number, 1 to 8.

    It raises `ImageFileError` as from `read`, for what its head says.
    """
    path = Path(path)
    if is_tiff(path):
        from napari_ovam.images import tiff

        return tiff.read_orientation(path)
    with opened(path) as picture:
        return _orientation(path, picture)


def _orientation(path: Path, picture: Image.Image) -> int:
    plain = picture.format == "PNG" and not any(k in picture.info for k in _EXIF)
    if plain and not _has_late_exif(path):
        return 1  # to look for EXIF, Pillow would read all pixels
    found: object = 1
    with suppress(*BROKEN):
        found = picture.getexif().get(_ORIENTATION)
    return found if isinstance(found, int) and found in range(1, 9) else 1


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF does; what cannot be read does not."""
    try:
        if not path.is_file():  # such as a pipe, on which one would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except (OSError, ValueError):
        return False


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture of a known kind and a size that fits, its pixels not read yet.

    It raises `ImageFileError` as from `read`, there and for whatever breaks inside the
    block.
    """
    path = Path(path)
    with (
        named_faults(path),
        Image.open(path, formats=_formats()) as picture,
    ):
        check_size(path, *picture.size)
        yield picture


def _count_pages(path: Path) -> tuple[int, str]:
    """Return how many pages or frames there are, and which of the two."""
    if is_tiff(path):
        from napari_ovam.images import tiff

        return tiff.count_pages(path), "pages"
    with opened(path) as picture:
        # Cameras put previews and depth behind the picture.
        alone = picture.format in ("JPEG", "MPO")
        count = 1 if alone else int(getattr(picture, "n_frames", 1))
        return count, "frames (it is animated)"


def _has_late_exif(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return True
            file.seek(length + 4, 1)
    return False


def _formats() -> list[str]:
    Image.init()  # else formats other than the commonest are not there yet
    return [name for name in (*FORMATS, "AVIF") if name in Image.OPEN]


def _upright(picture: Image.Image) -> Image.Image:
    with suppress(*BROKEN):
        return ImageOps.exif_transpose(picture)
    return picture


def _deep_grey(path: Path) -> NDArray[np.uint8]:
    """Return a PNG of 16-bit grey and opacity, of which Pillow keeps the upper halves.

    It is read as 8-bit RGBA, which has the same bytes: two of grey, two of opacity.
    """
    png = path.read_bytes()
    head = png[12:24] + b"\x08\x06" + png[26:29]
    png = png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]
    with Image.open(BytesIO(png), formats=["PNG"]) as picture:
        values = np.array(_upright(picture)).view(">u2")
    grey = stretch(path, values[..., :1])
    return over_white(grey.repeat(3, axis=-1), (values[..., 1] >> 8).astype(np.uint8))


def _rgb(path: Path, picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode in _WIDE:
        values = np.asarray(picture)
        grey = stretch(path, values)
        clear = picture.info.get("transparency")
        if isinstance(clear, int):  # one value of a 16-bit PNG
            grey[values == clear] = 255
        return np.repeat(grey[..., None], 3, axis=-1)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        page = Image.new("RGBA", rgba.size, "white")
        page.alpha_composite(rgba)
        picture = page
    return np.array(picture.convert("RGB"))
