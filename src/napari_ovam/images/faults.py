"""What can be wrong with a picture file, said by name."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_PIXELS = 89_478_485
"""The size from which Pillow warns of decompression bombs, about 9459 x 9459. Labels
have the size of the image, so that a larger one is refused and not made smaller."""

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
    MemoryError,
)
"""What readers raise for broken files, for text that unpacks to too much, and for what
does not fit into memory."""

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


class ImageFileError(ValueError):
    """A picture that is missing, broken, too large or of a kind that is not opened."""


@contextmanager
def named_faults(path: Path) -> Iterator[None]:
    """Raise whatever breaks inside, while a picture file is read, as its error.

    It raises `ImageFileError` also where there is no such file, or it is empty.
    """
    _check_is_file(path)
    try:
        with warnings.catch_warnings():
            # its limit is ours, and raised as an error below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except ImageFileError:
        raise
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_large(path, int(pixels[0]) if pixels else 0, "") from error
    except UnidentifiedImageError as error:
        raise ImageFileError(f"{path.name} is {_kind_of_file(path)}") from error
    except MemoryError as error:
        raise ImageFileError(
            f"{path.name} does not fit into memory: make it smaller"
        ) from error
    except BROKEN as error:
        reason = str(error) or type(error).__name__
        raise ImageFileError(
            f"{path.name} is broken or cut off ({reason[:200]}): copy or save it again"
        ) from error


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture of more than `MAX_PIXELS`, or of none."""
    if width * height > MAX_PIXELS:
        raise _too_large(path, width * height, f", {width} x {height}")
    if width * height < 1:
        raise ValueError(f"its size is {width} x {height}")


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
    except ImageFileError:
        raise
    except (OSError, ValueError) as error:  # such as a name that is too long
        raise ImageFileError(f"{path} cannot be read: {error}") from error


def _too_large(path: Path, pixels: int, size: str) -> ImageFileError:
    return ImageFileError(
        f"{path.name} has {pixels / 1e6:.0f} million pixels{size}, and "
        f"{MAX_PIXELS // 10**6} million are the limit: it would take "
        f"{3 * pixels / 1e9:.1f} GB, its labels {pixels / 1e9:.1f} GB and each map "
        f"{4 * pixels / 1e9:.1f} GB. Cut it into parts, or make it smaller"
    )


def _kind_of_file(path: Path) -> str:
    """Return what a file is that no reader knows, and what to do about it."""
    head = b""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(32)
    if re.match(_PICTURES, head, re.DOTALL):
        return "broken or cut off: copy or save it again"
    names = (name for pattern, name in _STRANGERS if re.match(pattern, head, re.DOTALL))
    name = next(names, "no picture of a kind that is known")
    return f"{name}, which is not opened here: save it as PNG, JPEG, WebP or TIFF"
