"""Datumaro: `annotations/*.json`."""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.datasets.class_lists import ListedClass, plain, whole
from napari_ovam.datasets.importers.coco import path_of
from napari_ovam.datasets.importers.coco_masks import decode
from napari_ovam.datasets.importers.shapes import ERRORS, Shape, Size, exact
from napari_ovam.datasets.importers.source import ImportSourceError, Source
from napari_ovam.datasets.importers.tools.annotated import (
    Annotated,
    AnnotationFile,
    draw_outline,
    open_files,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FORM = "datumaro"


def open_datumaro(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open a data set in Datumaro's own format: masks and polygons.

    It raises `ImportSourceError` if there is no such JSON.

    Parameters
    ----------
    path
        A JSON, or a folder with one for each subset; pictures beside or below it.
    classes
        Not used: the file has them.
    """
    del classes
    return open_files(FORM, path, ".json", read_datumaro)


def read_datumaro(root: Path, place: str) -> AnnotationFile:
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
) -> dict[int, str]:
    """Add the classes to a file; return their names by their numbers."""
    about = categories.get("label")
    listed = about.get("labels") if isinstance(about, dict) else None
    colors: dict[int | None, tuple[int, int, int]] = {}
    masks = categories.get("mask")
    for entry in (masks.get("colormap") or ()) if isinstance(masks, dict) else ():
        try:
            color = int(entry["r"]), int(entry["g"]), int(entry["b"])
            if all(0 <= value <= 255 for value in color):
                colors[whole(entry["label_id"])] = color
        except ERRORS:
            continue
    names: dict[int, str] = {}
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


def _read_item(item: dict[str, Any], name: str, names: dict[int, str]) -> Annotated:
    media = item.get("image") or item.get("media")
    size = media.get("size") if isinstance(media, dict) else None
    known = [whole(v) or 0 for v in size] if isinstance(size, list) else []
    about = Annotated(
        name,
        (known[0], known[1]) if len(known) == 2 and min(known) > 0 else None,
        record=item,
    )
    annotations = item.get("annotations")
    about.container = annotations if isinstance(annotations, list) else None
    unnamed = 0
    for number, each in enumerate(about.container or ()):
        kind = each.get("type") if isinstance(each, dict) else None
        if kind not in ("mask", "polygon"):
            counts = about.whole if kind in ("label", "caption") else about.others
            counts[f"annotations of the kind {str(kind)[:40]!r}"] += 1
            continue
        label = names.get(whole(each.get("label_id")) or 0)
        if whole(each.get("label_id")) is None or label is None:
            unnamed += 1
            continue
        about.shapes.append(
            Shape(
                f"#{number} ({kind})",
                label,
                partial(exact(_decode) if kind == "mask" else draw_points, each),
                whole(each.get("group")) or None,  # 0 is none
                whole(each.get("z_order")) or 0,
                each,
            )
        )
    if unnamed:
        about.problems.append(
            f"{unnamed} annotations whose label is not listed are left out"
        )
    return about


def _decode(each: dict[str, Any], size: Size) -> NDArray[np.bool_]:
    return decode(each["rle"], size)


def draw_points(
    each: dict[str, Any], size: Size
) -> tuple[NDArray[np.bool_], Sequence[str]]:
    """Return the mask of a polygon, and what is to be said of it.

    It raises `ValueError` if it is none.
    """
    points = np.array(each.get("points"), float)
    if points.ndim != 1 or points.size % 2:
        raise ValueError("its points are not x, y, x, y …")
    return draw_outline(points.reshape(-1, 2), size)
