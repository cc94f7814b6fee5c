"""A person's strokes win: painted pixels outlast every recomputed proposal."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_ovam.base.tiles import tile_places
from napari_ovam.images.png import as_ids
from napari_ovam.project.files import now
from napari_ovam.project.history import Change, pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from napari_ovam.project.history import Piece

Labels = NDArray[np.uint16]
Mask = NDArray[np.bool_]

_MOST = 200  # steps that wait as snapshots, which hold what they changed


class _Tile:
    """A part of labels, which never changes; what is counted in it is kept."""

    def __init__(self, labels: Labels, painted: Mask, proposal: Labels) -> None:
        self.labels, self.painted = labels, painted
        self._proposal = proposal

    @cached_property
    def ids(self) -> tuple[int, ...]:
        return tuple(np.flatnonzero(np.bincount(self.labels.ravel())).tolist())

    @cached_property
    def count(self) -> int:
        return int(np.count_nonzero(self.painted))

    @cached_property
    def is_proposal(self) -> bool:
        return np.array_equal(self.labels, self._proposal)

    def same(self, other: _Tile) -> bool:
        """Whether another tile holds the same."""
        pairs = (self.painted, other.painted), (self.labels, other.labels)
        return all(a is b or np.array_equal(a, b) for a, b in pairs)

    def over(self, proposal: Labels) -> _Tile:
        """Return it with another proposal under what a person decided."""
        labels = np.where(self.painted, self.labels, proposal)
        if not np.array_equal(labels, self.labels):
            return _Tile(labels, self.painted, proposal)
        new = _Tile(self.labels, self.painted, proposal)
        counted = {k: v for k, v in vars(self).items() if k in ("ids", "count")}
        vars(new).update(counted)
        return new


class Snapshot:
    """Labels as they are at one moment, in tiles that never change.

    To take one costs nothing at any size, and any thread may read it.
    """

    def __init__(self, shape: tuple[int, int], tiles: tuple[_Tile, ...]) -> None:
        self.shape, self.tiles = shape, tiles

    @property
    def labels(self) -> Labels:
        """(H, W) class ids, in an array of the caller's own."""
        return self._joined("labels", np.uint16)

    @property
    def painted(self) -> Mask:
        """(H, W), where a person decided, in an array of the caller's own."""
        return self._joined("painted", np.bool_)

    @cached_property
    def ids(self) -> frozenset[int]:
        """The ids of the labels."""
        return frozenset().union(*(tile.ids for tile in self.tiles))

    @cached_property
    def count(self) -> int:
        """How many pixels a person decided."""
        return sum(tile.count for tile in self.tiles)

    def same(self, other: Snapshot) -> bool:
        """Whether labels and decisions of another moment are the same."""
        pairs = zip(self.tiles, other.tiles, strict=False)
        return self.shape == other.shape and all(a.same(b) for a, b in pairs)

    def _joined(self, name: str, dtype: Any) -> NDArray[Any]:
        whole = np.empty(self.shape, dtype)
        for place, tile in zip(tile_places(self.shape), self.tiles, strict=True):
            whole[place] = getattr(tile, name)
        return whole


class Proposed(NamedTuple):
    """What a proposal makes of labels at one moment, by any thread."""

    labels: Labels
    before: Snapshot
    tiles: tuple[_Tile, ...]  # what becomes of those before

    @classmethod
    def over(cls, before: Snapshot, proposal: NDArray[Any]) -> Proposed:
        """Put (H, W) class ids under labels; `ValueError` if they do not fit."""
        if proposal.shape != before.shape:
            raise ValueError(
                f"a proposal of {proposal.shape} for labels of {before.shape}"
            )
        labels = as_labels(proposal)
        pairs = zip(before.tiles, tile_places(before.shape), strict=True)
        return cls(labels, before, tuple(tile.over(labels[at]) for tile, at in pairs))


class Step(NamedTuple):
    """Labels before and after something changed them, and what that was.

    To keep one costs nothing at any size, as snapshots share what did not change.
    """

    before: Snapshot | None  # None: 0 all over
    after: Snapshot
    about: Mapping[str, Any]

    def pack(self) -> Change:
        """Return it as a project's history has it, with its pixels."""
        new = self.after.tiles
        old = (None,) * len(new) if self.before is None else self.before.tiles
        places = tile_places(self.after.shape)
        pieces = map(_changed, old, new, places)
        return Change(self.about, tuple(piece for piece in pieces if piece))


