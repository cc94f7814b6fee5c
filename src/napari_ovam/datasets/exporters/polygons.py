"""Masks as polygons, and back.

A polygon here goes from pixel to neighbouring pixel, so that two rules of drawing give
the mask exactly: to cut the coordinates to whole pixels and fill with the border (as
cv2.fillPoly does, and YOLO's trainers with it), and to fill what has its centre inside.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How far a point lies from its pixel's centre towards the border, of 0.5: far enough
# for the second rule and for a thin part to have a width, near enough for the first.
_OUTWARDS = 0.4

_Pixel = tuple[int, int]
_Point = tuple[float, float]
_Stop = tuple[_Pixel, _Point]


@dataclass(frozen=True)
class LowestIou:
    """Where polygons, drawn again, agree least with the mask that they are of."""

    iou: float  # intersection over union, 0 to 1
    # Of which mask.
    image: str
    class_name: str


def compare(
    drawn: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    names: Mapping[int, str],
    image: str,
    worst: LowestIou | None,
) -> LowestIou | None:
    """Return where drawn labels agree least with labels, or `worst` if that is less.

    `names` has the classes by their ids, and `image` the name of what is compared.
    """
    for number in np.union1d(drawn, labels).tolist():
        if number in names:
            found, expected = drawn == number, labels == number
            iou = int((found & expected).sum()) / int((found | expected).sum())
            if worst is None or iou < worst.iou:
                worst = LowestIou(iou, image, names[number])
    return worst


def outlines(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Yield a polygon for each connected part (diagonal neighbours are connected).

    Parameters
    ----------
    mask
        (H, W).

    Yields
    ------
    NDArray
        (N, 2) points (x, y) in pixels, 0 to W and H; the first pixel's centre is
        (0.5, 0.5). N is at least 4. A hole is joined to the border by a bridge: a way
        through the part, there and back.
    """
    # Imported where it is used: it would double what the panel adds to napari's start.
    from skimage.measure import label, regionprops

    for part in regionprops(label(mask, connectivity=2)):
        top, left = part.bbox[:2]
        points = _outline(np.pad(part.image, 1))[:, ::-1]
        yield points + np.array([left - 0.5, top - 0.5])


def fill(
    points: NDArray[np.floating[Any]], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return the mask of a polygon of `outlines`, (H, W) bool: cut and filled.

    Parameters
    ----------
    points
        (N, 2) points (x, y) in pixels, no two neighbours more than a pixel apart.
    shape
        (H, W).
    """
    x, y = points.astype(np.int64).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    # A ray that leaves a pixel to the left, just below its centre, meets these edges.
    row = np.minimum(y, next_y)
    column = np.where(y < next_y, x, next_x)
    steep = y != next_y
    crossings = np.zeros(shape, np.int64)
    np.add.at(crossings, (row[steep], column[steep]), 1)
    mask: NDArray[np.bool_] = np.cumsum(crossings, axis=1) % 2 == 1
    mask[y, x] = True
    return mask


def _outline(part: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (N, 2) points (row, column) of one part with a frame of False."""
    from skimage.graph import MCP
    from skimage.measure import find_contours

    # Contours run between the pixels: each of their points has one pixel of the part
    # half a step away. These pixels make a closed walk of steps to neighbours.
    walks: list[NDArray[np.int64]] = []
    contours: list[NDArray[np.float64]] = []
    for contour in find_contours(part.astype(float), 0.5, fully_connected="high"):
        near = np.floor(contour).astype(int)
        far = np.ceil(contour).astype(int)
        walk = np.where(part[tuple(near.T)][:, None], near, far)
        walks.append(walk)
        contours.append(walk + 2 * _OUTWARDS * (contour - walk))
    outer = int(np.argmin([contour[:, 0].min() for contour in contours]))
    if len(walks) == 1:
        return contours[0][:-1]

    # Holes hang on the border like leaves on a tree: each by the shortest way, which
    # ends where it meets the border, another hole or another way.
    ways = MCP(np.where(part, 1, -1), fully_connected=True)
    costs, _ = ways.find_costs(np.unique(walks[outer], axis=0).tolist())
    joined = set(map(tuple, walks[outer].tolist()))
    detours: dict[_Pixel, list[_Stop]] = {}
    for number, (walk, contour) in enumerate(zip(walks, contours, strict=True)):
        if number == outer:
            continue
        start = int(np.argmin(costs[tuple(walk[:-1].T)]))
        way = ways.traceback(tuple(walk[start]))
        first = next(i for i in reversed(range(len(way))) if way[i] in joined)
        bridge = [(pixel, pixel) for pixel in way[first:]]
        around = _stops(
            np.roll(walk[:-1], -start, axis=0), np.roll(contour[:-1], -start, axis=0)
        )
        detour = [*bridge, *around, around[0], *bridge[::-1]]
        detours.setdefault(way[first], []).extend(detour)
        joined.update(pixel for pixel, _ in detour)
    return np.array(_tour(_stops(walks[outer][:-1], contours[outer][:-1]), detours))


def _stops(walk: NDArray[np.int64], contour: NDArray[np.float64]) -> list[_Stop]:
    pixels = map(tuple, walk.tolist())
    return list(zip(pixels, map(tuple, contour.tolist()), strict=True))


def _tour(border: list[_Stop], detours: dict[_Pixel, list[_Stop]]) -> list[_Point]:
    """Return the points of a border with the detours from its pixels, and from theirs.

    Each detour is made where the tour first comes to its pixel, and ends there.
    """
    points: list[_Point] = []
    under_way = [iter(border)]
    while under_way:
        for pixel, point in under_way[-1]:
            points.append(point)
            if pixel in detours:
                under_way.append(iter([*detours.pop(pixel), (pixel, point)]))
                break
        else:
            under_way.pop()
    return points
