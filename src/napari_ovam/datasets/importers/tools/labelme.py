"""LabelMe: a JSON for each picture, beside or in it, or where `imagePath` says.

Masks and polygons are read.
"""

from __future__ import annotations

import base64
import posixpath
from functools import partial
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.datasets.exporters.tools.labelme import decode_shape
from napari_ovam.datasets.importers.annotated import (
    Annotated,
    AnnotationFile,
    draw_outline,
    read_json,
)
from napari_ovam.datasets.importers.named_pictures import path_of, read_size
from napari_ovam.datasets.importers.search import PICTURES
from napari_ovam.datasets.importers.shapes import Size, exact
from napari_ovam.datasets.importers.source import UNSURE, ImportSourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.datasets.class_lists import ListedClass

SPECIAL = {"__ignore__": UNSURE, "_background_": 0}
"""Labels with a meaning of their own, as LabelMe's own converters take them."""


def read(root: Path, place: str) -> AnnotationFile:
    """Read a JSON of LabelMe.

    It raises `ImportSourceError` if it is none.
    """
    content = read_json(root / place)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ImportSourceError("it has no list of shapes")
    file = AnnotationFile(place, content, special=SPECIAL)
    labels: dict[str, ListedClass] = {}
    about = Annotated(
        _name(root, place, content),
        read_size(content.get("imageHeight"), content.get("imageWidth")),
        record=content,
        container=content["shapes"],
    )
    if isinstance(content.get("imageData"), str) and content["imageData"]:
        about.read_bytes = partial(_embedded, content)
    for number, shape in enumerate(content["shapes"], start=1):
        if not isinstance(shape, dict):
            about.others["entries of another kind"] += 1
            continue
        kind = shape.get("shape_type") or "polygon"  # as LabelMe takes none for
        if kind not in ("mask", "polygon"):
            about.others[f"shapes of the kind {str(kind)[:40]!r}"] += 1
            continue
        group = shape.get("group_id")
        about.add(
            shape.get("label"),
            f"#{number} ({kind})",
            partial(exact(decode_shape) if kind == "mask" else draw_points, shape),
            labels=labels,
            group=group if isinstance(group, int | str) else None,
            record=shape,
        )
    file.pictures = [about]
    file.classes = [each for each in labels.values() if each.name not in SPECIAL]
    return file


def _name(root: Path, place: str, content: dict[str, Any]) -> str:
    """Return the place of the picture of a JSON, as far as it is known."""
    said = content.get("imagePath")
    folder = posixpath.dirname(place)
    name = str(said).replace("\\", "/") if isinstance(said, str) and said else ""
    within = posixpath.normpath(posixpath.join(folder, name)) if name else ""
    if not name or name.startswith("/") or within.startswith(".."):
        within = posixpath.join(folder, path_of(name or Path(place).stem))
    for candidate in (within, _beside(root, place)):
        if candidate and (root / candidate).is_file():
            return candidate
    return within


def _beside(root: Path, place: str) -> str:
    """Return the only picture that is called as a JSON is, "" if there is none."""
    json = root / place
    found = [
        file.name
        for file in json.parent.glob(f"{escape(json.stem)}.*")
        if file.suffix.lower() in PICTURES
    ]
    return posixpath.join(posixpath.dirname(place), found[0]) if len(found) == 1 else ""


def _embedded(content: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(content["imageData"])
    except ValueError as error:
        raise ImportSourceError(f"its imageData is no base64: {error}") from error


def draw_points(
    shape: dict[str, Any], size: Size
) -> tuple[NDArray[np.bool_], Sequence[str]]:
    """Return the mask of a polygon, and what is to be said of it."""
    return draw_outline(shape.get("points"), size)
