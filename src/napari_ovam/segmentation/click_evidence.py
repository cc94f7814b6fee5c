"""What clicks, cells, maps and colours say of the pixels in a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import label
from skimage.filters import threshold_otsu

from napari_ovam.attention.cells import CellMaps
from napari_ovam.segmentation.thresholds import THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.segmentation.picture_window import (
        Field,
        Mask,
        PictureWindow,
        Place,
    )

    Box = tuple[Place, Place]

# Of what cells and maps say: this share of its range is a logit, and the most of them.
_SHARE, _SUREST = 0.1, 8.0
_NOTHING = -1.0  # where there are none: more is background than object
# The weight of colours of both sides; at first those around a click, in pixels.
_COLORS, _SAMPLE = 0.6, 3.0
# A click's logit, how far it is heard (deviation in space as a share of the longer
# side, and in units of CIE Lab), and the radius in pixels in which it is certain.
_CLICK, _REACH, _LIKE, _DISC, _CERTAIN = 8.0, 1 / 8, 10.0, 2.0, 30.0
# At a later click: logits of what was found before, and what cells still count.
_KEPT, _STILL = 3.0, 0.5


@dataclass(frozen=True)
class Click:
    """A place where the object is, or is not.

    Attributes
    ----------
    row, column
        In pixels; (0, 0) is the middle of the first one.
    positive
        Whether the object is there.
    path
        Further places (row, column), of a scribble.
    """

    row: float
    column: float
    positive: bool = True
    path: tuple[Place, ...] = ()

    @property
    def places(self) -> tuple[Place, ...]:
        """All its places."""
        return ((self.row, self.column), *self.path)


class Evidence:
    """What a trace and the map of a class say of one picture; both may be missing."""

    def __init__(
        self,
        trace: Trace | None,
        map: NDArray[np.float32] | None,
        objects: Token | None = None,
    ) -> None:
        self._cells = None if trace is None else CellMaps(trace, objects)
        maps = (map, self._cells.objects if self._cells else None)
        self._maps = [each for each in maps if each is not None]

    def look(
        self, window: PictureWindow, places: Sequence[Place], box: Box | None
    ) -> Field:
        """Return the probability (h, w) of an object."""
        start = window.at(places)
        if box is None:
            click = Click(*places[0], path=tuple(places[1:]))
            here, sample = start, window.discs(places, _SAMPLE)
            against = None
        else:
            here = sample = window.in_box(box, window.size)
            against = ~here
        prior = self._prior(window, here, against)
        for again in (False, True):
            if again:  # by what was found
                both = prior, self._prior(window, sample, ~sample)
                prior = np.mean(both, 0, dtype=np.float32)
            logits = prior + _COLORS * window.colors.log_ratio(sample)
            if box is None:
                logits = _heard(logits, window, click)
            else:
                logits[~here] = -_CERTAIN
            found = window.field(logits)
            sample = pieces_at(found >= THRESHOLD, start)
        return found

    def like(
        self, window: PictureWindow, of: Evidence, there: PictureWindow, inside: Mask
    ) -> Field:
        """Return what is said of an object of another picture, as logits (h, w).

        0 where not both have a trace.

        Parameters
        ----------
        window
            Where it is looked for.
        of, there, inside
            The other picture, a window of it, and the object's pixels (h, w) there.
        """
        if self._cells is None or of._cells is None or inside.all():
            return np.zeros(window.size, np.float32)
        return self._prior(window, inside, ~inside, (of._cells, there))

    def _prior(
        self,
        window: PictureWindow,
        inside: Mask,
        outside: Mask | None,
        of: tuple[CellMaps, PictureWindow] | None = None,
    ) -> Field:
        """Return what cells and maps say together, as logits (h, w).

        `of` is the picture, and the window of it, whose pixels are inside and outside.
        """
        experts = [window.from_cells(each) for each in self._maps]
        if self._cells is not None:  # weighs as much as all maps
            known, there = of or (self._cells, window)
            against = None if outside is None else there.to_cells(outside, known.grid)
            here = there.to_cells(inside, known.grid)
            alike = self._cells.alike(here, against, known)
            experts += [window.from_cells(alike)] * max(1, len(self._maps))
        if not experts:
            return np.full(window.size, _NOTHING, np.float32)
        logs = [np.log(_stretched(each)) for each in experts]
        found = np.exp(np.mean(logs, 0, dtype=np.float32))
        found = window.alike(torch.from_numpy(found)[None])[0].numpy()
        spread = float(np.ptp(found))
        if spread < 1e-6:
            return np.zeros(window.size, np.float32)
        logits = (found - threshold_otsu(found)) / (_SHARE * spread)
        clipped: Field = logits.clip(-_SUREST, _SUREST).astype(np.float32)
        return clipped

    def weigh(
        self, window: PictureWindow, part: Mask, clicks: tuple[Click, ...]
    ) -> Field:
        """Return the probability (h, w) of the object that clicks correct.

        `part` is what there was before the last one; earlier ones hold.
        """
        kept = window.small(part)
        logits = np.where(kept, np.float32(_KEPT), np.float32(-_KEPT))
        if kept.any() and not kept.all():
            logits += _STILL * self._prior(window, kept, ~kept)
            logits += _COLORS * window.colors.log_ratio(kept)
        logits = _heard(logits, window, clicks[-1])
        for each in clicks:
            near = window.discs(each.places, _DISC)
            logits[near] = _CERTAIN if each.positive else -_CERTAIN
        return window.field(logits)


def _heard(logits: Field, window: PictureWindow, click: Click) -> Field:
    """Let a click count near it, in space and colour."""
    near = np.zeros(window.size, np.float32)
    rows, columns = np.ogrid[: window.size[0], : window.size[1]]
    for row, column in np.argwhere(window.at(click.places)):
        apart = ((window.lab - window.lab[row, column]) ** 2).sum(2) / _LIKE**2
        away = (rows - row) ** 2 + (columns - column) ** 2
        away = away / (_REACH * max(window.size)) ** 2
        np.maximum(near, np.exp(-(apart + away) / 2), out=near)
    sign = 1 if click.positive else -1
    found = ((1 - near) * logits + sign * _CLICK * near).astype(np.float32)
    found[window.discs(click.places, _DISC)] = sign * _CERTAIN
    return found


def pieces_at(mask: Mask, marked: Mask) -> Mask:
    """Return the connected pieces of a mask that hold a marked pixel.

    The whole mask where nothing is marked.
    """
    if not marked.any():
        return mask
    pieces, count = label(mask)
    wanted = np.zeros(count + 1, bool)
    wanted[pieces[marked]] = True
    wanted[0] = False
    found: Mask = wanted[pieces]
    return found


def _stretched(values: Field) -> Field:
    """Return values over their own range, from 0.001 to 1."""
    low, high = float(values.min()), float(values.max())
    found: Field = ((values - low) / max(high - low, 1e-9)).clip(1e-3, 1)
    return found
