"""A person's strokes win: painted pixels outlast every recomputed proposal."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ovam.images.png import as_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Labels = NDArray[np.uint16]
Mask = NDArray[np.bool_]

SIDE = 512
"""Height and width of a tile: small enough that one takes about a millisecond."""


@lru_cache(maxsize=16)
def tile_places(shape: tuple[int, int]) -> tuple[tuple[slice, slice], ...]:
    """Return where the tiles of an image of a shape are, row by row."""
    rows, columns = (range(0, length, SIDE) for length in shape)
    return tuple(
        (slice(y, min(y + SIDE, shape[0])), slice(x, min(x + SIDE, shape[1])))
        for y in rows
        for x in columns
    )


def tiles_in(shape: tuple[int, int], box: tuple[slice, slice]) -> list[int]:
    """Return the numbers of the tiles that a box has a part in."""
    (top, bottom), (left, right) = (
        (max(part.start, 0) // SIDE, (min(part.stop, length) - 1) // SIDE + 1)
        for part, length in zip(box, shape, strict=True)
    )
    wide = -(-shape[1] // SIDE)
    return [y * wide + x for y in range(top, bottom) for x in range(left, right)]


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
        return self is other or (
            np.array_equal(self.painted, other.painted)
            and np.array_equal(self.labels, other.labels)
        )


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
        return self is other or (
            self.shape == other.shape
            and all(a.same(b) for a, b in zip(self.tiles, other.tiles, strict=True))
        )

    def _joined(self, name: str, dtype: Any) -> NDArray[Any]:
        whole = np.empty(self.shape, dtype)
        for place, tile in zip(tile_places(self.shape), self.tiles, strict=True):
            whole[place] = getattr(tile, name)
        return whole


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

    Attributes
    ----------
    now
        The labels at this moment: another object after each change.

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
    ) -> None:
        self.proposal = as_labels(proposal)
        labels = self.proposal if labels is None else as_labels(labels)
        if painted is None:
            painted = np.zeros(labels.shape, bool)
        shape = (labels.shape[0], labels.shape[1])
        tiles = tuple(
            _Tile(labels[at].copy(), painted[at].copy(), self.proposal[at])
            for at in tile_places(shape)
        )
        self.now = Snapshot(shape, tiles)

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

    def propose(self, proposal: NDArray[Any]) -> None:
        """Take a new proposal; only pixels that nobody painted change."""
        if proposal.shape != self.now.shape:
            raise ValueError(
                f"a proposal of {proposal.shape} for labels of {self.now.shape}"
            )
        self.proposal = as_labels(proposal)
        places = tile_places(self.now.shape)
        self._replace(
            {
                number: _Tile(
                    np.where(tile.painted, tile.labels, self.proposal[at]),
                    tile.painted,
                    self.proposal[at],
                )
                for number, (at, tile) in enumerate(
                    zip(places, self.now.tiles, strict=True)
                )
            }
        )

    def take(
        self,
        labels: NDArray[Any],
        tiles: Iterable[int] | None = None,
        *,
        undone: bool = False,
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
            found[number] = _Tile(
                labels[at].astype(np.uint16), painted, self.proposal[at]
            )
        self._replace(found)
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
        self.now = Edits(self.proposal).now

    def _decide(self, masks: Mapping[int, Mask], *, decided: bool) -> None:
        found = {}
        for number, mask in masks.items():
            old = self.now.tiles[number]
            painted = old.painted | mask if decided else old.painted & ~mask
            at = tile_places(self.now.shape)[number]
            found[number] = _Tile(old.labels, painted, self.proposal[at])
        self._replace(found)

    def _replace(self, found: Mapping[int, _Tile]) -> None:
        if found:
            tiles = tuple(found.get(i, tile) for i, tile in enumerate(self.now.tiles))
            self.now = Snapshot(self.now.shape, tiles)


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
