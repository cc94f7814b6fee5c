"""From clicks to the mask of an object: what a trace knows, asked by pointing.

1. Cells that ask like the clicked one are the object's (`attention.cells`), and so is
   what the tokens of its class find; then cells like those that were found.
2. The colours of both sides add to it (`color_histograms`), and each click does, near
   it in space and colour.
3. A dense mean field (`mean_field`) and the guided filter carry it to the picture's
   edges. What is small is looked at again in a window of its own, as in f-BRS
   (Sofiiuk et al., CVPR 2020).
4. A later click changes only the connected piece of change that holds it, and only in
   its direction.

docs/clicks.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import label
from skimage.filters import threshold_otsu

from napari_ovam.attention.cells import CellMaps
from napari_ovam.segmentation.picture_window import PictureWindow, Place
from napari_ovam.segmentation.refine import pixel_adaptive
from napari_ovam.segmentation.thresholds import THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.segmentation.picture_window import Field, Mask, Slices

    Box = tuple[Place, Place]

# Of what cells and tokens say: this share of its range is a logit, the most of them,
# and the weight of tokens.
_SHARE, _SUREST, _TOKENS = 0.1, 8.0, 0.5
# How often what was found says what to be like, and the weight of its colours.
_ROUNDS, _COLORS = 1, 0.6
# A click's logit, how far it is heard (deviation in space as a share of the longer
# side, and in units of CIE Lab), and the radius in pixels in which it is certain.
_CLICK, _REACH, _LIKE, _DISC, _CERTAIN = 8.0, 1 / 8, 10.0, 2.0, 30.0
# At a later click: logits of what was found before, and what cells still count.
_KEPT, _STILL = 3.0, 0.5
_WINDOWS = 4  # that are kept
_BELOW = float(np.nextafter(np.float32(THRESHOLD), np.float32(0)))


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


@dataclass(frozen=True, eq=False)
class ClickMask:
    """What clicks gave.

    Attributes
    ----------
    mask
        (H, W) bool.
    window
        Where the last click was looked at; it changed nothing elsewhere.
    inside
        How likely the object is in the window, (h, w) float32, in accord with the mask.
    """

    mask: Mask
    window: Slices
    inside: Field

    @cached_property
    def probability(self) -> Field:
        """(H, W) float32; outside of the window 0 or 1, as the mask is."""
        whole: Field = self.mask.astype(np.float32)
        whole[self.window] = self.inside
        return whole


def segment_clicks(
    trace: Trace | None,
    image: NDArray[np.uint8],
    clicks: Sequence[Click],
    *,
    box: Box | None = None,
    mask: NDArray[Any] | None = None,
    tokens: Sequence[Token] = (),
) -> ClickMask:
    """Return the mask of the object that clicks ask for.

    `ClickSegmenter` answers many clicks on one picture faster.

    Parameters
    ----------
    trace
        Of the picture, from `generate` or `trace_image`; None to go by colours alone.
    image
        (H, W, 3) uint8, RGB.
    clicks
        In the order of clicking: the first that is positive finds an object, each later
        one corrects it around itself. Of two at one place the later counts.
    box
        Two corners, (row, column) each, that hold the object; a first click then
        corrects what was found in it.
    mask
        (H, W), what there is already, anything but 0; clicks on it correct it, and a
        first one beside it adds an object.
    tokens
        What finds the object's class, together, such as its word and an optimized
        token; may be none.

    Raises
    ------
    ModelMismatchError
        If a token and the trace come from different text encoders.
    ValueError
        If a click is outside of the image, there is nothing to go by, or sizes differ.
    """
    return ClickSegmenter(trace, image, tokens)(clicks, box=box, mask=mask)


@dataclass(frozen=True, eq=False)
class _Found:
    """What there is after a click, and where its object is."""

    mask: Mask
    window: PictureWindow
    inside: Field


class ClickSegmenter:
    """Answers clicks on one picture; what no click changes is prepared once.

    Parameters
    ----------
    trace, image, tokens
        As for `segment_clicks`.
    """

    def __init__(
        self,
        trace: Trace | None,
        image: NDArray[np.uint8],
        tokens: Sequence[Token] = (),
    ) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"the image is {image.dtype} of shape {image.shape}: give (H, W, 3) "
                "uint8"
            )
        self._image, self._size = image, (image.shape[0], image.shape[1])
        if trace is not None and trace.image_size != self._size:
            raise ValueError(
                f"the trace is of an image of {trace.image_size}, this one is "
                f"{self._size}"
            )
        self._cells = None if trace is None else CellMaps(trace, tokens)
        self._windows: dict[tuple[int, ...], PictureWindow] = {}
        self._begin: tuple[Any, Any] = (None, None)
        self._known: dict[tuple[Click, ...], _Found] = {}
        self._window(tuple(slice(0, side) for side in self._size))

    def __call__(
        self,
        clicks: Sequence[Click],
        *,
        box: Box | None = None,
        mask: NDArray[Any] | None = None,
    ) -> ClickMask:
        """Return the mask that clicks ask for, as `segment_clicks`.

        Clicks that were answered before, in this order, are not looked at again.
        """
        clicks = tuple(clicks)
        self._check(clicks, box, mask)
        if self._begin[0] is not mask or self._begin[1] != box:
            self._begin, self._known = (mask, box), {}
        found: _Found | None = None
        for count in range(0 if box is not None else 1, len(clicks) + 1):
            so_far = clicks[:count]
            if so_far not in self._known:
                self._known[so_far] = self._next(found, so_far, box, mask)
            found = self._known[so_far]
        assert found is not None  # noqa: S101 (checked)
        return ClickMask(found.mask, found.window.place, found.inside)

    def _check(self, clicks: tuple[Click, ...], box: Box | None, mask: Any) -> None:
        if not clicks and box is None:
            raise ValueError("there is nothing to go by: give a click or a box")
        height, width = self._size
        for click in clicks:
            for row, column in click.places:
                if not (-0.5 <= row < height - 0.5 and -0.5 <= column < width - 0.5):
                    raise ValueError(
                        f"the click at ({row:g}, {column:g}) is outside of the image "
                        f"of {self._size}"
                    )
        if mask is not None and np.shape(mask) != self._size:
            raise ValueError(f"the mask is {np.shape(mask)}, the image {self._size}")
        if box is not None:
            (top, left), (bottom, right) = box
            inside = bottom >= 0 and right >= 0 and top < height and left < width
            if not (inside and top < bottom and left < right):
                raise ValueError(
                    f"the box {box} is none in the image of {self._size}: give "
                    "((top, left), (bottom, right))"
                )

    def _window(self, place: Slices) -> PictureWindow:
        key = tuple(end for side in place for end in (side.start, side.stop))
        if key not in self._windows:
            while len(self._windows) >= _WINDOWS:  # all but the whole picture's
                del self._windows[list(self._windows)[1]]
            self._windows[key] = PictureWindow(self._image, place)
        return self._windows[key]

    # -- the first click ---------------------------------------------------------------

    def _next(
        self, found: _Found | None, clicks: tuple[Click, ...], box: Any, mask: Any
    ) -> _Found:
        if found is None:
            there = np.zeros(self._size, bool) if mask is None else np.asarray(mask) != 0
            if not clicks:
                return self._find(there, (), box)
            first = clicks[-1].places
            here = there[tuple(round(x) for x in first[0])]
            if clicks[-1].positive and not here:
                return self._find(there, first, None)
            found = self._begin_with(there, first)
        return self._correct(found, clicks)

    def _find(self, there: Mask, places: Sequence[Place], box: Box | None) -> _Found:
        """Look for an object at places or in a box, and closer where it is small."""
        window = next(iter(self._windows.values()))
        found = self._look(window, places, box)
        piece = _pieces(found >= THRESHOLD, window.at(places))
        closer = self._window(window.around(piece, box or places))
        if closer is not window:
            window, found = closer, self._look(closer, places, box)
        inside = window.enlarge(found)
        if box is not None:
            inside *= window.in_box(box, inside.shape)
        pinned = window.pixels(places)
        piece = _pieces((inside >= THRESHOLD) | pinned, pinned)
        return self._joined(there, window, inside, piece, value=True)

    def _look(
        self, window: PictureWindow, places: Sequence[Place], box: Box | None
    ) -> Field:
        """Return the probability (h, w) of an object."""
        start = window.at(places)
        here = start if box is None else window.in_box(box, window.size)
        piece, outside = here, None if box is None else ~here
        for again in range(_ROUNDS + 1):
            logits = self._prior(window, piece, outside)
            if again:
                logits = (first + logits) / 2 + _COLORS * window.colors.log_ratio(piece)
            else:
                first = logits
            if box is None:
                logits = _heard(logits, window, Click(*places[0], path=places[1:]))
            else:
                logits = np.where(here, logits, -_CERTAIN)
            found = window.field(logits)
            piece = _pieces(found >= THRESHOLD, start)
            outside = ~piece
        return found

    def _prior(
        self, window: PictureWindow, inside: Mask, outside: Mask | None
    ) -> Field:
        """Return what cells and tokens say, as logits (h, w)."""
        if self._cells is None:
            return np.full(window.size, -1, np.float32)
        grid = self._cells.grid
        against = None if outside is None else window.to_cells(outside, grid)
        alike = self._cells.alike(window.to_cells(inside, grid), against)
        found = _stretched(window.from_cells(alike))
        if self._cells.of_tokens is not None:
            tokens = _stretched(window.from_cells(self._cells.of_tokens))
            found = found ** (1 - _TOKENS) * tokens**_TOKENS
        found = pixel_adaptive(torch.from_numpy(found)[None], window.picture)[0].numpy()
        spread = float(np.ptp(found))
        if spread < 1e-6:
            return np.zeros(window.size, np.float32)
        logits = (found - threshold_otsu(found)) / (_SHARE * spread)
        return logits.clip(-_SUREST, _SUREST).astype(np.float32)

    # -- later clicks ------------------------------------------------------------------

    def _begin_with(self, there: Mask, places: Sequence[Place]) -> _Found:
        """Go on from the piece of a mask that a place is on, or from all of it."""
        whole = next(iter(self._windows.values()))
        mine = _pieces(whole.small(there), whole.at(places))
        window = self._window(whole.around(mine, places))
        return _Found(there, window, there[window.place].astype(np.float32))

    def _correct(self, found: _Found, clicks: tuple[Click, ...]) -> _Found:
        """Change the connected piece of change that the last click is in."""
        click, window, value = clicks[-1], found.window, clicks[-1].positive
        if not window.holds(click.places):
            window = self._window(window.with_places(click.places))
        before = found.mask[window.place][:: window.step, :: window.step]
        at = window.pixels(click.places)
        if (before[at] == value).all():
            return found
        asked = [p for each in clicks[:-1] if each.positive for p in each.places]
        piece = _pieces(before, at)
        if not value and not (piece & window.pixels(asked)).any():
            # A piece that nobody asked for goes as a whole.
            inside = np.where(piece, np.float32(0), before)
            return self._joined(found.mask, window, inside, piece, value=False)
        logits = self._logits(window, window.small(found.mask), clicks)
        inside = window.enlarge(window.field(logits))
        change = (inside >= THRESHOLD) == value
        change &= before != value
        held = [p for each in clicks if each.positive != value for p in each.places]
        change = (change & ~window.pixels(held))
        change |= at
        piece = _pieces(change, at)
        return self._joined(found.mask, window, inside, piece, value=value)

    def _logits(
        self, window: PictureWindow, kept: Mask, clicks: tuple[Click, ...]
    ) -> Field:
        """Return what is known at a click (h, w): before, by cells, colours, clicks."""
        logits = np.where(kept, np.float32(_KEPT), np.float32(-_KEPT))
        if kept.any() and not kept.all():
            logits += _STILL * self._prior(window, kept, ~kept)
            logits += _COLORS * window.colors.log_ratio(kept)
        logits = _heard(logits, window, clicks[-1])
        for each in clicks:
            logits[window.discs(each.places, _DISC)] = (
                _CERTAIN if each.positive else -_CERTAIN
            )
        return logits

    def _joined(
        self,
        mask: Mask,
        window: PictureWindow,
        inside: Field,
        piece: Mask,
        *,
        value: bool,
    ) -> _Found:
        """Give a piece of a window a value; `inside` says how likely, in accord."""
        mask = mask.copy()
        part = mask[window.place]
        part[window.fill(piece)] = value
        sure = window.fill(inside)
        sure = np.where(part, np.maximum(sure, THRESHOLD), np.minimum(sure, _BELOW))
        return _Found(mask, window, sure)


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
    found: Field = (1 - near) * logits + sign * _CLICK * near
    found[window.discs(click.places, _DISC)] = sign * _CERTAIN
    return found


def _pieces(mask: Mask, marked: Mask) -> Mask:
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