def _changed(old: _Tile | None, new: _Tile, place: tuple[slice, slice]) -> Piece | None:
    """Return the pixels of a tile whose label or decision is another."""
    if old is new or (old is not None and new.same(old)):
        return None
    mask = new.labels != 0 if old is None else new.labels != old.labels
    mask = mask | (new.painted if old is None else new.painted != old.painted)
    return pack(new.labels, mask, (place[0].start, place[1].start))


class Steps:
    """What changed labels since they were written; another thread writes it.

    Attributes
    ----------
    mark
        How many there were so far.
    """

    def __init__(self) -> None:
        self._waiting: list[Step | Change] = []
        self._written = 0
        self.mark = 0

    def add(self, step: Step) -> None:
        """Take one more."""
        self._waiting.append(step)
        self.mark += 1
        late = self._waiting[-_MOST - 1] if len(self._waiting) > _MOST else None
        if isinstance(late, Step):  # nothing can be written: to save memory
            self._waiting[-_MOST - 1] = late.pack()

    def until(self, mark: int) -> list[Change]:
        """Return what is to be written up to a mark; of maps that follow maps, one."""
        found: list[Step | Change] = []
        for step in self._waiting[: mark - self._written]:
            match found[-1:], step:
                case [Step(before, _, {"by": "maps"})], Step(_, _, {"by": "maps"}):
                    found[-1] = step._replace(before=before)
                case _:
                    found.append(step)
        return [step.pack() if isinstance(step, Step) else step for step in found]

    def forget(self, mark: int) -> None:
        """Forget what was written, up to a mark."""
        del self._waiting[: mark - self._written]
        self._written = max(mark, self._written)


