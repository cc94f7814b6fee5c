"""A window of a picture, small enough to answer a click at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import find_objects
from skimage.color import rgb2lab
from torch.nn import functional

from napari_ovam.segmentation.color_histograms import ColorHistograms
from napari_ovam.segmentation.mean_field import MeanField
from napari_ovam.segmentation.refine import GuidedFilter, PixelAdaptive, resized

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Field = NDArray[np.float32]
    Slices = tuple[slice, slice]

Place = tuple[float, float]  # row, column; (0, 0) is the middle of the first pixel

# The longer side of what is looked at, in pixels; of what comes out, at most; and how
# many times a small window is enlarged, at most.
_SIDE, _MOST, _ENLARGED = 128, 2048, 2
# A window is so many times larger than what it is for, holds at least so many pixels
# (of the picture, and of the window that it was found in), and is the whole picture
# from that share of it.
_MARGIN, _LEAST, _SEEN, _WHOLE = 1.6, 48, 4, 0.7


class PictureWindow:
    """What clicks are answered with in a part of a picture: no click changes it.

    Attributes
    ----------
    place
        The part.
    size
        (h, w) at which it is looked at.
    step
        What comes out has every so manieth pixel of the part.
    picture, lab, alike, edges, colors, field
        The part at that size, (3, h, w) from 0 to 1 and (h, w, 3) in CIE Lab, and what
        was prepared of it.
    """

    def __init__(
        self, image: NDArray[np.uint8], place: Slices, side: int = _SIDE
    ) -> None:
        self.place, self._whole = place, (image.shape[0], image.shape[1])
        part = image[place]
        longest = max(part.shape[:2])
        self.step = -(-longest // _MOST)
        self._part = np.ascontiguousarray(part[:: self.step, :: self.step])
        scale = min(side, _ENLARGED * longest) / longest
        height, width = (max(1, round(side * scale)) for side in part.shape[:2])
        self.size = height, width
        self.picture = resized(np.moveaxis(self._part, 2, 0), self.size) / 255
        colors = self.picture.permute(1, 2, 0).numpy()
        self.lab = rgb2lab(colors).astype(np.float32)
        self.alike = PixelAdaptive(self.picture)
        self.edges = GuidedFilter(self.picture)
        self.colors = ColorHistograms(colors)
        self.field = MeanField(self.lab)

    # -- places ------------------------------------------------------------------------

    def holds(self, places: Iterable[Place]) -> bool:
        """Whether all places are in it."""
        return all(map(self._holds, places))

    def at(self, places: Iterable[Place]) -> Mask:
        """Return the pixels (h, w) of places; those outside have none."""
        marked = np.zeros(self.size, bool)
        for place in filter(self._holds, places):
            row, column = (
                min(int((x + 0.5 - side.start) * n / (side.stop - side.start)), n - 1)
                for x, side, n in zip(place, self.place, self.size, strict=True)
            )
            marked[row, column] = True
        return marked

    def discs(self, places: Iterable[Place], radius: float) -> Mask:
        """Return the pixels (h, w) around places."""
        rows, columns = np.ogrid[: self.size[0], : self.size[1]]
        found = np.zeros(self.size, bool)
        for row, column in np.argwhere(self.at(places)):
            found |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        return found

    def pixels(self, places: Iterable[Place]) -> Mask:
        """Return the pixels of places in what `enlarge` returns."""
        marked = np.zeros(self._part.shape[:2], bool)
        for place in filter(self._holds, places):
            row, column = (
                int(x + 0.5 - side.start) // self.step
                for x, side in zip(place, self.place, strict=True)
            )
            marked[row, column] = True
        return marked

    def _holds(self, place: Place) -> bool:
        return all(
            side.start - 0.5 <= x < side.stop - 0.5
            for x, side in zip(place, self.place, strict=True)
        )

    def in_box(self, box: tuple[Place, Place], size: tuple[int, ...]) -> Mask:
        """Return what of `size` pixels of the window is between two corners."""
        rows, columns = (
            side.start + (np.arange(n) + 0.5) * (side.stop - side.start) / n - 0.5
            for side, n in zip(self.place, size, strict=True)
        )
        (top, left), (bottom, right) = box
        inside: Mask = ((rows >= top) & (rows <= bottom))[:, None] & (
            (columns >= left) & (columns <= right)
        )
        return inside

    def around(self, mask: Mask, places: Iterable[Place]) -> Slices:
        """Return the window around a mask (h, w) of this one, and places."""
        spans = []
        box = find_objects(mask.astype(np.uint8))
        for axis, (side, n) in enumerate(zip(self.place, self.size, strict=True)):
            ends = [place[axis] for place in places]
            if box:
                scale = (side.stop - side.start) / n
                part = box[0][axis]
                ends += [
                    side.start + part.start * scale,
                    side.start + part.stop * scale,
                ]
            spans.append((min(ends), max(ends)))
        return self._widened(spans)

    def with_places(self, places: Iterable[Place]) -> Slices:
        """Return the window around this one and places."""
        spans = []
        for axis, side in enumerate(self.place):
            ends = [place[axis] for place in places]
            spans.append((min(side.start, *ends), max(side.stop, *ends)))
        return self._widened(spans)

    def _widened(self, spans: list[tuple[float, float]]) -> Slices:
        pixel = max(side.stop - side.start for side in self.place) / max(self.size)
        # What is too small to be seen here is within some pixels.
        least = max(_LEAST, _SEEN * pixel)
        length = max(least, _MARGIN * max(high - low for low, high in spans))
        if length >= _WHOLE * max(self._whole):
            return slice(0, self._whole[0]), slice(0, self._whole[1])
        found = []
        for (low, high), whole in zip(spans, self._whole, strict=True):
            side = min(round(length), whole)
            start = int(np.clip(round((low + high - side) / 2), 0, whole - side))
            found.append(slice(start, start + side))
        return found[0], found[1]

    # -- values ------------------------------------------------------------------------

    def small(self, mask: Mask) -> Mask:
        """Return a mask of the part at the pixels (h, w)."""
        part = mask[:: self.step, :: self.step]
        return resized(part[None], self.size)[0].numpy() >= 0.5

    def enlarge(self, found: Field) -> Field:
        """Return what was found (h, w) at every `step` pixels of the part."""
        large: Field = self.edges.enlarge(torch.from_numpy(found)[None], self._part)[0]
        return large

    def fill(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what has a value every `step` pixels at all pixels of the part."""
        if self.step == 1:
            return values
        height, width = (side.stop - side.start for side in self.place)
        return values.repeat(self.step, 0).repeat(self.step, 1)[:height, :width]

    def from_cells(self, cells: Field) -> Field:
        """Return what the cells of the whole picture hold, at the pixels (h, w)."""
        y, x = (
            torch.from_numpy(2 * axis - 1).float() for axis in self._shares(self.size)
        )
        places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
        found: Field = functional.grid_sample(
            torch.from_numpy(cells)[None, None],
            places,
            padding_mode="border",
            align_corners=False,
        )[0, 0].numpy()
        return found

    def to_cells(self, mask: Mask, grid: tuple[int, int]) -> Field:
        """Return how much of a mask (h, w) is in each cell of the whole picture."""
        rows, columns = (
            (axis * cells).astype(int)
            for axis, cells in zip(self._shares(self.size), grid, strict=True)
        )
        cells = (rows[:, None] * grid[1] + columns)[mask]
        counts = np.bincount(cells, minlength=grid[0] * grid[1])
        result: Field = counts.reshape(grid).astype(np.float32)
        return result

    def _shares(self, size: tuple[int, ...]) -> list[NDArray[np.float64]]:
        """Return where the pixels' middles are, as shares of the whole picture."""
        return [
            (side.start + (np.arange(n) + 0.5) * (side.stop - side.start) / n) / whole
            for side, n, whole in zip(self.place, size, self._whole, strict=True)
        ]
