"""Labels of one picture of a stack or film, carried on to the next ones.

Each object is looked for near where it was: by cells that ask as its own did in the
picture before (`attention.cells`), by its colours there, and by its place; then by the
colours of what was found, carried to the edges by the dense mean field. Of several
objects each pixel goes to the likeliest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label

from napari_ovam.base.ids import IGNORE
from napari_ovam.segmentation.click_evidence import Evidence
from napari_ovam.segmentation.color_histograms import ColorHistograms
from napari_ovam.segmentation.picture_window import PictureWindow
from napari_ovam.segmentation.thresholds import THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.segmentation.picture_window import Field, Mask, Slices

    Ids = NDArray[np.integer[Any]]

# How far an object may move, as a share of its longer side, and at least, in pixels.
_MOVE, _LEAST = 0.35, 4.0
# What its place says: the logit at the place, and the least far from it.
_THERE, _AWAY = 1.0, -4.0
# The weights of cells like its own, and of colours.
_CELLS, _COLORS = 0.25, 0.6


def propagate(
    labels: Ids,
    images: Sequence[NDArray[np.uint8]],
    traces: Sequence[Trace | None] | None = None,
    *,
    objects: Token | None = None,
) -> Iterator[Ids]:
    """Carry labels of the first picture on through a stack, one after another.

    Parameters
    ----------
    labels
        (H, W) class ids of the first picture; connected pieces are objects, and unsure
        pixels (255) none.
    images
        (H, W, 3) uint8 RGB each, in their order; the first is the one of the labels.
    traces
        Of the images; None, or None among them, to go by colours and place.
    objects
        What finds any object; by default what is known of the model.

    Yields
    ------
    (H, W) class ids of the next picture. An object that is not found ends.

    Raises
    ------
    ValueError
        If there are not as many traces as images, or sizes differ.
    """
    several: Sequence[Trace | None] = traces or [None] * len(images)
    if len(several) != len(images):
        raise ValueError(f"{len(images)} images and {len(several)} traces: give pairs")
    before: _Picture | None = None
    for number, (image, trace) in enumerate(zip(images, several, strict=True)):
        if image.shape[:2] != labels.shape:
            raise ValueError(
                f"image {number} is {image.shape[:2]}, the labels {labels.shape}"
            )
        now = _Picture(image, Evidence(trace, None, objects))
        if before is not None:
            labels = _carried(labels, before, now)
            yield labels
        before = now


class _Picture(NamedTuple):
    image: NDArray[np.uint8]
    evidence: Evidence

    def window(self, place: Slices) -> PictureWindow:
        return PictureWindow(self.image, place)


def _carried(labels: Ids, before: _Picture, now: _Picture) -> Ids:
    """Return the labels of a picture by those of the one before."""
    found = np.zeros_like(labels)
    best = np.full(labels.shape, np.float32(THRESHOLD))
    whole = now.window((slice(0, labels.shape[0]), slice(0, labels.shape[1])))
    for number in np.unique(labels[(labels != 0) & (labels != IGNORE)]).tolist():
        pieces, _ = label(labels == number, np.ones((3, 3)))
        for index, box in enumerate(find_objects(pieces), start=1):
            reach = max(_LEAST, _MOVE * max(side.stop - side.start for side in box))
            corners = [
                (box[0].start - reach, box[1].start - reach),
                (box[0].stop + reach, box[1].stop + reach),
            ]
            place = whole.around(np.zeros(whole.size, bool), corners)
            piece = (pieces == index)[place]
            likely = _looked_for(piece, reach, before, now, place)
            better = likely >= best[place]
            found[place][better] = number
            best[place][better] = likely[better]
    return found


def _looked_for(
    piece: Mask, reach: float, before: _Picture, now: _Picture, place: Slices
) -> Field:
    """Return how likely an object is where, in a window of the next picture.

    Parameters
    ----------
    piece
        The object in that window of the picture before.
    reach
        How far it moves, in pixels.
    """
    old, new = before.window(place), now.window(place)
    inside = old.small(piece)
    scale = max(inside.shape) / max(piece.shape)
    logits = _near(inside, reach * scale)
    logits += _CELLS * now.evidence.like(new, before.evidence, old, inside)
    logits += _COLORS * _colors_of(inside, old, new)
    likely = new.field(logits)
    again = likely >= THRESHOLD
    if again.any() and not again.all():
        logits += _COLORS * new.colors.log_ratio(again)
        likely = new.field(logits)
    return new.fill(new.enlarge(likely))


def _near(inside: Mask, reach: float) -> Field:
    """Return what its place says of an object, as logits (h, w)."""
    away = distance_transform_edt(~inside) / reach
    near: Field = (_THERE + (_AWAY - _THERE) * away**2).astype(np.float32)
    return near.clip(2 * _AWAY, _THERE)


def _colors_of(inside: Mask, old: PictureWindow, new: PictureWindow) -> Field:
    """Return what the colours that an object had say of the next picture, (h, w)."""
    both = np.concatenate(
        [np.moveaxis(each.picture.numpy(), 0, 2) for each in (old, new)]
    )
    there = np.zeros(both.shape[:2], bool)
    there[: len(inside)] = True
    region = there.copy()
    region[: len(inside)] = inside
    return ColorHistograms(both).log_ratio(region, there)[len(inside) :]
