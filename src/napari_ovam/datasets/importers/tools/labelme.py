"""LabelMe: a JSON for each picture."""

from __future__ import annotations

import base64
import posixpath
from functools import partial
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.datasets.class_lists import ListedClass, plain, whole
from napari_ovam.datasets.exporters.tools.labelme import decode_shape
from napari_ovam.datasets.importers.coco import path_of
from napari_ovam.datasets.importers.search import PICTURES
from napari_ovam.datasets.importers.shapes import Shape, Size, exact
from napari_ovam.datasets.importers.source import (
    UNSURE,
    ImportSourceError,
    Source,
)
from napari_ovam.datasets.importers.tools.annotated import (
    Annotated,
    AnnotationFile,
    draw_outline,
    open_files,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FORM = "labelme"
SPECIAL = {"__ignore__": UNSURE, "_background_": 0}
"""Labels with a meaning of their own, as LabelMe's own converters take them."""


def open_labelme(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open LabelMe's JSONs: masks and polygons.

    It raises `ImportSourceError` if there is none.

    Parameters
    ----------
    path
        A JSON, or a folder with several; pictures are beside them, where `imagePath`
        says, or in them.
    classes
        Not used: the files have them.
    """
    del classes
    return open_files(FORM, path, ".json", read_labelme, together=True)


def read_labelme(root: Path, place: str) -> AnnotationFile:
    """Read a JSON of LabelMe.

    It raises `ImportSourceError` if it is none.
    """
    content = read_json(root / place)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ImportSourceError("it has no list of shapes")
    file = AnnotationFile(place, content, special=SPECIAL)
    labels: dict[str, ListedClass] = {}
    height, width = (whole(content.get(f"image{k}")) or 0 for k in ("Height", "Width"))
    about = Annotated(
        _name(root, place, content),
        (height, width) if height > 0 and width > 0 else None,
        record=content,
        container=content["shapes"],
    )
    if isinstance(content.get("imageData"), str) and content["imageData"]:
        about.read_bytes = partial(_embedded, content)
    unnamed = 0
    for number, shape in enumerate(content["shapes"], start=1):
        if not isinstance(shape, dict):
            about.others["entries of another kind"] += 1
            continue
        kind = shape.get("shape_type") or "polygon"  # as LabelMe takes none for
        if kind not in ("mask", "polygon"):
            about.others[f"shapes of the kind {str(kind)[:40]!r}"] += 1
            continue
        try:
            name = plain(shape.get("label"))
        except ValueError:
            unnamed += 1
            continue
        if name not in SPECIAL:
            labels.setdefault(name, ListedClass(name))
        about.shapes.append(
            Shape(
                f"#{number} ({kind})",
                name,
                partial(exact(decode_shape) if kind == "mask" else draw_points, shape),
                _group(shape),
                record=shape,
            )
        )
    if unnamed:
        about.problems.append(f"{unnamed} shapes without a label are left out")
    file.pictures, file.classes = [about], list(labels.values())
    return file


def _group(shape: dict[str, Any]) -> Any:
    group = shape.get("group_id")
    return group if isinstance(group, int | str) else None


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
    """Return the mask of a polygon, and what is to be said of it.

    It raises `ValueError` if it is none.
    """
    points = np.array(shape.get("points"), float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError("its points are not [[x, y], [x, y] …]")
    return draw_outline(points, size)
