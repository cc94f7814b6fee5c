"""Annotations that are drawn one over the other, and what of them is to be seen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_ovam.base.words import shorten
from napari_ovam.datasets.importers.source import (
    ImportSourceError,
    Masks,
)
from napari_ovam.datasets.mask_codes import Box, box_of
from napari_ovam.images.files import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
BROKEN = (*ERRORS, OverflowError, IndexError, MemoryError)
"""What reading a record may raise that is not as it should be."""

Size = tuple[int, int]
Wrong = dict[str, list[Any]]
"""What is wrong, with the names of the annotations of which it is."""

_MOST_POINTS = 4000  # of a polygon that is looked at for crossings


@dataclass(frozen=True, eq=False)
class Shape:
    """An annotation with a mask."""

    which: Any  # what the data set calls it
    label: str
    # Returns its mask, (H, W), and what is to be said of it.
    draw: Callable[[Size], tuple[NDArray[np.bool_], Sequence[str]]]
    group: Hashable = None  # shapes of a class with one group are one object
    order: int = 0  # larger ones lie above; else those that come later
    record: Any = None  # as in the data set


class Drawn(NamedTuple):
    """An annotation as it is drawn."""

    which: Any
    place: int  # of its class, 0 for the background, or `UNSURE`
    box: Box
    mask: NDArray[np.bool_]  # within the box
    group: Hashable = None
    record: Any = None
    order: int = 0


def draw_shapes(
    shapes: Sequence[Shape], size: Size, places: Mapping[str, int], wrong: Wrong
) -> list[Drawn]:
    """Return shapes as they are drawn, in the order of the data set.

    It raises `ImportSourceError` if the picture is too large.

    Parameters
    ----------
    shapes
        Of one picture.
    size
        (H, W).
    places
        Of classes, by their labels.
    wrong
        Gets what could not be drawn.
    """
    check_drawable(size)
    found = []
    for shape in shapes:
        if (drawn := draw_shape(shape, size, wrong)) is not None:
            found.append(drawn._replace(place=places[shape.label]))
    return found


def draw_shape(shape: Shape, size: Size, wrong: Wrong) -> Drawn | None:
    """Return a shape with what its mask covers, of no class yet; None without any."""
    try:
        mask, said = shape.draw(size)
        if not mask.any():
            raise ValueError("its mask holds no pixel of the picture")
    except BROKEN as error:
        why = str(error) if isinstance(error, ValueError) else repr(error)
        wrong[why].append(shape.which)
        return None
    for why in said:
        wrong[why].append(shape.which)
    box = box_of(mask)
    # a copy: else a large picture with many annotations is kept as often
    part = mask[box].copy()
    return Drawn(shape.which, 0, box, part, shape.group, shape.record, shape.order)


def in_order(drawn: Sequence[Drawn]) -> list[Drawn]:
    """Return annotations with those that lie above later."""
    return sorted(drawn, key=lambda each: each.order)


def exact(
    decode: Callable[[Any, Size], NDArray[np.bool_]],
) -> Callable[[Any, Size], tuple[NDArray[np.bool_], Sequence[str]]]:
    """Return what draws a record that is a mask: there is nothing to be said of it."""
    return lambda record, size: (decode(record, size), ())


def check_drawable(size: Size | None) -> Size:
    """Return the size of a picture.

    It raises `ImportSourceError` if nobody knows it, or it is too large.
    """
    if size is None:
        raise ImportSourceError("neither its picture nor its file says how large it is")
    if size[0] * size[1] > MAX_PIXELS:
        raise ImportSourceError(f"the image is said to be {size} pixels")
    return size


def paint(drawn: Sequence[Drawn], size: Size) -> NDArray[np.int32]:
    """Return the annotation that is to be seen at each pixel, (H, W), from 1."""
    owners = np.zeros(size, np.int32)
    for number, each in enumerate(drawn, start=1):
        owners[each.box][each.mask] = number
    return owners


def as_masks(
    drawn: Sequence[Drawn],
    size: Size,
    names: Sequence[str],
    wrong: Wrong,
    *,
    several: bool = True,
) -> Masks:
    """Return the masks of annotations that are drawn one over the other.

    Parameters
    ----------
    drawn
        In the order in which they are drawn.
    size
        (H, W).
    names
        The classes, in the order of their places.
    wrong
        What was not understood of them.
    several
        Whether an annotation is an object, and not all that there is of its class.
    """
    owners = paint(drawn, size)
    seen = np.bincount(owners.ravel(), minlength=len(drawn) + 1)
    for number, each in enumerate(drawn, start=1):
        if each.place > 0 and not seen[number]:
            what = f"wholly covered by others ({names[each.place - 1]})"
            wrong[what].append(each.which)
    table = np.array([0, *(each.place for each in drawn)], np.int32)
    objects = np.array([0, *object_numbers(drawn)], np.int32)
    return Masks(table[owners], objects[owners] if several else None, tuple(say(wrong)))


def object_numbers(drawn: Sequence[Drawn]) -> list[int]:
    """Return the object of each annotation: the number of the first of its group."""
    first: dict[tuple[int, Hashable], int] = {}
    return [
        number
        if each.group is None
        else first.setdefault((each.place, each.group), number)
        for number, each in enumerate(drawn, start=1)
    ]


def number_objects(
    objects: NDArray[Any], ids: NDArray[Any], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], list[tuple[int, int]]]:
    """Return objects counted from 1, each of one class, (H, W), and what they were.

    Parameters
    ----------
    objects
        (H, W) integers that differ between objects.
    ids
        (H, W) class ids.
    inside
        (H, W): where there are objects.

    Returns
    -------
    The numbers; of each its value in `objects` and its class, in their order.
    """
    pairs = np.stack([objects[inside].astype(np.int64), ids[inside]], axis=1)
    found, inverse = np.unique(pairs, axis=0, return_inverse=True)
    numbers = np.zeros(ids.shape, np.int32)
    numbers[inside] = inverse.ravel() + 1
    return numbers, [(int(value), int(number)) for value, number in found]


def say(wrong: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return a sentence for each thing that is wrong, with the annotations' names."""
    return [
        f"{'annotation' if len(ids) == 1 else f'{len(ids)} annotations'} "
        f"{shorten(ids)}: {why}"
        for why, ids in wrong.items()
    ]


def no_wrong() -> Wrong:
    """Return where what is wrong is to be written."""
    return defaultdict(list)


def crosses_itself(points: NDArray[np.float64]) -> bool:
    """Whether two sides of a polygon cross, other than at their ends.

    Parameters
    ----------
    points
        (N, 2), x and y. Of more than some thousand it is not told.
    """
    if not 3 < len(points) <= _MOST_POINTS:
        return False
    ends = np.roll(points, -1, axis=0)
    along = ends - points
    for start, side in zip(points, along, strict=True):
        # where the ends of all sides lie of this one, and its ends of them
        one = _sides(side, points - start) * _sides(side, ends - start)
        other = _sides(along, start - points) * _sides(along, start + side - points)
        if ((one < 0) & (other < 0)).any():
            return True
    return False


def _sides(one: NDArray[np.float64], other: NDArray[np.float64]) -> Any:
    cross = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    return np.sign(np.where(np.abs(cross) < 1e-9, 0, cross))
