"""From clicks to the mask of an object: what a trace knows, asked by pointing.

1. Cells that ask like the clicked one are the object's (`attention.cells`), and so is
   what the tokens of its class find; then cells like those that were found.
2. The colours of both sides add to it (`color_histograms`), and each click does, near
   it in space and colour.
3. A dense mean field (`mean_field`) and the guided filter carry it to the picture's
   edges. It is done twice: in the whole picture, made small, then in a window around
   what was found there, as in f-BRS (Sofiiuk et al., CVPR 2020).
4. A later click changes only the connected piece of change that holds it, and only in
   its direction.

docs/clicks.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_ovam.attention.cells import cell_map
from napari_ovam.segmentation.click_evidence import Click, Evidence, pieces_at
from napari_ovam.segmentation.picture_window import PictureWindow
from napari_ovam.segmentation.thresholds import THRESHOLD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.segmentation.click_evidence import Box
    from napari_ovam.segmentation.picture_window import Field, Mask, Place, Slices

_COARSE = 64  # pixels: the longer side of the picture where an object is looked for
_WINDOWS = 4  # that are kept
_MEMORY = 2**28  # bytes of earlier answers; what was dropped is found again
_BELOW = float(np.nextafter(np.float32(THRESHOLD), np.float32(0)))


@dataclass(frozen=True, eq=False)
class ClickMask:
    """What clicks gave, in the window that they were looked at in.

    Attributes
    ----------
    begin
        (H, W) bool, what there was before the clicks.
    window
        The rows and columns outside of which they changed nothing.
    part, likely
        The mask in the window, (h, w) bool, and how likely the object is there, (h, w)
        float32, in accord with it.
    """

    begin: Mask
    window: Slices
    part: Mask
    likely: Field

    def holds(self, row: float, column: float) -> bool:
        """Whether a place is in the mask; the whole of it is not made for that."""
        place = int(row + 0.5), int(column + 0.5)
        sides = zip(place, self.window, strict=True)
        if all(side.start <= at < side.stop for at, side in sides):
            top, left = (side.start for side in self.window)
            return bool(self.part[place[0] - top, place[1] - left])
        return bool(self.begin[place])

    @cached_property
    def mask(self) -> Mask:
        """(H, W) bool."""
        whole: Mask = self.begin.copy()
        whole[self.window] = self.part
        return whole

    @cached_property
    def probability(self) -> Field:
        """(H, W) float32; outside of the window 0 or 1, as the mask is."""
        whole: Field = self.begin.astype(np.float32)
        whole[self.window] = self.likely
        return whole


def segment_clicks(
    trace: Trace | None,
    image: NDArray[np.uint8],
    clicks: Sequence[Click],
    *,
    box: Box | None = None,
    mask: NDArray[Any] | None = None,
    token: Token | Sequence[Token] = (),
    objects: Token | None = None,
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
    token
        What finds the object's class: a word, an optimized token, or several together.
    objects
        What finds any object; by default what is known of the model.

    Raises
    ------
    ModelMismatchError
        If a token and the trace come from different text encoders.
    ValueError
        If a click is outside of the image, there is nothing to go by, or sizes differ.
    """
    tokens = token if isinstance(token, Sequence) else (token,)
    found = None
    if tokens and trace is not None:
        found = cell_map(trace, tokens)
    segmenter = ClickSegmenter(trace, image, found, objects)
    return segmenter(clicks, box=box, mask=mask)


class _Found(NamedTuple):
    """What there is in a window after a click, and how likely."""

    window: PictureWindow
    part: Mask
    likely: Field


