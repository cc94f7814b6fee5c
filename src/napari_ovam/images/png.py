"""PNG images that say how they were made, in the text of the file.

Two chunks: `parameters`, the form of AUTOMATIC1111's web UI that many programs show,
and `ovam`, JSON in international text, the one that is read back.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin

from napari_ovam.base.atomic import replacing
from napari_ovam.images.files import ImageFileError, opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_KEY = "ovam"
# The types and the smallest and largest values that are believed when read.
_TEXTS = ("prompt", "negative_prompt", "model")
_NUMBERS: Mapping[str, tuple[type, float, float]] = {
    "seed": (int, 0, 2**63 - 1),
    "steps": (int, 1, 10_000),
    "guidance_scale": (float, 0, 1_000),
    "height": (int, 1, 65_536),
    "width": (int, 1, 65_536),
}


# Pillow stretches grey values of 2 and 4 bits to 0..255: by these.
_STRETCHED = {"L;2": 85, "L;4": 17}


def write_png(
    path: Path, image: NDArray[Any], settings: Mapping[str, Any] | None = None
) -> None:
    """Write pixels as PNG; a file of that name is replaced only by a whole new one.

    It raises `ValueError` if `settings` is not JSON, or the array is no such image.

    Parameters
    ----------
    path
        Where to.
    image
        (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.
    settings
        How it was made, as JSON: the fields of `GenerationSettings`, `model` and
        whatever else is to be known. None writes no text.
    """
    kinds = {2: (np.uint8, np.uint16), 3: (np.uint8,)}
    if image.dtype not in kinds.get(image.ndim, ()) or image.shape[2:] not in (
        (),
        (3,),
    ):
        raise ImageFileError(
            f"{path.name}: pixels are {image.shape} {image.dtype}; use (H, W) uint8 or "
            "uint16, or (H, W, 3) uint8"
        )
    text = PngImagePlugin.PngInfo()
    if settings is not None:
        try:
            content = json.dumps(dict(settings), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ImageFileError(
                f"settings of {path.name} are not JSON: {error}"
            ) from error
        # A lone surrogate has no UTF-8: JSON escapes it, here it becomes a "?".
        shown = format_infotext(settings).encode(errors="replace").decode()
        text.add_text("parameters", shown)
        text.add_itxt(_KEY, content)
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG", pnginfo=text)


def read_png_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings that `write_png` wrote, None where there are none.

    Files come from anywhere: text of other programs, too much of it, and values that
    no image can have been made with give None too.

    It raises `FileNotFoundError` if there is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with opened(path) as picture:
            text = picture.info.get(_KEY) if picture.format == "PNG" else None
        settings = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(settings, dict) or not isinstance(settings.get("prompt"), str):
        return None
    if any(not isinstance(settings.get(key, ""), str) for key in _TEXTS):
        return None
    if settings.get("seed", 0) is None:  # the only number that has no default
        return None
    for key, (kind, low, high) in _NUMBERS.items():
        value = settings.get(key)
        if value is None:
            continue
        allowed = (int, float) if kind is float else (int,)
        if isinstance(value, bool) or not isinstance(value, allowed):
            return None
        if not math.isfinite(value) or not low <= value <= high:
            return None
    return settings


def format_infotext(settings: Mapping[str, Any]) -> str:
    """Return settings in the form of AUTOMATIC1111's web UI."""
    lines = [str(settings.get("prompt", ""))]
    if settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    names = {"Steps": "steps", "CFG scale": "guidance_scale", "Seed": "seed"}
    values = {k: settings[v] for k, v in names.items() if settings.get(v) is not None}
    if settings.get("width") and settings.get("height"):
        values["Size"] = f"{settings['width']}x{settings['height']}"
    if settings.get("model"):
        values["Model"] = settings["model"]
    values["Version"] = "napari-ovam"
    lines.append(", ".join(f"{key}: {value}" for key, value in values.items()))
    return "\n".join(lines)


def check_exact(path: Path, picture: Image.Image) -> None:
    """Refuse a picture that was packed with losses, which blurs ids: by its content.

    Raises
    ------
    ImageFileError
        If it is one.
    """
    lossy = picture.format in ("JPEG", "MPO", "JPEG2000", "AVIF")
    if picture.format == "WEBP":
        lossy = b"VP8L" not in path.read_bytes()
    elif picture.format == "TIFF":
        lossy = picture.info.get("compression") in ("jpeg", "tiff_jpeg", "webp")
    if lossy:
        raise ImageFileError(
            f"{path.name} is a {picture.format} that blurs ids: save it as PNG"
        )


def stored_values(path: Path, picture: Image.Image) -> NDArray[Any]:
    """Return pixels that are not read yet as the file has them, (H, W) or (H, W, n).

    Pillow stretches grey of 2 and 4 bits, and what a PGM holds of fewer values than its
    bits have.

    It raises `ImageFileError` as from `check_exact`, and for 16 bits in several
    channels, of which Pillow keeps the upper halves.
    """
    check_exact(path, picture)
    tiles = getattr(picture, "tile", None) or [()]
    args = tiles[0][3] if len(tiles[0]) > 3 else ""
    stored, *more = args if isinstance(args, tuple) and args else [args]
    picture.load()
    pixels = np.asarray(picture)
    if pixels.ndim == 3 and ";16" in str(stored):
        raise ImageFileError(
            f"{path.name} has 16 bits in several channels: save it in one"
        )
    if picture.format == "PPM" and more and isinstance(more[0], int):
        top = 255 if pixels.dtype == np.uint8 else 65535
        pixels = (pixels.astype(np.int64) * more[0] + top // 2) // top
    return pixels // _STRETCHED[stored] if stored in _STRETCHED else pixels


def read_ids(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read class ids (H, W) from a grey or palette PNG of up to 16 bits.

    Of fewer than 8 bits a pixel, as programs that save room write them, the ids are the
    values that the file holds, not what they stand for as grey.

    It raises `ImageFileError` if it is missing, broken, or in colour.
    """
    with opened(path) as picture:
        ids = stored_values(path, picture)
        if picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            raise ImageFileError(
                f"{path} is in colour ({picture.mode}): labels are one channel of "
                "class ids"
            )
        ids = ids.astype(np.uint8) if ids.dtype == bool else ids
    if ids.min(initial=0) < 0 or ids.max(initial=0) > np.iinfo(np.uint16).max:
        raise ImageFileError(f"{path} holds ids beyond 65535: labels have 8 or 16 bits")
    return ids if ids.dtype == np.uint8 else ids.astype(np.uint16)


def as_ids(name: str, labels: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return labels (H, W) in 8 bits, or in 16 where an id needs them.

    It raises `ImageFileError` if they are no ids of 0 to 65535; `name` says whose they
    are.
    """
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ImageFileError(
            f"{name}: labels are {labels.shape} {labels.dtype}; use (H, W) integers"
        )
    smallest, largest = int(labels.min(initial=0)), int(labels.max(initial=0))
    if smallest < 0 or largest > np.iinfo(np.uint16).max:
        wrong = smallest if smallest < 0 else largest
        raise ImageFileError(f"{name}: {wrong} is no class id; ids are 0 to 65535")
    return labels.astype(np.uint8) if largest < 256 else labels.astype(np.uint16)
