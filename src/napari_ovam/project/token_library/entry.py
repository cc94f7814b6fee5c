"""What a token file says of itself, read without its embedding and without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from napari_ovam.images.overlay import MAP_COLOR, overlay

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_FORMAT = "napari-ovam token 1"
_PREVIEW = 128  # pixels, the longer side of each half


@dataclass(frozen=True)
class TokenEntry:
    """A token file of the library, as its head describes it."""

    path: Path
    # What the token is called, and what its optimization began with.
    name: str
    model: str = ""  # hash of the text encoder that it fits; "" if unknown
    phrase: str = ""
    # Shape of its embedding: (rows, text_dim).
    text_dim: int = 0
    rows: int = 0
    images: int = 0  # how many it was optimized on; 0 if unknown
    # Of its optimization, 0 to 1; on images left out where there were some. None if
    # unknown.
    iou: float | None = None
    date: str = ""  # when it was added, ISO 8601 in UTC; "" if unknown
    damaged: str = ""  # why the file cannot be read; empty if it can

    @property
    def preview(self) -> Path | None:
        """The picture beside it, if there is one."""
        path = self.path.with_suffix(".png")
        return path if path.is_file() else None


def read_entry(path: Path) -> TokenEntry:
    """Describe a token file by its head, without reading its embedding.

    A file that cannot be read, or is no token, is described as damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about: Mapping[str, str] = dict(file.metadata() or {})
            if about.get("format") != _FORMAT:
                raise ValueError(f"its format is {about.get('format')!r}")
            rows, text_dim = file.get_slice("embedding").get_shape()
        images, score = about.get("images", "0"), about.get("iou")
        return TokenEntry(
            path,
            about["name"],
            about["model"],
            _text(about.get("phrase", "")),
            text_dim,
            rows,
            int(images) if images.isdecimal() else 0,
            None if score is None else float(score),
            _text(about.get("date", "")),
        )
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        return TokenEntry(path, path.stem, damaged=str(error) or type(error).__name__)


def preview_picture(
    image: NDArray[np.uint8], values: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return a small picture of what a token finds: an image, and its map on it.

    It returns (h, 2w, 3) uint8, h and w up to 128.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    values
        The token's map on it, (H, W) from 0 to 1.
    """
    halves = []
    shown = overlay(image, None, {1: MAP_COLOR}, maps={1: values})
    for picture in (Image.fromarray(image), Image.fromarray(shown)):
        picture.thumbnail((_PREVIEW, _PREVIEW))
        halves.append(np.asarray(picture))
    return np.concatenate(halves, 1)


def _text(value: str) -> str:
    """Return a string as `save_token` wrote it: some are quoted as JSON."""
    try:
        loaded = json.loads(value)
    except ValueError:
        return value
    return loaded if isinstance(loaded, str) else value
