"""The files of a project: where each is, and how labels are written and read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_ovam.images.files import PICTURE_SUFFIXES, ImageFileError, page_count
from napari_ovam.images.png import as_ids, read_ids, write_png

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_FOLDERS = ("images", "labels", "edits", "tokens", "traces")
_ABOUT = "labels"  # in the text of a label PNG
# Endings of pictures that people put beside others, and that are not opened.
_OTHERS = (".jpe", ".jfif", ".pnm", ".heic", ".heif", ".jxl", ".psd", ".svg", ".dng")


class ProjectFiles:
    """The places of files in a project folder; none needs to exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def image(self, name: str) -> Path:
        """Return the place of an image."""
        return self.path / "images" / f"{name}.png"

    def labels(self, name: str) -> Path:
        """Return the place of an image's labels."""
        return self.path / "labels" / f"{name}.png"

    def painted(self, name: str) -> Path:
        """Return the place of the mask of what a person decided."""
        return self.path / "edits" / f"{name}.png"

    def history(self, name: str) -> Path:
        """Return the place of what an image's labels came from."""
        return self.path / "history" / f"{name}.jsonl"

    def trace(self, name: str) -> Path:
        """Return the place of an image's trace."""
        return self.path / "traces" / f"{name}.safetensors"

    def token(self, file: str) -> Path:
        """Return the place of a token's file."""
        return self.path / "tokens" / file

    @property
    def object_token(self) -> Path:
        """The place of the token that finds any object."""
        return self.token("object.safetensors")  # those of classes begin with an id

    def make_folders(self, *, anew: bool) -> None:
        """Make the folders in the project's where they are missing.

        The project's own only where it is `anew`: if it was there, its disk is away.
        """
        for name in _FOLDERS:
            (self.path / name).mkdir(parents=anew, exist_ok=True)


def find_left_out(folder: Path, known: Container[str]) -> dict[str, str]:
    """Return which pictures in a project's `images` are none of its images, and why.

    `known` are the names of those that it has: they are not looked at again.
    """
    left_out: dict[str, str] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix == ".png":
            if path.stem not in known and (reason := _why_no_image(path)):
                left_out[path.name] = reason
        elif path.is_dir():
            left_out[path.name] = "it is a folder: put its pictures beside the others"
        elif path.suffix.casefold() in (*PICTURE_SUFFIXES, *_OTHERS):
            left_out[path.name] = (
                f"rename it to {path.stem}.png"
                if path.suffix.casefold() == ".png"
                else "a project's images are PNGs: load it, or use napari-ovam trace"
            )
    return left_out


def _why_no_image(path: Path) -> str:
    try:
        pages = page_count(path)
    except ImageFileError as error:
        return str(error)
    return "" if pages == 1 else f"it holds {pages} frames: save one of them as a PNG"


def write_labels(path: Path, ids: NDArray[Any], about: Mapping[str, Any]) -> str:
    """Write class ids (H, W) as PNG that says how they came; return their hash.

    The hash is of the pixels and in the file itself, so that both change at once.

    It raises `OSError` if they cannot be written; the old ones are there then.
    """
    digest = hash_ids(ids)
    write_png(path, as_ids(path.name, ids), {_ABOUT: {**about, "sha256": digest}})
    return digest


def read_about_labels(path: Path) -> dict[str, Any]:
    """Return what `write_labels` wrote beside the pixels; {} if it did not."""
    try:
        with Image.open(path) as picture:
            text = picture.info.get("ovam")
        content = json.loads(text) if isinstance(text, str) else None
    except (OSError, SyntaxError, ValueError, RecursionError):
        return {}
    about = content.get(_ABOUT) if isinstance(content, dict) else None
    return about if isinstance(about, dict) else {}


def hash_ids(ids: NDArray[Any]) -> str:
    """Return the SHA-256 of class ids: shape, then 16-bit little-endian pixels."""
    head = f"{ids.shape[0]}x{ids.shape[1]}:".encode()
    return sha256(head + ids.astype("<u2").tobytes()).hexdigest()


def replace_ids(
    ids: NDArray[Any], changes: Mapping[int, int]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return class ids (H, W) of which some turn into others; the rest stays."""
    table = np.arange(1 << 16, dtype=np.uint16)
    for old, new in changes.items():
        table[old] = new
    return as_ids("labels", table[ids])


def read_labels(
    path: Path, changes: Mapping[int, int]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read class ids (H, W), with those of removed classes as they are now.

    It raises `ImageFileError` if the file is missing, broken, or in colour.
    """
    ids = read_ids(path)
    return replace_ids(ids, changes) if changes else ids


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
