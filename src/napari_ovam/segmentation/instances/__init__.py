"""Instances: which pixels of a class belong to one object, and how a person says so.

`instances.tracking` finds them and keeps their ids when labels are edited,
`instances.files` keeps them on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.draw import line
from skimage.measure import label as connected
from skimage.segmentation import watershed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_LARGEST = int(np.iinfo(np.uint16).max)


class InstanceError(ValueError):
    """What cannot be done with instances; the message names their ids."""


@dataclass(frozen=True, eq=False)
class Instances:
    """The instances of one image.

    Attributes
    ----------
    ids
        (H, W) int32: the instance of each pixel, 0 where there is none (background
        and unsure pixels).
    classes
        The class id of each instance.
    last
        The largest id that was ever given; none is given twice.

    Raises
    ------
    InstanceError
        If `ids` are no such array, or `classes` does not name each instance in it.
    """

    ids: NDArray[np.int32]
    classes: Mapping[int, int]
    last: int = 0

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.dtype != np.int32:
            raise InstanceError(
                f"instances are {self.ids.shape} {self.ids.dtype}: give (H, W) int32"
            )
        there = set(np.unique(self.ids).tolist()) - {0}
        below = {number for number in there if number < 1}
        if wrong := sorted(there ^ set(self.classes) | below):
            raise InstanceError(
                f"the instances {wrong[:5]} have no pixel, no class or no id above 0"
            )
        object.__setattr__(self, "last", max(self.last, *there, 0))

    def labels(self) -> NDArray[np.uint16]:
        """Return the class of each pixel, (H, W); unsure pixels are 0 here."""
        table = np.zeros(self.last + 1, np.uint16)
        for number, class_id in self.classes.items():
            table[number] = class_id
        return table[self.ids]

    def of_class(self, class_id: int) -> list[int]:
        """Return the ids of the instances of a class, ascending."""
        return sorted(i for i, each in self.classes.items() if each == class_id)


def split_by_line(
    instances: Instances, number: int, points: Sequence[tuple[float, float]]
) -> Instances:
    """Cut an instance along a line.

    Parameters
    ----------
    number
        The instance. Its largest part keeps the id.
    points
        (row, column) of the line's corners, at least two, in or outside the image.
        Pixels on the line go to the part that is next to them.

    Raises
    ------
    InstanceError
        If there is no such instance, or the line does not cut it.
    """
    inside = _mask(instances, number)
    corners = np.round(np.asarray(points, float)).astype(int)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 2:
        raise InstanceError(
            f"a line of the shape {np.shape(points)} cuts nothing: give (row, column) "
            "of at least two points"
        )
    free = inside & ~_drawn(corners, inside.shape)
    parts = connected(free, connectivity=2)
    before = connected(inside, connectivity=2)
    pairs = np.unique(np.stack([before[free], parts[free]], 1), axis=0)
    shares = np.bincount(pairs[:, 0])
    cut = shares[pairs[:, 0]] > 1
    if not cut.any():
        raise InstanceError(
            f"the line does not cut instance {number} in two: draw it across, from "
            "outside to outside"
        )
    # Parts elsewhere, merged by hand, stay with the largest.
    sizes = np.bincount(parts.ravel())
    largest = max(pairs[cut, 1].tolist(), key=lambda part: int(sizes[part]))
    parts[np.isin(parts, pairs[~cut, 1])] = largest
    return _divide(instances, number, parts)


def split_by_seeds(
    instances: Instances, number: int, seeds: Sequence[tuple[float, float]]
) -> Instances:
    """Divide an instance between points that were clicked in it.

    A watershed on the distance to its border (skimage.segmentation.watershed), from
    the tops above the seeds: parts meet where the object is narrow. Seeds below one
    top divide what is between them in halves.

    Parameters
    ----------
    number
        The instance. Its largest part keeps the id.
    seeds
        (row, column) of a pixel in each part, at least two.

    Raises
    ------
    InstanceError
        If there is no such instance, or a seed is not in it or given twice.
    """
    inside = _mask(instances, number)
    markers = np.zeros(inside.shape, np.int32)
    for place, seed in enumerate(seeds, 1):
        row, column = (round(value) for value in seed)
        if (
            not (0 <= row < inside.shape[0] and 0 <= column < inside.shape[1])
            or not inside[row, column]
        ):
            raise InstanceError(f"the seed {tuple(seed)} is not in instance {number}")
        if markers[row, column]:
            raise InstanceError(f"the seed {tuple(seed)} is there twice")
        markers[row, column] = place
    if len(seeds) < 2:
        raise InstanceError(f"{len(seeds)} seeds divide nothing: give at least two")
    depth = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    climbed = markers.copy()
    for place, seed in enumerate(seeds, 1):
        path = _uphill(depth, round(seed[0]), round(seed[1]))
        if not np.isin(climbed[path], (0, place)).all():
            # On one hill the distance to the border says nothing: halve between them.
            depth, climbed = np.zeros(inside.shape), markers
            break
        climbed[path] = place
    parts = watershed(-depth, climbed, connectivity=2, mask=inside)
    return _divide(instances, number, parts)


def merge(instances: Instances, numbers: Iterable[int]) -> Instances:
    """Make several instances of a class one, with the id that is given first.

    Raises
    ------
    InstanceError
        If one does not exist, there are fewer than two, or they differ in class.
    """
    chosen = list(dict.fromkeys(numbers))
    if len(chosen) < 2:
        raise InstanceError(f"{len(chosen)} instances make no other: give at least two")
    for number in chosen:
        _mask(instances, number)
    classes = {instances.classes[number] for number in chosen}
    if len(classes) > 1:
        raise InstanceError(
            f"the instances {chosen} are of the classes {sorted(classes)}: only those "
            "of one class can be merged"
        )
    ids = np.where(np.isin(instances.ids, chosen), np.int32(chosen[0]), instances.ids)
    left = {i: c for i, c in instances.classes.items() if i not in chosen[1:]}
    return Instances(ids, left, instances.last)


def _mask(instances: Instances, number: int) -> NDArray[np.bool_]:
    if number not in instances.classes:
        known = ", ".join(map(str, sorted(instances.classes)[:20])) or "none"
        raise InstanceError(f"there is no instance {number}: there are {known}")
    mask: NDArray[np.bool_] = instances.ids == number
    return mask


def _divide(instances: Instances, number: int, parts: NDArray[Any]) -> Instances:
    """Give the parts (0: of none) of an instance ids; the largest keeps its own."""
    inside = instances.ids == number
    parts = _nearest(parts, inside)
    sizes = np.bincount(parts[inside])
    sizes[0] = 0
    order = [int(i) for i in np.argsort(-sizes, kind="stable") if sizes[i]]
    ids, classes, last = instances.ids.copy(), dict(instances.classes), instances.last
    for part in order[1:]:
        last += 1
        ids[inside & (parts == part)] = last
        classes[last] = classes[number]
    return Instances(ids, classes, check_count(last))


def _nearest(parts: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[Any]:
    """Return parts with the pixels of `inside` that have none given to the nearest."""
    if not (inside & (parts == 0)).any():
        return parts
    grown = watershed(np.zeros(parts.shape), parts, connectivity=2, mask=inside)
    if (inside & (grown == 0)).any():  # what nothing is connected to
        places = distance_transform_edt(
            parts == 0, return_distances=False, return_indices=True
        )
        grown = np.where(inside & (grown == 0), parts[tuple(places)], grown)
    result: NDArray[Any] = grown
    return result


def _uphill(
    depth: NDArray[np.float64], row: int, column: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the steepest way up from a pixel, as (rows, columns)."""
    way = [(row, column)]
    while True:
        top, left = max(row - 1, 0), max(column - 1, 0)
        around = depth[top : row + 2, left : column + 2]
        place = np.unravel_index(int(around.argmax()), around.shape)
        if around[place] <= depth[row, column]:
            rows, columns = zip(*way, strict=True)
            return np.array(rows), np.array(columns)
        row, column = top + int(place[0]), left + int(place[1])
        way.append((row, column))


def _drawn(corners: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Draw a line whose pixels share edges, so that corners do not join across it."""
    drawn = np.zeros(shape, bool)
    for start, stop in pairwise(corners):
        rows, columns = line(*start, *stop)
        rows, columns = np.r_[rows, rows[1:]], np.r_[columns, columns[:-1]]
        there = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        drawn[rows[there], columns[there]] = True
    return drawn


def check_count(last: int) -> int:
    """Return the largest id, where 16 bits hold it.

    Raises
    ------
    InstanceError
        If they do not.
    """
    if last > _LARGEST:
        raise InstanceError(
            f"an image has at most {_LARGEST} instances, and this would be the "
            f"{last}th: remove small parts first"
        )
    return last
