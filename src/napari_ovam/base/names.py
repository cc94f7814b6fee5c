"""Names of files that every usual system takes."""

from __future__ import annotations

import re
import unicodedata
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST = 80  # bytes, so that a number and an ending fit as well
# Devices of Windows, where a file of such a name cannot be made
_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{i}" for port in ("com", "lpt") for i in (*range(10), "¹", "²", "³")
}


def safe_name(wanted: str, default: str = "image") -> str:
    """Return a short file name, without an ending, for any text.

    Parameters
    ----------
    wanted
        Any text: what is no letter or digit becomes "-".
    default
        What a name is called that is empty, and gets behind it where it is reserved:
        "aux" becomes "aux-image".
    """
    plain = re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFC", wanted)).strip("-_")
    plain = plain.encode(errors="ignore")[:_LONGEST].decode(errors="ignore")
    if is_reserved(plain):
        return f"{plain}-{default}"
    return plain.rstrip("-_") or default


def is_reserved(name: str) -> bool:
    """Whether a name belongs to a device on Windows, with or without an ending."""
    return name.partition(".")[0].rstrip().casefold() in _RESERVED


def slug(name: str) -> str:
    """Return a short word of ASCII letters for the files of a class."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "class"


def numbered(path: Path) -> Iterator[Path]:
    """Yield a path, then it with 2, 3 ... behind its stem."""
    yield path
    for number in count(2):
        yield path.with_stem(f"{path.stem}-{number}")


def check_name(name: str) -> None:
    """Raise ValueError where `name` is not a file name on every usual system."""
    if (
        not name
        or name[0] == "."
        or name[-1] in ". "
        or any(c in '<>:"/\\|?*' or unicodedata.category(c)[0] == "C" for c in name)
        or len(name.encode(errors="replace")) > 200
        or is_reserved(name)
    ):
        raise ValueError(
            f"item name {name!r} cannot be a file name; use up to 200 bytes without "
            '/ \\ < > : " | ? * and control characters, and no dot in front'
        )
