"""Datumaro's own format: a JSON for each subset, pictures beside or below them.

Masks and polygons are read.
"""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.datasets.class_lists import ListedClass, as_color, plain, whole
from napari_ovam.datasets.importers.annotated import (
    Annotated,
    AnnotationFile,
    draw_outline,
    read_json,
)
from napari_ovam.datasets.importers.coco_masks import decode
from napari_ovam.datasets.importers.named_pictures import path_of, read_size
from napari_ovam.datasets.importers.shapes import ERRORS, Size, exact
from napari_ovam.datasets.importers.source import ImportSourceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def read(root: Path, place: str) -> AnnotationFile:
    """Read a JSON of Datumaro.

    It raises `ImportSourceError` if it is none.
    """
    content = read_json(root / place)
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("items"), list)
        or not isinstance(content.get("categories"), dict)
    ):
        raise ImportSourceError("it has not the lists items and categories")
    file = AnnotationFile(place, content)
    names = _read_categories(content["categories"], file)
    subset = PurePosixPath(place).stem
    bad = 0
    for item in content["items"]:
        name = _picture_of(item, subset)
        if name:
            file.pictures.append(_read_item(item, name, names))
        else:
            bad += 1
    if bad:
        file.problems.append(f"{bad} items have neither an id nor a picture")
    return file


def _read_categories(
    categories: dict[str, Any], file: AnnotationFile
) -> dict[int | None, str]:
    """Add the classes to a file; return their names by their numbers."""
    about = categories.get("label")
    listed = about.get("labels") if isinstance(about, dict) else None
    colors: dict[int | None, tuple[int, int, int]] = {}
    masks = categories.get("mask")
    for entry in (masks.get("colormap") or ()) if isinstance(masks, dict) else ():
        if isinstance(entry, dict) and (color := as_color([*map(entry.get, "rgb")])):
            colors[whole(entry.get("label_id"))] = color
    names: dict[int | None, str] = {}
    for number, entry in enumerate(listed if isinstance(listed, list) else ()):
        try:
            names[number] = name = plain(entry["name"])
        except ERRORS:
            file.problems.append(f"label {number} has no name")
            continue
        file.classes.append(ListedClass(name, color=colors.get(number)))
    return names


def _picture_of(item: Any, subset: str) -> str:
    """Return the path of an item's picture; its id where it names none."""
    if not isinstance(item, dict):
        return ""
    media = item.get("image") or item.get("media")
    path = media.get("path") if isinstance(media, dict) else None
    name = path if isinstance(path, str) and path.strip() else item.get("id")
    if not isinstance(name, str | int) or not str(name).strip():
        return ""
    # Pictures of a subset are in its folder, which the path does not say.
    return path_of(f"{subset}/{name}" if not str(name).startswith("/") else str(name))


def _read_item(
    item: dict[str, Any], name: str, names: dict[int | None, str]
) -> Annotated:
    media = item.get("image") or item.get("media")
    size = media.get("size") if isinstance(media, dict) else None
    known = read_size(*size) if isinstance(size, list) and len(size) == 2 else None
    about = Annotated(name, known, record=item)
    annotations = item.get("annotations")
    about.container = annotations if isinstance(annotations, list) else None
    for number, each in enumerate(about.container or ()):
        kind = each.get("type") if isinstance(each, dict) else None
        if kind not in ("mask", "polygon"):
            counts = about.whole if kind in ("label", "caption") else about.others
            counts[f"annotations of the kind {str(kind)[:40]!r}"] += 1
            continue
        about.add(
            names.get(whole(each.get("label_id"))),
            f"#{number} ({kind})",
            partial(exact(_decode) if kind == "mask" else draw_points, each),
            group=whole(each.get("group")) or None,  # 0 is none
            order=whole(each.get("z_order")) or 0,
            record=each,
        )
    return about


def _decode(each: dict[str, Any], size: Size) -> NDArray[np.bool_]:
    return decode(each["rle"], size)


def draw_points(
    each: dict[str, Any], size: Size
) -> tuple[NDArray[np.bool_], Sequence[str]]:
    """Return the mask of a polygon, and what is to be said of it."""
    points = np.array(each.get("points"), float)
    if points.ndim != 1 or points.size % 2:
        raise ValueError("its points are not x, y, x, y …")
    return draw_outline(points.reshape(-1, 2), size)
