"""Masks of COCO's annotations: polygons, and run-length codes of both kinds."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pycocotools import mask as rle

from napari_ovam.base.ids import IGNORE
from napari_ovam.datasets.class_lists import whole
from napari_ovam.datasets.importers.source import (
    UNSURE,
    ImportSourceError,
    Masks,
    shorten,
)
from napari_ovam.images.files import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class _Drawn(NamedTuple):
    """An annotation as it is drawn: what is later in the order lies above."""

    known: bool
    single: bool
    smallness: int
    which: Any
    place: int
    box: tuple[slice, slice]
    mask: NDArray[np.bool_]


def draw_all(
    annotations: Sequence[Mapping[str, Any]] | None,
    size: tuple[int, int] | None,
    places_of: Callable[[Any], Sequence[int]],
    *,
    names: Sequence[str],
    several: bool,
) -> Masks:
    """Draw the annotations of an image: crowds first, then the largest first.

    It raises `ImportSourceError` if there are annotations, and none of them can be
    drawn.

    Parameters
    ----------
    annotations
        As in the JSON, each with an id. None where nobody knows which they are.
    size
        (H, W), or None where nobody says.
    places_of
        Returns the places of a category: none, one, or several that it could be.
    names
        The classes, in the order of their places.
    several
        Whether an annotation is an object, and not all that there is of its class.
    """
    if annotations is None:
        raise ImportSourceError("its annotations cannot be told by their image_id")
    if size is None:
        raise ImportSourceError("neither its picture nor the JSON says how large it is")
    if size[0] * size[1] > MAX_PIXELS:
        raise ImportSourceError(f"the image is said to be {size} pixels")
    wrong: dict[str, list[Any]] = defaultdict(list)
    drawn = [d for a in annotations if (d := _drawn(a, size, places_of, wrong))]
    if annotations and not any(each.known for each in drawn):
        raise ImportSourceError("; ".join(_say(wrong)))
    drawn.sort(key=lambda each: each[:3])
    labels = np.zeros(size, np.int32)
    objects = np.zeros(size, np.int32)
    for number, each in enumerate(drawn, start=1):
        labels[each.box][each.mask] = each.place
        objects[each.box][each.mask] = number
    seen = np.bincount(objects.ravel(), minlength=len(drawn) + 1)
    for number, each in enumerate(drawn, start=1):
        if each.known and not seen[number]:
            what = f"wholly covered by others ({names[each.place - 1]})"
            wrong[what].append(each.which)
    return Masks(labels, objects if several else None, tuple(_say(wrong)))


def _drawn(
    annotation: Mapping[str, Any],
    size: tuple[int, int],
    places_of: Callable[[Any], Sequence[int]],
    wrong: dict[str, list[Any]],
) -> _Drawn | None:
    """Return an annotation as it is drawn; say what of it is wrong."""
    which, category = annotation["id"], annotation.get("category_id")
    try:
        mask, bad = draw(annotation, size)
    except (*ERRORS, OverflowError) as error:
        why = str(error) if isinstance(error, ValueError) else repr(error)
        wrong[why].append(which)
        return None
    for why in bad:
        wrong[f"drawn without a part: {why}"].append(which)
    places = places_of(category)
    if len(places) != 1:
        many = "several" if places else "none"
        what = f"the category {category!r} is {many} of the list"
        wrong[f"{what}; its pixels are unsure ({IGNORE})"].append(which)
    known = len(places) == 1
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return _Drawn(
        known,
        annotation.get("iscrowd") not in (1, "1"),
        -int(mask.sum()),
        which,
        places[0] if known else UNSURE,
        box,
        mask[box].copy(),  # of a large image with many annotations
    )


def _say(wrong: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return a sentence for each thing that is wrong, with the annotations' ids."""
    return [
        f"{'annotation' if len(ids) == 1 else f'{len(ids)} annotations'} "
        f"{shorten(ids)}: {why}"
        for why, ids in wrong.items()
    ]


def draw(
    annotation: Mapping[str, Any], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return the mask of an annotation, (H, W), and what is wrong with its parts.

    It raises `ValueError` if it has none, or nothing of it can be drawn.
    """
    code = annotation.get("segmentation")
    if not code:
        what = [k for k in ("bbox", "keypoints") if annotation.get(k)]
        has = " and ".join("a box" if k == "bbox" else k for k in what)
        raise ValueError(f"no mask{f', only {has}' if has else ' is given'}")
    mask = np.zeros(size, bool)
    bad = []
    for part in _parts(code):
        try:
            mask |= (
                _code(part, size) if isinstance(part, dict) else _polygon(part, size)
            )
        except ValueError as error:
            bad.append(str(error))
    if not mask.any():
        raise ValueError(bad[0] if bad else "its mask holds no pixel of the picture")
    return mask, bad


def _parts(code: Any) -> list[Any]:
    """Return the polygons and codes of a segmentation, however deep they are nested."""
    if isinstance(code, dict):
        return [code]
    if not isinstance(code, list):
        raise ValueError("its mask is no polygon and no run-length code")
    if all(isinstance(value, int | float) for value in code):
        return [code]
    points = [p for p in code if isinstance(p, list) and len(p) == 2]
    if len(points) == len(code) and all(
        isinstance(value, int | float) for point in points for value in point
    ):  # [[x, y], [x, y] ...], or polygons of one point, which cannot be drawn
        return [[value for point in points for value in point]]
    return [part for each in code for part in _parts(each)]


def _polygon(ring: list[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    points = np.array(ring, float)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
        raise ValueError("a polygon is not x, y, x, y … of at least three points")
    if (points % 1).any() and points.min() >= 0 and points.max() <= 1 < min(size):
        raise ValueError("a polygon is within the first pixel: in shares of the sides?")
    # What draws it takes memory for each pixel of its border.
    if not (np.abs(points) <= 10 * max(size) + 1000).all():
        raise ValueError("a polygon reaches far out of the image")
    drawn = rle.decode(rle.merge(rle.frPyObjects([points.tolist()], *size)))
    return np.asarray(drawn, bool)


def _code(code: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size
    said = code.get("size")
    if not isinstance(said, list) or tuple(map(whole, said)) != size:
        raise ValueError(f"its mask is of {said} pixels and not of {size}")
    counts = code["counts"]
    if isinstance(counts, str):
        counts = _decompress(counts)
    runs = np.array([whole(count) for count in counts], np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"its runs do not add up to {height * width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((width, height)).T


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
