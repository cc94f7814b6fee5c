"""What a history says: labels made again from nothing, and what set each pixel."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_ovam.project.history import OBJECTS, Change, Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam.project.history import Box, Ids, Mask

_MEMORY = 2**28  # bytes of what can be put back; what is older is told as a script's
_TAIL = 100  # bytes at the end of a file that hold its digest


def read_history(path: Path, replaced: Mapping[int, int] | None = None) -> History:
    """Read a history; an empty one where there is no file.

    Lines that are none are left out.

    Parameters
    ----------
    path
        The file.
    replaced
        What ids of removed classes became: see `ClassTable.replaced`.
    """
    found, digest = [], ""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for line in lines:
        try:
            about = json.loads(line)
            pieces = tuple(Piece(*piece) for piece in about.pop("pieces"))
            digest = str(about.pop("labels", ""))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            digest = ""
            continue
        found.append(Change(about, pieces))
    return History(tuple(found), digest, dict(replaced or {}))


def last_digest(path: Path) -> str:
    """Return the SHA-256 of the labels that a history goes up to; "" if unknown."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL))
            last = file.read()
    except FileNotFoundError:
        return ""
    found = re.search(rb'"labels": "([0-9a-f]{64})"}\n$', last)
    return found[1].decode() if found else ""


@dataclass(frozen=True)
class History:
    """How an image's labels came to be.

    Attributes
    ----------
    changes
        In their order.
    digest
        The SHA-256 of the labels after them; empty where it is not known.
    replaced
        What ids of removed classes became since.
    """

    changes: tuple[Change, ...] = ()
    digest: str = ""
    replaced: Mapping[int, int] = field(default_factory=dict)

    def replay(self, shape: tuple[int, int]) -> Iterator[tuple[Change, Ids]]:
        """Make the labels again, from nothing: yield them, (H, W), after each change.

        Parameters
        ----------
        shape
            (H, W) of the image.
        """
        replay = _Replay((slice(0, shape[0]), slice(0, shape[1])), self.replaced)
        for number, change in enumerate(self.changes, start=1):
            replay.apply(number, change)
            yield change, replay.labels.copy()

    def labels(self, shape: tuple[int, int]) -> Ids:
        """Return the labels, (H, W), after all changes."""
        window = slice(0, shape[0]), slice(0, shape[1])
        return self._replayed(window).labels

    def sources(self, labels: NDArray[Any]) -> NDArray[np.uint32]:
        """Return which change set each pixel, (H, W), from 1; 0 is not known.

        What was undone counts for nothing. Background that nothing set has no source
        either.

        Parameters
        ----------
        labels
            (H, W) class ids as they are.
        """
        found = self._replayed((slice(0, labels.shape[0]), slice(0, labels.shape[1])))
        return np.where(found.labels == labels, found.sources, np.uint32(0))

    def at(self, row: int, column: int, label: int) -> str:
        """Return where the label of a pixel came from: "by a click, 14:03".

        Empty where that is not known.
        """
        window = slice(row, row + 1), slice(column, column + 1)
        found = self._replayed(window)
        told = []
        if found.labels.item() == label and (number := found.sources.item()):
            told.append(self.changes[number - 1].tell(label))
        if number := found.objects.item():
            told.append(f"its object {self.changes[number - 1].tell()}")
        return "; ".join(told)

    def _replayed(self, window: Box) -> _Replay:
        replay = _Replay(window, self.replaced)
        for number, change in enumerate(self.changes, start=1):
            replay.apply(number, change)
        return replay


class _Done(NamedTuple):
    """What a change did in a box, to put it back and do it again."""

    box: Box
    alive: Mask  # set, and not put back
    dead: Mask  # put back
    before: Ids
    sources: NDArray[np.uint32]  # before
    after: Ids
    number: int


