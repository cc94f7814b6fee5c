"""Masks of COCO's annotations: polygons, and run-length codes of both kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as rle

from napari_ovam.datasets.class_lists import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def draw(annotation: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of an annotation, (H, W).

    Raises
    ------
    ValueError
        If it has none, it is broken, of another size, or holds no pixel; the message
        starts as if it went on after "its mask" or the like.
    """
    code = annotation.get("segmentation")
    if not code:
        what = [k for k in ("bbox", "keypoints") if annotation.get(k)]
        has = " and ".join("a box" if k == "bbox" else k for k in what)
        raise ValueError(f"no mask{f', only {has}' if has else ' is given'}")
    mask = np.zeros(size, bool)
    for part in _parts(code):
        mask |= _code(part, size) if isinstance(part, dict) else _polygon(part, size)
    if not mask.any():
        raise ValueError("its mask holds no pixel of the picture")
    return mask


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
