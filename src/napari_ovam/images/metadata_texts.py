"""Every text in the file of a picture, wherever tools put it and however encoded."""

from __future__ import annotations

import html
import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin

from napari_ovam.images.faults import BROKEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_LONGEST = 2**22
# Tags of EXIF that hold text; those of Windows are UTF-16.
_EXIF_TEXTS = {
    **{0x010D: "DocumentName", 0x010E: "ImageDescription", 0x010F: "Make"},
    **{0x0110: "Model", 0x0131: "Software", 0x013B: "Artist", 0x8298: "Copyright"},
}
_WINDOWS_TEXTS = {0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x9C9E: "XPKeywords"}
_NO_TEXT = ("exif", "icc_profile", "transparency", "compression", "version", "mp")
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
XMP = ("XML:com.adobe.xmp", "xmp")


def read_texts(picture: Image.Image) -> dict[str, str]:
    """Return every text of a picture by its name; parts that are broken are left out.

    PNG text, comments, EXIF (as "EXIF UserComment" and so on), XMP, and what NovelAI
    and others hide in the lowest bits of the transparency ("stealth").
    """
    raw = {
        key: _decoded(value)
        for key, value in picture.info.items()
        if isinstance(key, str)
        and isinstance(value, (str, bytes))
        and key not in _NO_TEXT
    }
    if picture.format == "PNG":
        # Text may come after the pixels: they have to be read to get there.
        with suppress(*BROKEN):
            picture.load()
            raw |= {k: _decoded(v) for k, v in picture.text.items()}  # type: ignore[attr-defined]
    with suppress(*BROKEN):
        raw |= _exif_texts(picture.getexif())
    if picture.mode == "RGBA":
        with suppress(*BROKEN):
            raw |= _stealth_text(picture)
    return raw


def read_tiff_texts(path: Path) -> dict[str, str]:
    """Return the texts of a TIFF's first page, of kinds that Pillow opens or not."""
    exif, raw = Image.Exif(), dict[str, str]()
    with suppress(*BROKEN), path.open("rb") as file:
        exif.load_from_fp(file)
        raw = _exif_texts(exif)
        if isinstance(xmp := exif.get(0x02BC), bytes):
            raw["xmp"] = _decoded(xmp)
    return raw


def texts_inside(raw: Mapping[str, str]) -> Iterator[str]:
    """Yield the texts of elements and attributes in XMP."""
    for name in XMP:
        xmp = raw.get(name, "")[:_LONGEST]
        for found in re.finditer(r">([^<>]+)<|=\s*\"([^\"<]+)\"|='([^'<]+)'", xmp):
            text = html.unescape(next(filter(None, found.groups()))).strip()
            if text[:1] == "{" or "Steps:" in text:
                yield text


def _exif_texts(exif: Image.Exif) -> dict[str, str]:
    found = {
        f"EXIF {name}": _decoded(exif[tag])
        for tag, name in _EXIF_TEXTS.items()
        if tag in exif
    }
    for tag, name in _WINDOWS_TEXTS.items():
        if isinstance(value := exif.get(tag), (bytes, tuple)):
            found[f"EXIF {name}"] = (
                bytes(value).decode("utf-16-le", "replace").strip("\0")
            )
    if comment := exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT):
        found["EXIF UserComment"] = _user_comment(comment)
    return found


def _decoded(value: Any) -> str:
    """Decode text as UTF-8 where it is that.

    Pillow takes a PNG's tEXt and zTXt and EXIF's text for Latin-1, which the standards
    say; many programs write UTF-8.
    """
    if isinstance(value, str) and not isinstance(value, PngImagePlugin.iTXt):
        with suppress(UnicodeError):
            return value.encode("latin-1").decode("utf-8").rstrip("\0")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0")
    return str(value)


def _user_comment(value: Any) -> str:
    """Decode an EXIF UserComment: eight bytes that name the encoding, then the text.

    "UNICODE" is UTF-16 of either byte order (piexif writes big-endian), for some tools
    UTF-8. Characters below 256 have a zero as their higher byte: which of the two it
    is shows the order.
    """
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return str(value)
    code, text = value[:8], value[8:]
    named = code.rstrip(b"\0 ") in (b"UNICODE", b"ASCII", b"JIS", b"")
    text = text if named else value
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace").strip("\0 ")
    odd, even = text[1::2].count(0), text[::2].count(0)
    # A colon or a brace: every text of settings has one, and in UTF-16 a zero with it.
    plain = odd + even == 0 and re.search(rb"[:{]", text) is not None
    wide = code.startswith(b"UNICODE") or max(odd, even) > len(text) // 4
    if not wide or plain:
        return _decoded(text).strip("\0 ")
    return text.decode("utf-16-le" if odd > even else "utf-16-be", "replace").strip(
        "\0 "
    )


def _stealth_text(picture: Image.Image) -> dict[str, str]:
    """Return what the lowest bits of the transparency say, column by column.

    A name of 15 letters, the length in bits (32 of them), then UTF-8, compressed by
    gzip where the name ends in "comp".
    https://github.com/ashen-sensored/sd_webui_stealth_pnginfo
    """
    alpha = np.asarray(picture.getchannel("A")).T
    columns = -(-19 * 8 // max(alpha.shape[1], 1))
    head = np.packbits(alpha[:columns].ravel() & 1).tobytes()[:19]
    if head[:15] not in (b"stealth_pnginfo", b"stealth_pngcomp"):
        return {}
    length = int.from_bytes(head[15:19]) // 8
    if not 0 < length <= _LONGEST:
        return {}
    bits = alpha.ravel()[19 * 8 : (19 + length) * 8] & 1
    content = np.packbits(bits).tobytes()
    if head[:15].endswith(b"comp"):
        content = zlib.decompressobj(31).decompress(content, _LONGEST)
    return {"stealth": content.decode("utf-8", "replace")}