class Edits:
    """The labels of one sample: what the maps propose, and what a person decided.

    Parameters
    ----------
    proposal
        (H, W) class ids of 0 to 65535 that the maps propose.
    labels
        (H, W) ids as they are; None for the proposal.
    painted
        (H, W), where a person decided; the labels are the proposal elsewhere.
    about
        What made them, where that is to be written: see `project.history.Change`.
    steps
        What changed them before.

    Attributes
    ----------
    now
        The labels at this moment: another object after each change.
    steps
        What changed them and is not written yet.

    Raises
    ------
    ValueError
        If an id is out of range.
    """

    def __init__(
        self,
        proposal: NDArray[Any],
        labels: NDArray[Any] | None = None,
        painted: Mask | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        steps: Steps | None = None,
    ) -> None:
        self.proposal = as_labels(proposal)
        labels = self.proposal if labels is None else as_labels(labels)
        painted = np.zeros(labels.shape, bool) if painted is None else painted
        shape = (labels.shape[0], labels.shape[1])
        tiles = tuple(
            _Tile(labels[at].copy(), painted[at].copy(), self.proposal[at])
            for at in tile_places(shape)
        )
        self.now = Snapshot(shape, tiles)
        self.steps = steps or Steps()
        self._by: Mapping[str, Any] | None = None
        self._proposed = about is not None
        if about is not None:
            self.steps.add(Step(None, self.now, {"at": now(), **about}))

    @property
    def labels(self) -> Labels:
        """(H, W) class ids, in an array of the caller's own."""
        return self.now.labels

    @property
    def painted(self) -> Mask:
        """(H, W), where a person decided, in an array of the caller's own."""
        return self.now.painted

    @property
    def count(self) -> int:
        """How many pixels a person decided."""
        return self.now.count

    @property
    def are_proposal(self) -> bool:
        """Whether the labels are still exactly what the maps gave."""
        return all(tile.is_proposal for tile in self.now.tiles)

    @property
    def nothing(self) -> bool:
        """Whether they are empty as they were at first: no maps, and nobody, spoke."""
        return not (self._proposed or self.count or self.proposal.any())

    @contextmanager
    def doing(self, about: Mapping[str, Any]) -> Iterator[None]:
        """Take what is painted inside for something else than strokes."""
        self._by = about
        try:
            yield
        finally:
            self._by = None

    def propose(
        self,
        proposal: NDArray[Any] | Proposed,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a proposal that `about` made; only what nobody painted changes."""
        if not isinstance(proposal, Proposed):
            proposal = Proposed.over(self.now, proposal)
        self.proposal, old, new = proposal
        self._proposed = True
        places = tile_places(self.now.shape)
        tiles = tuple(
            new[n] if tile is old.tiles[n] else tile.over(self.proposal[places[n]])
            for n, tile in enumerate(self.now.tiles)  # painted meanwhile, or not
        )
        self._note(Snapshot(self.now.shape, tiles), {"by": "maps", **(about or {})})

    def take(
        self,
        labels: NDArray[Any],
        tiles: Iterable[int] | None = None,
        *,
        undone: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> bool:
        """Notice what changed on a layer; return whether anything did.

        Parameters
        ----------
        labels
            (H, W) uint16 ids as they are on the layer now.
        tiles
            Where to look; None for everywhere.
        undone
            No stroke did it but an undo, a script or a plugin: pixels back at the
            proposal are nobody's decision any more.
        about
            What else is known of it, as for `Change`.

        Raises
        ------
        ValueError
            If the labels have another size.
        """
        if labels.shape != self.now.shape:
            raise ValueError(
                f"the labels are now {labels.shape} and their image is {self.now.shape}"
            )
        places, found = tile_places(self.now.shape), dict[int, _Tile]()
        for number in range(len(places)) if tiles is None else tiles:
            at, tile = places[number], self.now.tiles[number]
            changed = labels[at] != tile.labels
            if not changed.any():
                continue
            painted = tile.painted | changed
            if undone:
                painted &= ~(changed & (labels[at] == self.proposal[at]))
            mine = labels[at].astype(np.uint16)
            found[number] = _Tile(mine, painted, self.proposal[at])
        made_by = {"by": "undo" if undone else "stroke", **(about or {})}
        self._replace(found, self._by or made_by)
        return bool(found)

    def confirm(self, under: Mapping[int, Mask], value: int) -> dict[int, Mask]:
        """Take pixels for decided that were painted over with the label they had.

        Parameters
        ----------
        under
            What the brush went over, by tile.
        value
            The label that it painted.

        Returns
        -------
        Those that were nobody's decision until now, by tile.
        """
        new = {}
        for number, mask in under.items():
            tile = self.now.tiles[number]
            fresh = mask & ~tile.painted & (tile.labels == value)
            if fresh.any():
                new[number] = fresh
        self._decide(new, decided=True)
        return new

    def unconfirm(self, confirmed: Mapping[int, Mask]) -> None:
        """Take back what `confirm` returned."""
        self._decide(confirmed, decided=False)

    def discard(self) -> None:
        """Forget every stroke."""
        self._note(Edits(self.proposal).now, {"by": "undo"})

    def _decide(self, masks: Mapping[int, Mask], *, decided: bool) -> None:
        found, places = {}, tile_places(self.now.shape)
        for number, mask in masks.items():
            old, at = self.now.tiles[number], places[number]
            painted = old.painted | mask if decided else old.painted & ~mask
            found[number] = _Tile(old.labels, painted, self.proposal[at])
        self._replace(found, {"by": "stroke" if decided else "undo"})

    def _replace(self, found: Mapping[int, _Tile], about: Mapping[str, Any]) -> None:
        if found:
            tiles = tuple(found.get(i, tile) for i, tile in enumerate(self.now.tiles))
            self._note(Snapshot(self.now.shape, tiles), about)

    def _note(self, new: Snapshot, about: Mapping[str, Any]) -> None:
        self.steps.add(Step(self.now, new, {"at": now(), **about}))
        self.now = new


def as_labels(ids: NDArray[Any], name: str = "The labels") -> Labels:
    """Return (H, W) class ids, or a mask, in 16 bits.

    Raises
    ------
    ValueError
        If they are no ids of 0 to 65535; `name` says whose they are.
    """
    if ids.dtype == np.uint16 and ids.ndim == 2:
        return ids
    ids = ids.astype(np.uint8) if ids.dtype == bool else ids
    return as_ids(name, ids).astype(np.uint16)
