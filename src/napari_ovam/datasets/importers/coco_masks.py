"""Masks of COCO's annotations: polygons, and run-length codes of both kinds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as rle

from napari_ovam.base.ids import IGNORE
from napari_ovam.datasets.class_lists import whole
from napari_ovam.datasets.importers.shapes import (
    Drawn,
    Shape,
    Wrong,
    as_masks,
    check_drawable,
    draw_shape,
    no_wrong,
    say,
)
from napari_ovam.datasets.importers.source import UNSURE, ImportSourceError, Masks
from napari_ovam.datasets.mask_codes import decode_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray


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
        As in the JSON. None where nobody knows which they are.
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
    size = check_drawable(size)
    wrong = no_wrong()
    drawn = draw_annotations(annotations, size, places_of, wrong)
    if annotations and all(each.place == UNSURE for each in drawn):
        raise ImportSourceError("; ".join(say(wrong)))
    return as_masks(in_order(drawn), size, names, wrong, several=several)


def draw_annotations(
    annotations: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    places_of: Callable[[Any], Sequence[int]],
    wrong: Wrong,
) -> list[Drawn]:
    """Return annotations as they are drawn, in the order of the JSON."""
    return [d for a in annotations if (d := _drawn(a, size, places_of, wrong))]


def in_order(drawn: Sequence[Drawn]) -> list[Drawn]:
    """Return annotations with those that lie above later: crowds, then by size."""
    return sorted(drawn, key=_depth)


def _depth(each: Drawn) -> tuple[bool, bool, int]:
    single = each.record.get("iscrowd") not in (1, "1")
    return each.place != UNSURE, single, -int(each.mask.sum())


def _drawn(
    annotation: Mapping[str, Any],
    size: tuple[int, int],
    places_of: Callable[[Any], Sequence[int]],
    wrong: Wrong,
) -> Drawn | None:
    """Return an annotation as it is drawn; say what of it is wrong."""
    which, category = annotation.get("id"), annotation.get("category_id")
    shape = Shape(which, "", partial(draw, annotation), record=annotation)
    drawn = draw_shape(shape, size, wrong)
    if drawn is None:
        return None
    places = places_of(category)
    if len(places) == 1:
        return drawn._replace(place=places[0])
    many = "several" if places else "none"
    what = f"the category {category!r} is {many} of the list"
    wrong[f"{what}; its pixels are unsure ({IGNORE})"].append(which)
    return drawn._replace(place=UNSURE)


def draw(
    annotation: Mapping[str, Any], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return the mask of an annotation, (H, W), and what is wrong with its parts.

    It raises `ValueError` if it has none, or no part of it can be drawn.
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
            read = decode if isinstance(part, dict) else draw_polygon
            mask |= read(part, size)
        except ValueError as error:
            bad.append(str(error))
    if bad and not mask.any():
        raise ValueError(bad[0])
    return mask, [f"drawn without a part: {why}" for why in bad]


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


def draw_polygon(ring: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a polygon, (H, W), as pycocotools draws it: even-odd.

    It raises `ValueError` if it is none of a picture of that size.

    Parameters
    ----------
    ring
        x, y, x, y … in pixels.
    size
        (H, W).
    """
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


def decode(code: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a run-length code, (H, W).

    It raises `ValueError` if it is broken, or of another size.
    """
    height, width = size
    said = code.get("size")
    if not isinstance(said, list) or tuple(map(whole, said)) != size:
        raise ValueError(f"its mask is of {said} pixels and not of {size}")
    counts = code["counts"]
    if isinstance(counts, str):
        counts = _decompress(counts)
    # None, as of no number, is refused by NumPy
    runs: list[Any] = [whole(count) for count in counts]
    return decode_runs(runs, (width, height)).T


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
