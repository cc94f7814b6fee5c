"""Masks of COCO's instances: run-length codes and polygons, of one JSON or several."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as rle

from napari_ovam.datasets.class_lists import ListedClass
from napari_ovam.datasets.importers.sources import (
    Entry,
    ImportSourceError,
    Masks,
    Source,
)
from napari_ovam.images.files import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_NAMES = ("annotations*.json", "instances_*.json")
_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def open_coco(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open COCO's instances.

    Parameters
    ----------
    path
        The JSON, or a folder with annotations*.json or instances_*.json, in itself or
        in a folder annotations. Images are looked for beside it and in folders images
        and, for instances_train2017.json, train2017.
    classes
        Not used: the file has them.

    Raises
    ------
    ImportSourceError
        If there is no such file, or one is of another kind.
    """
    del classes
    files = [path] if path.is_file() else _jsons(path)
    if not files:
        raise ImportSourceError(f"there is no {' or '.join(_NAMES)} in {path}")
    found: dict[str, ListedClass] = {}
    entries = []
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            categories = {int(c["id"]): _listed(c) for c in content["categories"]}
            for entry in categories.values():
                found.setdefault(entry.name, entry)
            places = {name: i for i, name in enumerate(found, start=1)}
            by_category = {i: places[c.name] for i, c in categories.items()}
            entries += _entries(file, content, by_category)
        except _ERRORS as error:
            raise ImportSourceError(
                f"{file} is no file of COCO instances: {error!r}"
            ) from error
    return Source("coco", path, list(found.values()), entries)


def _jsons(path: Path) -> list[Path]:
    folders = [path, path / "annotations"]
    return sorted({f for each in folders for name in _NAMES for f in each.glob(name)})


def _listed(category: Mapping[str, Any]) -> ListedClass:
    color = category.get("color")
    return ListedClass(
        str(category["name"]).strip(),
        int(category["id"]),
        (int(color[0]), int(color[1]), int(color[2])) if color else None,
        bool(category.get("isthing", True)),
    )


def _entries(
    file: Path, content: Mapping[str, Any], places: Mapping[int, int]
) -> list[Entry]:
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    # Where no image has two of a class, these are masks of classes and no objects.
    several = any(
        len({a["category_id"] for a in each}) < len(each) for each in by_image.values()
    )
    folders = _image_folders(file)
    entries = []
    for image in content["images"]:
        name = str(image["file_name"])
        size = int(image["height"]), int(image["width"])
        read = partial(_read, by_image.get(image["id"], []), size, places, several)
        entries.append(Entry(Path(name).stem, _find(folders, name), read))
    return entries


def _image_folders(file: Path) -> list[Path]:
    split = file.stem.removeprefix("instances_").removeprefix("annotations_")
    bases = [file.parent, file.parent.parent]
    return [base / part for base in bases for part in ("", "images", split)]


def _find(folders: Sequence[Path], name: str) -> Path | None:
    """Return an image that a file names, if it is in one of the folders."""
    for folder in folders:
        path = folder / name
        # A file from anywhere must not reach out of its folder.
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None


def _read(
    annotations: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    places: Mapping[int, int],
    several: bool,
) -> Masks:
    """Draw the annotations of an image: crowds first, then the largest first."""
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise ImportSourceError(f"the image is said to be {size} pixels")
    labels = np.zeros(size, np.int32)
    objects = np.zeros(size, np.int32)
    drawn = []
    for annotation in annotations:
        try:
            mask = _mask(annotation.get("segmentation"), size)
            place = places[annotation["category_id"]]
        except _ERRORS as error:
            raise ImportSourceError(
                f"annotation {annotation.get('id')} cannot be drawn: {error}"
            ) from error
        drawn.append((not annotation.get("iscrowd"), -int(mask.sum()), place, mask))
    drawn.sort(key=lambda each: each[:2])
    for number, (_, _, place, mask) in enumerate(drawn, start=1):
        labels[mask] = place
        objects[mask] = number
    return Masks(labels, objects if several else None)


def _mask(code: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size
    if isinstance(code, list):
        rings = [_ring(ring, size) for ring in code]
        if not rings:
            raise ValueError("it has a box, but no mask")
        drawn = rle.decode(rle.merge(rle.frPyObjects(rings, height, width)))
        return np.asarray(drawn, bool)
    if not isinstance(code, dict) or tuple(code["size"]) != size:
        raise ValueError(f"its mask is no polygon and no code of {size} pixels")
    counts = code["counts"]
    if isinstance(counts, str):
        counts = _decompress(counts)
    runs = np.array(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"its runs do not add up to {height * width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((width, height)).T


def _ring(ring: Any, size: tuple[int, int]) -> list[float]:
    points = np.array(ring, float)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
        raise ValueError("a polygon is not x, y, x, y … of at least three points")
    # What draws it takes memory for each pixel of its border.
    if not (np.abs(points) <= 10 * max(size) + 1000).all():
        raise ValueError("a polygon reaches far out of the image")
    return [float(value) for value in points]


def _decompress(text: str) -> list[int]:
    """Return the runs of COCO's compressed code.

    Written here so that the runs are added up before anything is decoded. A number is
    groups of 5 bits, the lowest first, from character 48 on, with bit 32 set where
    more follow; from the third run on it is the difference to the run before the last.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("its code is broken")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        value, shift = 0, 0
    if shift:
        raise ValueError("its code is cut off")
    return runs