class _Replay:
    """Labels of a window while changes are applied, and which change set them."""

    def __init__(self, window: Box, replaced: Mapping[int, int]) -> None:
        shape = tuple(side.stop - side.start for side in window)
        self.labels = np.zeros(shape, np.uint16)
        self.sources = np.zeros(shape, np.uint32)
        self.objects = np.zeros(shape, np.uint32)
        self._window = window
        self._table: Ids | None = None
        if replaced:
            self._table = np.arange(1 << 16, dtype=np.uint16)
            self._table[list(replaced)] = list(replaced.values())
        self._done: deque[_Done] = deque()
        self._undone: list[_Done] = []  # of which something can be done again
        self._bytes = 0

    def apply(self, number: int, change: Change) -> None:
        """Apply a change; its number is what it is known by."""
        by = change.about.get("by")
        if by not in ("undo", "redo", *OBJECTS):  # nothing can be done again after it
            for done in self._undone:
                done.dead[:] = False
            self._undone.clear()
        for piece in change.pieces:
            inner = _common(piece.box, self._window)
            if inner is None:
                continue
            part = _within(inner, piece.box)
            mask, ids = piece.unpack()
            mask, ids = mask[part], ids[part]
            ids = ids if self._table is None else self._table[ids]
            box = _within(inner, self._window)
            if by in OBJECTS:
                self.objects[box][mask] = number
                continue
            again = (self._put_back, self._do_again)[:: -1 if by == "redo" else 1]
            for find in again if by in ("undo", "redo") else ():
                mask = find(box, mask.copy(), ids)
            self._set(box, mask, ids, number)

    def _set(self, box: Box, mask: Mask, ids: Ids, number: int) -> None:
        if not mask.any():
            return
        before = self.labels[box].copy(), self.sources[box].copy()
        nothing = np.zeros(mask.shape, bool)
        done = _Done(box, mask.copy(), nothing, *before, ids, number)
        self._done.append(done)
        self._bytes += _size(done)
        while self._bytes > _MEMORY:
            self._bytes -= _size(self._done.popleft())
        self.labels[box][mask] = ids[mask]
        self.sources[box][mask] = number

    def _put_back(self, box: Box, mask: Mask, ids: Ids) -> Mask:
        """Give pixels the source that they had with this label; return the rest."""
        passed: list[tuple[_Done, Box, Box]] = []  # newer ones
        for done in reversed(self._done):
            if not mask.any():
                break
            common = _common(box, done.box)
            if common is None:
                continue
            here, there = _within(common, box), _within(common, done.box)
            passed.append((done, here, there))
            found = mask[here] & done.alive[there]
            found &= done.before[there] == ids[here]
            if not found.any():
                continue
            back = np.zeros(mask.shape, bool)
            back[here] = found
            self.sources[common][found] = done.sources[there][found]
            self.labels[common][found] = ids[here][found]
            for later, inside, part in passed:
                gone = back[inside] & later.alive[part]
                later.alive[part] &= ~gone
                later.dead[part] |= gone
                self._undone.append(later)
            mask[here] &= ~found
        return mask

    def _do_again(self, box: Box, mask: Mask, ids: Ids) -> Mask:
        """Do again what was put back last, if it gave this label; return the rest."""
        pending, first = mask.copy(), np.full(mask.shape, -1)
        several = list(self._done)
        for number in reversed(range(len(several))):
            if not pending.any():
                break
            done = several[number]
            common = _common(box, done.box)
            if common is None:
                continue
            here, there = _within(common, box), _within(common, done.box)
            first[here][pending[here] & done.dead[there]] = number
            pending[here] &= ~done.alive[there]
        for number in np.unique(first[first >= 0]).tolist():
            done = several[number]
            common = _common(box, done.box)
            assert common is not None  # noqa: S101 (it was found there)
            here, there = _within(common, box), _within(common, done.box)
            found = (first[here] == number) & (done.after[there] == ids[here])
            self.sources[common][found] = done.number
            self.labels[common][found] = ids[here][found]
            done.alive[there] |= found
            done.dead[there] &= ~found
            mask[here] &= ~found
        return mask


def _size(done: _Done) -> int:
    return done.alive.size * 10


def _common(a: Box, b: Box) -> Box | None:
    """Return the box that two have in common; None where there is none."""
    (top, bottom), (left, right) = (
        (max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(a, b, strict=True)
    )
    if top >= bottom or left >= right:
        return None
    return slice(top, bottom), slice(left, right)


def _within(box: Box, outer: Box) -> Box:
    """Return a box by the corner of one that holds it."""
    rows, columns = (
        slice(side.start - whole.start, side.stop - whole.start)
        for side, whole in zip(box, outer, strict=True)
    )
    return rows, columns
