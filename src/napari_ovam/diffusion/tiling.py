"""Tiles that overlap, and one trace put together from those of the tiles.

Where tiles overlap, their queries are cross-faded. Scores are linear in the queries,
so this is the same cross-fade of the tiles' scores, for every text: maps have no
seams, and what comes out is an ordinary trace of larger grids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from napari_ovam.attention.streams import TextStream, join_streams
from napari_ovam.attention.trace import LayerTrace, SelfTrace, Trace, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

# An image is tiled when it is this much larger than the model's size, along a side of
# a square of its area. Below, the model sees more in the whole than in the parts.
TILE_FROM = 1.5
# Of a tile's side. Cells near a tile's border see less around them and count less.
_OVERLAP = 0.25

_Layer = TypeVar("_Layer", LayerTrace, SelfTrace)


@dataclass(frozen=True)
class Tiles:
    """How a picture is cut: all tiles have one size, and cover it."""

    # (H, W) of the picture that is cut, in pixels. The image is scaled to it.
    size: tuple[int, int]
    tile: tuple[int, int]  # (h, w) of each tile, in pixels
    # Where the rows and columns of tiles begin, in pixels.
    tops: tuple[int, ...] = (0,)
    lefts: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (top, left) of each tile, row by row."""
        return ((top, left) for top in self.tops for left in self.lefts)


