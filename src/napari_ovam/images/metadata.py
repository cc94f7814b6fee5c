"""How an image was made, of what the tools for Stable Diffusion write into theirs.

Metadata is a suggestion by whoever wrote the file: every value is checked, and what
no image can have been made with is left out and named. The raw text is always kept.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_ovam.images import metadata_formats as formats
from napari_ovam.images.files import MAX_PIXELS, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from PIL import Image

    from napari_ovam.base.generation_settings import GenerationSettings

    Reader = Callable[[str], dict[str, Any]]

_LONGEST_TEXT = 100_000
_LONGEST_NAME = 500
# The smallest and the largest value that is believed.
_LIMITS: Mapping[str, tuple[type, float, float]] = {
    "seed": (int, 0, 2**63 - 1),
    "steps": (int, 1, 1000),
    "guidance_scale": (float, 0, 100),
    "width": (int, 1, 16_384),
    "height": (int, 1, 16_384),
}
# Tags of EXIF that hold text: ImageDescription, Make, Model, Software.
_EXIF_TEXTS = {
    0x010E: "EXIF ImageDescription",
    0x010F: "EXIF Make",
    0x0110: "EXIF Model",
    0x0131: "EXIF Software",
}
_NO_TEXT = ("exif", "icc_profile", "transparency", "compression", "version", "mp")
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286


@dataclass(frozen=True)
class ImageMetadata:
    """How an image was made, as far as its file says.

    Attributes
    ----------
    tool
        "AUTOMATIC1111", "Forge", "ComfyUI", "InvokeAI", "NovelAI", "napari-ovam" and
        so on; "" if it is not known.
    prompt, negative_prompt, sampler, model
        As the tool names them, "" if not known.
    seed, steps, guidance_scale
        None if not known.
    size
        (H, W) in pixels that was asked for; the image may have been enlarged since.
    raw
        Every text of the file by its name, whatever it says.
    refused
        What was not believed: the field, and why.
    """

    tool: str = ""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    sampler: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    size: tuple[int, int] | None = None
    model: str = ""
    raw: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> GenerationSettings | None:
        """Return settings to fill a form with, None without a prompt.

        What is not known is the model's default, and an unknown seed 0. Whether a
        model takes them is checked by `generate`.
        """
        from napari_ovam.base.generation_settings import GenerationSettings

        if not self.prompt.strip():
            return None
        height, width = self.size or (None, None)
        return GenerationSettings(
            self.prompt,
            self.negative_prompt,
            self.seed or 0,
            self.steps,
            self.guidance_scale,
            height,
            width,
        )


def read_metadata(path: str | Path) -> ImageMetadata:
    """Read how an image was made.

    PNG text of AUTOMATIC1111, Forge, ComfyUI, InvokeAI (old and new), napari-ovam and
    scripts that write JSON or a chunk a setting; EXIF of JPEG, WebP, AVIF and PNG.
    Nothing that a file holds makes it fail: what is not understood is in `raw`.

    Raises
    ------
    ImageFileError
        If there is no such file, or it is no picture or too large, as from
        `image_files.read`.
    """
    with opened(path) as picture:
        raw = _texts(picture)
    return _checked(_found(raw), raw)


def _readers(raw: Mapping[str, str]) -> Iterator[tuple[str, Reader, str]]:
    """Yield (tool, "" for the reader's own; reader; text), the most telling first."""
    for name, tool, read in (
        ("ovam", "napari-ovam", formats.json_text),
        ("parameters", "", formats.infotext),
        ("EXIF UserComment", "", formats.infotext),
        ("comment", "", formats.infotext),
        ("invokeai_metadata", "", formats.invokeai),
        ("sd-metadata", "", formats.invokeai_2),
        ("Dream", "", formats.dream),
        ("prompt", "", formats.comfyui),
    ):
        if name in raw:
            yield tool, read, raw[name]
    for text in raw.values():
        if text.startswith("prompt:{"):  # ComfyUI's EXIF in WebP
            yield "", formats.comfyui, text.removeprefix("prompt:")
    software = raw.get("Software", "")
    for text in raw.values():
        yield software, formats.json_text, text


def _found(raw: Mapping[str, str]) -> dict[str, Any]:
    """Return what the first reader that finds anything has found, unchecked."""
    for tool, read, text in _readers(raw):
        found: dict[str, Any] = {}
        with suppress(*formats.MALFORMED):
            found = read(text)
        if _says_something(found):
            return {**found, "tool": tool or found.get("tool")}
    # One text a setting, as Easy Diffusion and scripts write it.
    found = formats.mapping({k: v for k, v in raw.items() if v[:1] != "{"})
    return found if _says_something(found) else {}


def _says_something(found: Mapping[str, Any]) -> bool:
    values = (found.get(name) for name in ("prompt", "seed", "steps"))
    return any(isinstance(v, (str, int, float)) and v != "" for v in values)


def _checked(found: Mapping[str, Any], raw: Mapping[str, str]) -> ImageMetadata:
    refused: dict[str, str] = {}
    checked: dict[str, Any] = {
        name: _text(name, found.get(name), refused)
        for name in ("tool", "prompt", "negative_prompt", "sampler", "model")
    }
    for name in _LIMITS:
        checked[name] = _number(name, found.get(name), refused)
    height, width = checked.pop("height"), checked.pop("width")
    size = None if height is None or width is None else (height, width)
    if size is not None and math.prod(size) > MAX_PIXELS:
        refused["size"] = f"{width}x{height} is more than {MAX_PIXELS} pixels"
        size = None
    return ImageMetadata(**checked, size=size, raw=raw, refused=refused)


def _text(name: str, value: Any, refused: dict[str, str]) -> str:
    if value is None:
        return ""
    most = _LONGEST_TEXT if "prompt" in name else _LONGEST_NAME
    if not isinstance(value, str) or len(value) > most:
        refused[name] = f"it is no text of at most {most} characters"
        return ""
    # Control characters and halves of surrogates break labels and files elsewhere.
    printable = (c if c.isprintable() or c in "\n\t" else " " for c in value)
    return "".join(printable).strip()


def _number(name: str, value: Any, refused: dict[str, str]) -> float | None:
    if value is None or value == "":
        return None
    kind, low, high = _LIMITS[name]
    number: float | None = None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = _integer(value) if kind is int else float(value)
    if number is None or not low <= number <= high:
        wanted = "an integer" if kind is int else "a number"
        refused[name] = f"{str(value)[:40]!r} is not {wanted} from {low} to {high}"
        return None
    return number


def _integer(value: float | str) -> int:
    """Return a whole number exactly: a float would lose the last digits of a seed."""
    whole = int(value)
    if not isinstance(value, str) and whole != value:
        raise ValueError("not a whole number")
    return whole


def _texts(picture: Image.Image) -> dict[str, str]:
    """Return every text of a picture; parts that are broken are left out."""
    raw = {
        key: _decoded(value)
        for key, value in picture.info.items()
        if isinstance(key, str)
        and isinstance(value, (str, bytes))
        and key not in _NO_TEXT
    }
    if picture.format == "PNG":
        # Text may come after the pixels: they have to be read to get there.
        with suppress(*formats.MALFORMED, OSError, SyntaxError, MemoryError):
            picture.load()
            raw |= {k: str(v) for k, v in picture.text.items()}  # type: ignore[attr-defined]
    with suppress(*formats.MALFORMED, OSError, SyntaxError, ArithmeticError):
        exif = picture.getexif()
        raw |= {
            name: _decoded(exif[tag])
            for tag, name in _EXIF_TEXTS.items()
            if tag in exif
        }
        comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
        if comment:
            raw["EXIF UserComment"] = _user_comment(comment)
    return raw


def _decoded(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0")
    return str(value)


def _user_comment(value: Any) -> str:
    """Decode an EXIF UserComment: eight bytes that name the encoding, then the text.

    "UNICODE" is UTF-16 of either byte order (piexif writes big-endian). Characters
    below 256 have a zero as their higher byte: which of the two it is shows the order.
    """
    if not isinstance(value, bytes):
        return str(value)
    code, text = value[:8], value[8:]
    if not code.startswith(b"UNICODE"):
        named = code.rstrip(b"\0 ") in (b"ASCII", b"JIS", b"")
        return _decoded(text if named else value).strip("\0 ")
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace").strip("\0 ")
    little = text[1::2].count(0) > text[::2].count(0)
    return text.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\0 ")
