"""A person's strokes win: painted pixels outlast every recomputed proposal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint16]
UNTOUCHED = -1


class Edits:
    """The painted and erased pixels of one sample.

    Parameters
    ----------
    proposal
        (H, W) class ids that the maps propose.
    override
        (H, W) ids that a person chose, `UNTOUCHED` (-1) elsewhere.

    Attributes
    ----------
    labels
        (H, W) class ids: the override where there is one, else the proposal.
    version
        Another number after each change of what is to be saved.
    """

    def __init__(
        self, proposal: NDArray[Any], override: NDArray[np.int32] | None = None
    ) -> None:
        self.proposal: Labels = proposal.astype(np.uint16)
        if override is None:
            override = np.full(proposal.shape, UNTOUCHED, np.int32)
        self.override = override
        self.labels: Labels = self._composed()
        self.version = 0
        # of each stroke that napari can undo: the places that it confirmed
        self._confirmed: list[NDArray[np.intp]] = []
        self._changed = False  # since the last stroke ended

    @property
    def count(self) -> int:
        """How many pixels a person decided."""
        return int((self.override != UNTOUCHED).sum())

    @property
    def are_proposal(self) -> bool:
        """Whether the labels are still exactly what the maps gave."""
        return np.array_equal(self.labels, self.proposal)

    def propose(self, proposal: NDArray[Any]) -> None:
        """Take a new proposal; only pixels that nobody painted change."""
        if proposal.shape != self.override.shape:
            raise ValueError(
                f"a proposal of {proposal.shape} for labels of {self.override.shape}"
            )
        self.proposal = proposal.astype(np.uint16)
        labels = self._composed()
        if not np.array_equal(labels, self.labels):
            self.labels = labels
            self.version += 1
        self._confirmed.clear()  # as napari's history then

    def take(self, labels: NDArray[Any], *, undone: bool = False) -> bool:
        """Notice what a person changed since; return whether anything did.

        Parameters
        ----------
        labels
            (H, W) ids as they are in the layer now.
        undone
            The change is an undo or redo: pixels back at the proposal are
            nobody's decision any more.

        Raises
        ------
        ValueError
            If the labels have another size.
        """
        if labels.shape != self.override.shape:
            raise ValueError(
                f"the labels are now {labels.shape} and their image is "
                f"{self.override.shape}: they are left as they were"
            )
        changed = labels != self.labels
        if not changed.any():
            return False
        self.override[changed] = labels[changed]
        if undone:
            back = changed & (labels == self.proposal)
            self.override[back] = UNTOUCHED
            if back.any() and self._confirmed:  # an undo, not a redo
                self.override.flat[self._confirmed.pop()] = UNTOUCHED
        else:
            self._changed = True
        self.labels = labels.astype(np.uint16)
        self.version += 1
        return True

    def confirm(self, where: NDArray[np.bool_]) -> None:
        """Remember pixels as decided the way they are: painted over unchanged.

        Called at the end of a stroke; undoing the stroke takes it back. napari knows
        no stroke that changed nothing, so that nothing is undone with such a one.
        """
        new = where & (self.override == UNTOUCHED)
        self.override[new] = self.labels[new]
        self.version += int(new.any())
        if self._changed:
            self._confirmed.append(np.flatnonzero(new))
        self._changed = False

    def discard(self) -> None:
        """Forget every stroke."""
        self.override[:] = UNTOUCHED
        self.version += 1
        self.labels = self._composed()

    def _composed(self) -> Labels:
        decided = self.override != UNTOUCHED
        labels = self.proposal.copy()
        np.copyto(labels, self.override, where=decided, casting="unsafe")
        return labels