def plan_tiles(
    image_size: tuple[int, int],
    model_size: tuple[int, int],
    multiple: int,
    max_tiles: int,
) -> Tiles:
    """Return how to cut an image for a model.

    Up to `TILE_FROM` times the model's size, and with `max_tiles` 1, it is one tile of
    about the model's area. A larger image is cut into tiles of the model's size. It is
    never enlarged for that, and made smaller where it would take more than `max_tiles`.

    Parameters
    ----------
    image_size, model_size
        (H, W) in pixels.
    multiple
        Pixels of a cell of the coarsest grid. All sizes and places are multiples of
        it, so that the cells of the tiles are cells of the whole; the aspect is kept
        as far as that allows.
    max_tiles
        At least 1.
    """
    area = math.prod(model_size)
    enlarged = math.sqrt(math.prod(image_size) / area)
    if enlarged <= TILE_FROM or max_tiles == 1:
        size = _whole(image_size, enlarged, area, multiple)
        return Tiles(size, size)
    tile = [max(1, side // multiple) for side in model_size]
    step = [max(1, side - max(1, round(_OVERLAP * side))) for side in tile]
    scale = max(
        min(
            1.0,
            *(
                multiple * (side + (count - 1) * pace) / pixels
                for side, pace, count, pixels in zip(
                    tile, step, (rows, max_tiles // rows), image_size, strict=True
                )
            ),
        )
        for rows in range(1, max_tiles + 1)
    )
    units = [max(1, round(pixels * scale / multiple)) for pixels in image_size]
    tile = [min(side, whole) for side, whole in zip(tile, units, strict=True)]
    tops, lefts = (
        tuple(multiple * start for start in _starts(*each))
        for each in zip(units, tile, step, strict=True)
    )
    return Tiles(
        (multiple * units[0], multiple * units[1]),
        (multiple * tile[0], multiple * tile[1]),
        tops,
        lefts,
    )


def _whole(
    image_size: tuple[int, int], enlarged: float, area: int, multiple: int
) -> tuple[int, int]:
    """Return about the model's area. A very long image gets the least height."""
    most = max(1, area // multiple**2)
    height, width = (
        multiple * min(max(1, round(side / enlarged / multiple)), most)
        for side in image_size
    )
    return height, width


def _starts(whole: int, tile: int, step: int) -> list[int]:
    """Return evenly spread starts, the first at 0 and the last tile at the end."""
    count = math.ceil(max(0, whole - tile) / step) + 1
    return [round(i * (whole - tile) / max(1, count - 1)) for i in range(count)]


class Mosaic:
    """Puts the traces of tiles together, one tile after the other.

    No more is held than the whole and one tile.

    Parameters
    ----------
    tiles
        How the picture was cut.
    calls
        How many calls the trace will have.
    """

    def __init__(self, tiles: Tiles, calls: int) -> None:
        self._tiles = tiles
        self._calls = calls
        self._first: Trace | None = None
        self._whole: dict[tuple[str, str], Tensor] = {}
        self._streams: list[TextStream] = []  # in the order of calls: one tile only

    def add(
        self,
        trace: Trace,
        call: int,
        top: int,
        left: int,
        *,
        mirrored: bool = False,
    ) -> None:
        """Add one call of the tile at (top, left), from a trace of that call alone.

        `mirrored` says that the model saw the tile with left and right exchanged.
        """
        self._first = self._first or trace
        if trace.stream is not None:
            self._streams.append(replace(trace.stream, mirrored=(mirrored,)))
        for layer in trace.all_layers:
            rows, columns = self._place(layer.grid, top, left)
            weight = torch.outer(
                self._fade(layer.grid, 0, top), self._fade(layer.grid, 1, left)
            )
            height, width = self._grid(layer.grid)
            for part in recorded(layer):
                cells = getattr(layer, part)[0].unflatten(1, layer.grid)
                if mirrored:
                    cells = cells.flip(2)
                whole = self._whole.get((layer.name, part))
                if whole is None:
                    shape = self._calls, len(cells), height, width, cells.shape[-1]
                    whole = cells.new_zeros(shape)
                    self._whole[layer.name, part] = whole
                whole[call, :, rows, columns] += cells * weight.to(cells)[..., None]

    def trace(self, image_size: tuple[int, int]) -> Trace:
        """Return the whole, of an image of (H, W) pixels; call it once, at the end."""
        first = self._first
        if first is None:
            raise ValueError("no tile was added")
        if self._streams:
            stream = join_streams(self._streams)
            calls = tuple(range(self._calls))
            first = replace(first, layers=stream.layers, stream=stream, calls=calls)
        return replace(
            first,
            image_size=image_size,
            calls=tuple(range(self._calls)),
            layers=tuple(self._joined(layer) for layer in first.layers),
            self_layers=tuple(self._joined(layer) for layer in first.self_layers),
        )

    def _joined(self, layer: _Layer) -> _Layer:
        parts: dict[str, Any] = {
            part: self._whole.pop((layer.name, part)).flatten(2, 3)
            for part in recorded(layer)
        }
        if not parts:
            return layer
        return replace(layer, grid=self._grid(layer.grid), **parts)

    def _grid(self, tile: tuple[int, int]) -> tuple[int, int]:
        """Return the cells of the whole where a tile has (h, w)."""
        height, width = (
            cells * whole // part
            for cells, whole, part in zip(
                tile, self._tiles.size, self._tiles.tile, strict=True
            )
        )
        return height, width

    def _place(self, grid: tuple[int, int], top: int, left: int) -> tuple[slice, slice]:
        first, second = (
            start * cells // pixels
            for start, cells, pixels in zip(
                (top, left), grid, self._tiles.tile, strict=True
            )
        )
        return slice(first, first + grid[0]), slice(second, second + grid[1])

    def _fade(self, grid: tuple[int, int], axis: int, start: int) -> Tensor:
        """Return a tile's weights along an axis; those of all tiles add up to 1.

        They rise with the distance from the tile's border: linearly in the overlap.
        """
        cells = grid[axis]
        centres = torch.arange(cells, dtype=torch.float64) + 0.5
        rise = torch.minimum(centres, cells - centres)
        total = torch.zeros(self._grid(grid)[axis], dtype=torch.float64)
        for other in (self._tiles.tops, self._tiles.lefts)[axis]:
            total[self._cells(grid, axis, other)] += rise
        return rise / total[self._cells(grid, axis, start)]

    def _cells(self, grid: tuple[int, int], axis: int, start: int) -> slice:
        return self._place(grid, start, start)[axis]


def joined(coarse: Trace, fine: Trace) -> Trace:
    """Return one trace of one image with the calls of both, on the grids of `fine`.

    The queries of `coarse` are resized bilinearly, and so are its scores with them. Its
    calls come first.
    """

    def both(first: _Layer, second: _Layer) -> _Layer:
        parts: dict[str, Any] = {}
        for part in recorded(second):
            cells = getattr(first, part).unflatten(2, first.grid).movedim(-1, 2)
            resized = functional.interpolate(
                cells.flatten(0, 1).float(), second.grid, mode="bilinear"
            )
            resized = resized.unflatten(0, cells.shape[:2]).movedim(2, -1).flatten(2, 3)
            values = getattr(second, part)
            parts[part] = torch.cat([resized.to(values), values])
        return replace(second, **parts)

    pairs = zip(coarse.layers, fine.layers, strict=True)
    self_pairs = zip(coarse.self_layers, fine.self_layers, strict=True)
    return replace(
        fine,
        calls=tuple(range(len(coarse.calls) + len(fine.calls))),
        layers=tuple(both(*pair) for pair in pairs),
        self_layers=tuple(both(*pair) for pair in self_pairs),
    )
