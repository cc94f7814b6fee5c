"""Open pictures from anywhere as (H, W, 3) RGB, or say by name why not.

What comes out has the pixels that an image viewer shows: turned as EXIF says,
transparent parts on white, one page of those a file may hold.
"""

from __future__ import annotations

import re
import struct
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from napari_ovam.images.png import PngError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")
"""What is opened, where Pillow has it, and AVIF. Others run programs or decode badly
tested formats: Pillow hands EPS to Ghostscript."""

MAX_PIXELS = 89_478_485
"""The size from which Pillow warns of decompression bombs, about 9459 x 9459. Labels
have the size of the image, so that a larger one is refused and not made smaller."""

# What Pillow raises for broken files, for text that unpacks to too much, and for what
# does not fit into memory.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    MemoryError,
)
# Wide modes that are shown by stretching 0 (or the least) to the largest value.
_WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
# The first bytes of what is opened.
_PICTURES = (
    rb"\x89PNG|\xff\xd8|RIFF....WEBP|GIF8|II[*+]|MM\0[*+]|BM|....ftypavi[fs]|P[1-6]\s"
)
# The first bytes of files that people take for pictures, and what to do with them.
_STRANGERS = (
    (rb"%PDF", "a PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (rb"\s*<(\?xml|svg|!DOCTYPE)", "SVG, HTML or XML"),
    (rb"....ftyp(heic|heix|heim|hevc|mif1|msf1)", "HEIC"),
    (rb"....ftyp(isom|mp4|M4V|qt)", "a video"),
    (rb"8BPS", "a Photoshop file"),
    (rb"gimp xcf", "a GIMP file"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"PK\x03\x04", "an archive"),
)


class ImageFileError(PngError):
    """A picture that is missing, broken, too large or of a kind that is not opened."""


def read(path: str | Path, *, page: int | None = None) -> NDArray[np.uint8]:
    """Read a picture as (H, W, 3) RGB.

    Greyscale becomes grey RGB, transparent parts white, CMYK RGB. More than 8 bits are
    stretched so that the largest value is white and 0, or the least if below, black;
    16-bit colour keeps its upper 8 bits. A picture is turned as its EXIF says, and
    EXIF that cannot be read is ignored. Colour profiles are not applied.

    Parameters
    ----------
    path
        PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF, PPM or JPEG 2000, whatever it is called.
    page
        Which of several pages or frames, from 0. None takes the only one.

    Raises
    ------
    ImageFileError
        If the file is missing, empty, broken or cut off; of another kind; of more than
        `MAX_PIXELS`; or of several pages, with `page` None.
    """
    path = Path(path)
    with opened(path) as picture:
        count = _pages(picture)
        if page is None and count > 1:
            raise ImageFileError(
                f"{path.name} holds {count} {_kind_of_pages(picture)}, and one is "
                f"wanted: say which with page, 0 to {count - 1}, or save it as a file"
            )
        if page is not None:
            if not 0 <= page < count:
                raise ImageFileError(
                    f"page is {page}, and {path.name} holds {count}: give 0 to "
                    f"{count - 1}"
                )
            if count > 1:
                picture.seek(page)
                _check_size(path, *picture.size)
        picture.load()
        return _rgb(path, _upright(picture))


def page_count(path: str | Path) -> int:
    """Return how many pages or frames a picture file holds, usually 1.

    Raises
    ------
    ImageFileError
        As from `read`, for what its head says.
    """
    path = Path(path)
    with opened(path) as picture:
        return _pages(picture)


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture of a known kind and a size that fits, its pixels not read yet.

    Raises
    ------
    ImageFileError
        As from `read`, there and for whatever breaks inside the block.
    """
    path = Path(path)
    _check_is_file(path)
    try:
        with warnings.catch_warnings():
            # its limit is ours, and raised as an error below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=_formats())
        with picture:
            _check_size(path, *picture.size)
            yield picture
    except PngError:
        raise
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_large(path, int(pixels[0]) if pixels else 0, "") from error
    except UnidentifiedImageError as error:
        raise ImageFileError(f"{path.name} is {_what(path)}") from error
    except MemoryError as error:
        raise ImageFileError(
            f"{path.name} does not fit into memory: make it smaller"
        ) from error
    except BROKEN as error:
        reason = str(error) or type(error).__name__
        raise ImageFileError(
            f"{path.name} is broken or cut off ({reason}): copy or save it again"
        ) from error


def _formats() -> list[str]:
    Image.init()  # else formats other than the commonest are not there yet
    return [name for name in (*FORMATS, "AVIF") if name in Image.OPEN]


def _check_is_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ImageFileError(f"{path} is a folder: give a picture file in it")
        if not path.is_file():
            raise ImageFileError(f"there is no file {path}")
        if not path.stat().st_size:
            raise ImageFileError(
                f"{path.name} is empty (0 bytes): copy or save it again"
            )
    except PngError:
        raise
    except (OSError, ValueError) as error:  # such as a name that is too long
        raise ImageFileError(f"{path} cannot be read: {error}") from error


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(path, width * height, f", {width} x {height}")


def _too_large(path: Path, pixels: int, size: str) -> ImageFileError:
    return ImageFileError(
        f"{path.name} has {pixels / 1e6:.0f} million pixels{size}, and "
        f"{MAX_PIXELS // 10**6} million are the limit: it would take "
        f"{3 * pixels / 1e9:.1f} GB, its labels {pixels / 1e9:.1f} GB and each map "
        f"{4 * pixels / 1e9:.1f} GB. Cut it into parts, or make it smaller"
    )


def _pages(picture: Image.Image) -> int:
    if picture.format in ("JPEG", "MPO"):
        return 1  # cameras put previews and depth behind the picture
    return int(getattr(picture, "n_frames", 1))


def _kind_of_pages(picture: Image.Image) -> str:
    return "pages" if picture.format == "TIFF" else "frames (it is animated)"


def _upright(picture: Image.Image) -> Image.Image:
    with suppress(*BROKEN):
        return ImageOps.exif_transpose(picture)
    return picture


def _rgb(path: Path, picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode in _WIDE:
        grey = _stretched(path, np.asarray(picture))
        return np.repeat(grey[..., None], 3, axis=-1)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        page = Image.new("RGBA", rgba.size, "white")
        page.alpha_composite(rgba)
        picture = page
    return np.array(picture.convert("RGB"))


def _stretched(path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values as 0 to 255, their largest at 255; negative ones move 0."""
    if not np.isfinite(values).all():
        raise ImageFileError(
            f"{path.name} holds NaN or infinite values: save it without them"
        )
    low = min(0.0, float(values.min()))
    top = max(float(values.max()), low)
    scale = 255 / (top - low) if top > low else 0.0
    grey: NDArray[np.uint8] = (
        ((values.astype(np.float32) - low) * scale).round().astype(np.uint8)
    )
    return grey


def _what(path: Path) -> str:
    """Return what a file is that Pillow does not know, and what to do about it."""
    head = b""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(32)
    if re.match(_PICTURES, head, re.DOTALL):
        return "broken or cut off: copy or save it again"
    names = (name for pattern, name in _STRANGERS if re.match(pattern, head, re.DOTALL))
    name = next(names, "no picture of a kind that is known")
    return f"{name}, which is not opened here: save it as PNG, JPEG, WebP or TIFF"
