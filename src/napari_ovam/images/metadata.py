"""How an image was made, of what the tools for Stable Diffusion write into theirs.

Metadata is a suggestion by whoever wrote the file: every value is checked, and what
no image can have been made with is left out and named. The raw text is always kept.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.base.prompt_syntax import plain_prompt
from napari_ovam.images import metadata_formats as formats
from napari_ovam.images.files import MAX_PIXELS, is_tiff, opened, page_count
from napari_ovam.images.metadata_texts import (
    XMP,
    read_texts,
    read_tiff_texts,
    texts_inside,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.base.generation_settings import GenerationSettings

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
# The texts that count before others, in this order.
_FIRST = ("ovam", "parameters", "invokeai_metadata", "sd-metadata")


@dataclass(frozen=True)
class ImageMetadata:
    """How an image was made, as far as its file says: else "" or None."""

    tool: str = ""  # "AUTOMATIC1111", "Forge", "ComfyUI", "InvokeAI", "NovelAI" ...
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    sampler: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    # (H, W) in pixels that was asked for; the image may have been enlarged since.
    size: tuple[int, int] | None = None
    model: str = ""
    # Every text of the file by its name, whatever it says.
    raw: Mapping[str, str] = field(default_factory=dict)
    # What was not believed: the field, and why.
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

    def describe(self) -> str:
        """Return for a person how it was made, and what of it is not believed."""
        words = [f"Made by {self.tool or 'an unnamed tool'}"]
        if self.model:
            words.append(f"with {self.model}")
        if self.seed is not None:
            words.append(f"from seed {self.seed}")
        said = self.tool or self.model or self.prompt
        parts = [" ".join(words) + "."] if said else []
        if taken := plain_prompt(self.prompt)[1]:
            parts.append(
                f"Its prompt holds {', '.join(taken)[:200]}: other programs read that "
                "as weights, tags or parts, the model here as words."
            )
        if self.refused:
            wrong = "; ".join(f"{name}: {why}" for name, why in self.refused.items())
            parts.append(f"Not believed: {wrong}.")
        return " ".join(parts)

    def as_source(self, file: str) -> dict[str, Any]:
        """Return what is kept of the words of a file, as JSON: all, as they were."""
        settings = self.settings()
        told = {
            "file": file,
            "tool": self.tool,
            "model": self.model,
            "settings": None if settings is None else asdict(settings),
            "refused": dict(self.refused),
            "raw": dict(self.raw),
        }
        return {name: value for name, value in told.items() if value}


def read_metadata(path: str | Path) -> ImageMetadata:
    """Read how an image was made.

    PNG text of AUTOMATIC1111, Forge, ComfyUI, InvokeAI (old and new), napari-ovam and
    scripts that write JSON or a chunk a setting; EXIF of JPEG, WebP, AVIF and PNG.
    Nothing that a file holds makes it fail: what is not understood is in `raw`.

    It raises `ImageFileError` if there is no such file, or it is no picture or too
    large, as from `image_files.read`.
    """
    path = Path(path)
    page_count(path)  # what is no picture is named
    if is_tiff(path):
        raw = read_tiff_texts(path)
    else:
        with opened(path) as picture:
            raw = read_texts(picture)
    return _checked(_found(raw), raw)


def _found(raw: Mapping[str, str]) -> dict[str, Any]:
    """Return what the first text that says anything says, unchecked.

    Ours goes first, then what is written for AUTOMATIC1111's web UI, then ComfyUI's
    own and the rest as they stand in the file.
    """
    drawn = {name: text for name, text in raw.items() if _is_workflow(name, text)}
    first = {name: raw[name] for name in _FIRST if name in raw}
    rest = {n: text for n, text in raw.items() if n not in drawn and n not in XMP}
    workflow = next(iter(drawn.values()), "")
    texts = [*{**first, **rest}.items()]
    texts += [("XMP", text) for text in texts_inside(raw)]
    read_json = partial(formats.read_json, workflow=workflow)
    for name, text in [*texts, *drawn.items()]:
        for read in (formats.read_infotext, read_json, formats.read_dream):
            found: dict[str, Any] = {}
            with suppress(*formats.MALFORMED):
                found = read(text)
            if _says_something(found):
                return {**found, "tool": _tool(name, found, raw)}
    # One text a setting, as Easy Diffusion and scripts write it.
    found = formats.read_mapping({k: v for k, v in raw.items() if v[:1] != "{"})
    return found if _says_something(found) else {}


def _is_workflow(name: str, text: str) -> bool:
    return "workflow" in (name.lower(), text[:8].lower())


def _tool(name: str, found: Mapping[str, Any], raw: Mapping[str, str]) -> str:
    if name == "ovam":
        return "napari-ovam"
    if name == "invokeai_metadata":
        return "InvokeAI"
    xmp = (re.search(r"CreatorTool[>=\"']+([^<\"']+)", raw.get(n, "")) for n in XMP)
    written = (match[1] for match in xmp if match)
    software = raw.get("Software") or raw.get("EXIF Software")
    return found.get("tool") or software or next(written, "")


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
