"""Which annotations of a picture are not what its labels say any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_ovam.base.ids import BACKGROUND, IGNORE
from napari_ovam.datasets.exporters.coco import connected_parts
from napari_ovam.datasets.importers.shapes import Drawn, object_numbers, paint
from napari_ovam.datasets.mask_codes import box_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Order = Callable[[Sequence[Drawn]], list[Drawn]]
"""Returns annotations with those that lie above later."""

_UNSURE = -1  # the object of all annotations of unsure pixels
_GONE = -2  # what an object is now of which nothing is to be seen


class Change(NamedTuple):
    """An annotation with another mask or class."""

    record: Any  # what it is in its file
    class_id: int
    mask: NDArray[np.bool_] | None  # (H, W); None where it stays as it is
    relabelled: bool = True  # whether it was of another class


@dataclass
class Changes:
    """What is to be done with the annotations of a picture; others stay."""

    changed: list[Change] = field(default_factory=list)
    removed: list[Any] = field(default_factory=list)  # records
    # Class ids and masks, (H, W), of objects that have none.
    new: list[tuple[int, NDArray[np.bool_]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed or self.new)


def find_changes(
    drawn: Sequence[Drawn],
    ids: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    objects: NDArray[np.integer[Any]] | None,
    order: Order,
    *,
    unsure: bool,
) -> Changes:
    """Return what makes annotations show labels; all others stay as they are.

    An annotation stays if what is to be seen of it is all of an object. What lies
    hidden under others stays with it, as long as it stays hidden.

    Parameters
    ----------
    drawn
        The annotations, in the order of their file.
    ids
        Class ids by place; the last one is that of `UNSURE`.
    labels
        (H, W) class ids as they are to be.
    objects
        (H, W): the object of each pixel of a class, from 1. None where nobody told them
        apart: then connected parts are, if the labels are other ones than before.
    order
        Returns annotations with those that lie above later.
    unsure
        Whether the format has a label for unsure pixels.
    """
    if objects is None:
        table = ids[[0, *(each.place for each in order(drawn))]]
        if np.array_equal(table[paint(order(drawn), labels.shape)], labels):
            return Changes()
        objects = connected_parts(labels)
    wanted = np.where((labels == BACKGROUND) | (labels == IGNORE), 0, objects)
    wanted = wanted.astype(np.int64)
    numbers = object_numbers(drawn)
    units = {
        index: _UNSURE if ids[each.place] == IGNORE else numbers[index]
        for index, each in enumerate(drawn)
        if each.place != BACKGROUND
    }
    special = int(wanted.max(initial=0)) + 1  # the object of all unsure pixels
    if unsure or _UNSURE in units.values():
        wanted[labels == IGNORE] = special
    plan = _Plan(drawn, units, wanted, order)
    seen = plan.seen()
    plan.match = match_objects(seen, wanted, special)
    classes = {unit: int(ids[drawn[index].place]) for index, unit in units.items()}
    for unit, class_id in classes.items():
        there = wanted == plan.match.get(unit, _GONE)
        if not np.array_equal(there, seen == unit):
            plan.exact.add(unit)
        elif there.any() and labels[there][0] != class_id:
            plan.relabelled[unit] = int(labels[there][0])
    known = {0, *plan.match.values()}
    plan.new = [n for n in np.unique(wanted).tolist() if n not in known]
    plan.settle()
    return plan.changes(labels, ids)


def match_objects(
    seen: NDArray[np.int64], wanted: NDArray[np.int64], special: int
) -> dict[int, int]:
    """Return what each object is now: that with which it shares most pixels.

    Parameters
    ----------
    seen, wanted
        (H, W) the objects as they were and as they are, 0 where there is none.
    special
        The one that is all unsure pixels, and can be nothing but that.
    """
    both = (seen != 0) & (wanted != 0)
    pairs, count = np.unique(
        np.stack([seen[both], wanted[both]], 1), axis=0, return_counts=True
    )
    match: dict[int, int] = {}
    taken: set[int] = set()
    for index in np.argsort(-count, kind="stable").tolist():
        was, now = pairs[index].tolist()
        if (was == _UNSURE) != (now == special) or was in match or now in taken:
            continue
        match[was] = now
        taken.add(now)
    return match


class _Planned(NamedTuple):
    """An annotation as it is to be drawn."""

    at: int | None  # its place among those that were; None for a new one
    drawn: Drawn
    number: int  # its object


@dataclass
class _Plan:
    """Annotations as they are to be: those of `exact` units have their own pixels."""

    drawn: Sequence[Drawn]
    units: dict[int, int]  # the object of an annotation, by its index
    wanted: NDArray[np.int64]
    order: Order
    match: dict[int, int] = field(default_factory=dict)
    exact: set[int] = field(default_factory=set)
    # Classes of those that have another, and else stay as they are.
    relabelled: dict[int, int] = field(default_factory=dict)
    # Annotations of the background that hide what is to be seen: cut to it.
    cut: set[int] = field(default_factory=set)
    new: list[int] = field(default_factory=list)

    def seen(self) -> NDArray[np.int64]:
        """Return the object that was to be seen at each pixel, (H, W)."""
        where = {id(each): index for index, each in enumerate(self.drawn)}
        ordered = self.order(self.drawn)
        table = [0, *(self.units.get(where[id(each)], 0) for each in ordered)]
        return np.array(table, np.int64)[paint(ordered, self._size)]

    @property
    def _size(self) -> tuple[int, int]:
        return self.wanted.shape[0], self.wanted.shape[1]

    def planned(self) -> list[_Planned]:
        """Return all that will be drawn."""
        found: list[_Planned] = []
        used: set[int] = set()
        for index, each in enumerate(self.drawn):
            unit = self.units.get(index)
            if unit is None:
                if index in self.cut:
                    mask = _whole(each, self._size) & (self.wanted == 0)
                    if not mask.any():
                        continue
                    each = _with(each, mask)
                found.append(_Planned(index, each, 0))
            elif unit not in self.exact:
                found.append(_Planned(index, each, self.match.get(unit, _GONE)))
            elif unit in self.match and unit not in used:
                used.add(unit)
                number = self.match[unit]
                each = _with(each, self.wanted == number)
                found.append(_Planned(index, each, number))
        top = max((each.order for each in self.drawn), default=0)
        empty = Drawn(None, 1, (slice(0), slice(0)), np.zeros((0, 0), bool))
        for number in self.new:
            made = _with(empty, self.wanted == number)
            found.append(_Planned(None, made._replace(record={}, order=top), number))
        return found

    def settle(self) -> None:
        """Make exact what shows where it should not, until nothing does."""
        before = -1
        while len(self.exact) + len(self.cut) > before:
            before = len(self.exact) + len(self.cut)
            planned = {id(each.drawn): each for each in self.planned()}
            drawn = self.order([each.drawn for each in planned.values()])
            ordered = [planned[id(each)] for each in drawn]
            owners = paint([each.drawn for each in ordered], self._size)
            table = np.array([0, *(each.number for each in ordered)], np.int64)
            for owner in np.unique(owners[table[owners] != self.wanted]).tolist():
                index = ordered[owner - 1].at if owner else None
                if index is not None and index in self.units:
                    self.exact.add(self.units[index])
                elif index is not None:
                    self.cut.add(index)

    def changes(self, labels: NDArray[Any], ids: NDArray[Any]) -> Changes:
        """Return how the annotations as they are to be differ from those that were."""
        changes = Changes()
        left = set(range(len(self.drawn)))
        for index, each, number in self.planned():
            left -= {index}
            mask = _whole(each, self._size)
            if index is None:
                changes.new.append((int(labels[mask][0]), mask))
                continue
            was, unit = self.drawn[index], self.units.get(index, 0)
            if index in self.cut or unit in self.exact:
                class_id = int(labels[mask][0]) if number else BACKGROUND
                other = class_id != int(ids[was.place])
                changes.changed.append(Change(was.record, class_id, mask, other))
            elif unit in self.relabelled:
                class_id = self.relabelled[unit]
                changes.changed.append(Change(was.record, class_id, None))
        changes.removed = [self.drawn[index].record for index in sorted(left)]
        return changes


def _with(each: Drawn, mask: NDArray[np.bool_]) -> Drawn:
    box = box_of(mask)
    return each._replace(box=box, mask=mask[box].copy())


def _whole(each: Drawn, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[each.box] = each.mask
    return mask