class ClickSegmenter:
    """Answers clicks on one picture; what no click changes is prepared once.

    Parameters
    ----------
    trace, image
        As for `segment_clicks`.
    map
        Where the object's class is seen, of any size (h, w) and range; None if it is
        not known.
    objects
        The token that finds any object; by default `object_token` of the model.
    """

    def __init__(
        self,
        trace: Trace | None,
        image: NDArray[np.uint8],
        map: NDArray[np.float32] | None = None,
        objects: Token | None = None,
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
        self._evidence = Evidence(trace, map, objects)
        self._windows: dict[tuple[int, ...], PictureWindow] = {}
        self._begin: Mask = np.zeros(self._size, bool)
        self._asked: Any = None  # the mask that it was made of
        self._box: Box | None = None
        self._known: dict[tuple[Click, ...], _Found] = {}
        whole = slice(0, self._size[0]), slice(0, self._size[1])
        self._coarse = PictureWindow(image, whole, _COARSE)

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
        if self._asked is not mask or self._box != box:
            self._asked, self._box, self._known = mask, box, {}
            nothing = np.zeros(self._size, bool)
            self._begin = nothing if mask is None else np.asarray(mask) != 0
        found: _Found | None = None
        for count in range(0 if box is not None else 1, len(clicks) + 1):
            so_far = clicks[:count]
            found = self._known.pop(so_far, None) or self._next(found, so_far, box)
            self._known[so_far] = found
            while len(self._known) > max(2, _MEMORY // found.likely.nbytes):
                del self._known[next(iter(self._known))]
        assert found is not None  # noqa: S101 (checked)
        return ClickMask(self._begin, found.window.place, found.part, found.likely)

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
            while len(self._windows) >= _WINDOWS:
                del self._windows[next(iter(self._windows))]
            self._windows[key] = PictureWindow(self._image, place)
        return self._windows[key]

    def _next(
        self, found: _Found | None, clicks: tuple[Click, ...], box: Box | None
    ) -> _Found:
        if not clicks:
            return self._find((), box)
        if found is None:
            places = clicks[-1].places
            here = self._begin[tuple(int(x + 0.5) for x in places[0])]
            if clicks[-1].positive and not here:
                return self._find(places, None)
            # It goes on from the piece of the mask that it is on.
            piece = pieces_at(self._coarse.small(self._begin), self._coarse.at(places))
            window = self._window(self._coarse.around(piece, places))
            part = self._begin[window.place].copy()
            found = _Found(window, part, part.astype(np.float32))
        return self._correct(found, clicks)

    # -- the first click ---------------------------------------------------------------

    def _find(self, places: Sequence[Place], box: Box | None) -> _Found:
        """Look for an object at places or in a box: where it is, then closer."""
        found = self._evidence.look(self._coarse, places, box)
        piece = pieces_at(found >= THRESHOLD, self._coarse.at(places))
        window = self._window(self._coarse.around(piece, box or places))
        found = self._evidence.look(window, places, box)
        likely = window.enlarge(found)
        if box is not None:
            likely *= window.in_box(box, likely.shape)
        pinned = window.pixels(places)
        piece = pieces_at((likely >= THRESHOLD) | pinned, pinned)
        part = self._begin[window.place].copy()
        return _changed(window, part, likely, piece, value=True)

    # -- later clicks ------------------------------------------------------------------

    def _correct(self, found: _Found, clicks: tuple[Click, ...]) -> _Found:
        """Change the connected piece of change that the last click is in."""
        click, value = clicks[-1], clicks[-1].positive
        if not found.window.holds(click.places):
            found = self._widened(found, click)
        window, part = found.window, found.part
        few = part[:: window.step, :: window.step]
        at = window.pixels(click.places)
        if (few[at] == value).all():
            return found
        whole = pieces_at(few, at)
        asked = window.pixels(p for c in clicks[:-1] if c.positive for p in c.places)
        begin = self._begin[window.place][:: window.step, :: window.step]
        if not value and not (whole & (asked | begin)).any():
            # A piece that nobody asked for goes as a whole.
            return _changed(window, part, few * 1.0, whole, value=False)
        held = window.pixels(p for c in clicks if c.positive != value for p in c.places)
        likely = window.enlarge(self._evidence.weigh(window, part, clicks))
        change = ((likely >= THRESHOLD) == value) & (few != value) & ~held | at
        return _changed(window, part, likely, pieces_at(change, at), value=value)

    def _widened(self, found: _Found, click: Click) -> _Found:
        """Return what was found, in a window that holds a click as well."""
        window = self._window(found.window.with_places(click.places))
        part = self._begin[window.place].copy()
        inside = tuple(
            slice(old.start - new.start, old.stop - new.start)
            for old, new in zip(found.window.place, window.place, strict=True)
        )
        part[inside] = found.part
        return _Found(window, part, part.astype(np.float32))


def _changed(
    window: PictureWindow, part: Mask, likely: Field, piece: Mask, *, value: bool
) -> _Found:
    """Give a piece a value; how likely it is shall be in accord with that."""
    part = np.where(window.fill(piece), value, part)
    likely = window.fill(likely)
    likely = np.where(part, np.maximum(likely, THRESHOLD), np.minimum(likely, _BELOW))
    return _Found(window, part, likely.astype(np.float32))
