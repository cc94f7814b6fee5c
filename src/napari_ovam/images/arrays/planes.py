"""Pictures out of arrays of any kind: planes of a stack, levels, channels.

Arrays may be lazy (dask, zarr): no more is read of them than the picture that is asked
for, in bands, so that reading reports progress and can be cancelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.progress import Cancelled, no_progress
from napari_ovam.base.waiting import wait_for
from napari_ovam.images.pixels import over_white

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_ovam.base.progress import Progress

LARGEST = 8192
"""The longest side of a picture that is taken out of a pyramid, in pixels."""

_BAND = 32_000_000  # bytes that are read at a time, where the array's blocks allow


@dataclass(frozen=True, eq=False)
class Shown:
    """An array as it is shown.

    Attributes
    ----------
    name
        Whose it is, for messages.
    levels
        The array, or a pyramid of it with the largest first: whatever has `shape`,
        `dtype` and can be sliced.
    rgb
        Whether its last axis is colour.
    limits
        The values of black and white; those of the type where None (0 and 1 for
        floats).
    channel
        Which index of which axes it is, where they are channels.
    colors
        (256, 3) uint8 of the values from black to white; None for grey.
    """

    name: str
    levels: Sequence[Any]
    rgb: bool = False
    limits: tuple[float, float] | None = None
    channel: Mapping[int, int] = field(default_factory=dict)
    colors: NDArray[np.uint8] | None = None

    @property
    def axes(self) -> list[int]:
        """The axes of planes, then rows and columns."""
        count = len(self.levels[0].shape) - self.rgb
        return [axis for axis in range(count) if axis not in self.channel]

    def size(self, level: int) -> tuple[int, int]:
        """Return (H, W) of its pictures at a level."""
        height, width = (self.levels[level].shape[axis] for axis in self.axes[-2:])
        return int(height), int(width)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of arrays that are shown as one: their colours are added.

    Attributes
    ----------
    shown
        One, or several of the same size.
    level
        Which level of the pyramid its pictures are.
    """

    shown: tuple[Shown, ...]
    level: int = 0

    @classmethod
    def of(cls, *shown: Shown, largest: int = LARGEST) -> Pictures:
        """Return the pictures of the largest level that is not larger than a side.

        One that is no pyramid is taken as it is.

        Raises
        ------
        ValueError
            If they are no pictures of one size.
        """
        for each in shown:
            _check(each)
        sizes = [each.size(0) for each in shown]
        planes = [_planes(each) for each in shown]
        if len(set(sizes)) > 1 or len(set(planes)) > 1:
            raise ValueError(
                f"the layers {', '.join(repr(s.name) for s in shown)} are of different "
                f"sizes ({', '.join(map(str, sizes))}): show only those of one picture"
            )
        count = min(len(each.levels) for each in shown)
        fits = (n for n in range(count) if max(shown[0].size(n)) <= largest)
        return cls(shown, next(fits, count - 1))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the pictures."""
        return self.shown[0].size(self.level)

    @property
    def pixel(self) -> tuple[float, float]:
        """How many pixels of the largest level one of the pictures is high and wide."""
        whole = zip(self.shown[0].size(0), self.size, strict=True)
        down, right = (large / small for large, small in whole)
        return down, right

    @property
    def planes(self) -> tuple[int, ...]:
        """How many planes there are along each axis; empty for a single picture."""
        return _planes(self.shown[0])

    def read(
        self, at: Sequence[int] = (), progress: Progress = no_progress
    ) -> NDArray[np.uint8]:
        """Read one picture, (H, W, 3) uint8.

        Parameters
        ----------
        at
            Which plane, along each axis.
        progress
            Called with what was read and all, in rows; may raise `Cancelled`, which
            takes effect at once: a block that does not come is left behind.

        Raises
        ------
        ValueError
            If a part of it cannot be read, or holds values that are not finite.
        """
        done, total = 0, self.size[0] * len(self.shown)
        progress(done, total)
        picture: NDArray[Any] = np.zeros((*self.size, 3), np.uint8)
        for each in self.shown:
            array = each.levels[self.level]
            where: list[Any] = [slice(None)] * len(array.shape)
            planes, (rows, _) = each.axes[:-2], each.axes[-2:]
            for axis, index in zip(planes, at, strict=True):  # fewer, where coarser
                whole = each.levels[0].shape[axis]
                where[axis] = index * array.shape[axis] // whole
            for axis, index in each.channel.items():
                where[axis] = index
            for band in _bands(array, rows, self.size[1]):
                where[rows] = band
                check = partial(progress, done, total)
                part = _read(each, array, tuple(where), check)
                if each.colors is None:
                    more = to_rgb(part, each.name, rgb=each.rgb, limits=each.limits)
                else:
                    more = each.colors[_levels(part, each.name, each.limits)]
                # what is too bright is white
                picture[band] += np.minimum(more, 255 - picture[band])
                done += band.stop - band.start
                progress(done, total)
        return picture


def to_rgb(
    data: NDArray[Any],
    name: str,
    *,
    rgb: bool,
    limits: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Convert grey, RGB or RGBA pixels of any type to (H, W, 3) uint8.

    Parameters
    ----------
    data
        (H, W), or (H, W, 3 or 4) where `rgb`.
    name
        Whose pixels they are, for the message.
    rgb
        Whether the last axis is colour.
    limits
        As in `Shown`.

    Raises
    ------
    ValueError
        If there are values that are not finite.
    """
    levels = _levels(data, name, limits)
    if not rgb:
        return np.repeat(levels[..., None], 3, axis=-1)
    if levels.shape[-1] == 4:  # as image viewers show them
        return over_white(levels[..., :3], levels[..., 3])
    return np.ascontiguousarray(levels[..., :3])


def _levels(
    data: NDArray[Any], name: str, limits: tuple[float, float] | None
) -> NDArray[np.uint8]:
    """Return values as 0 to 255, from black to white."""
    if limits is None:
        whole = np.issubdtype(data.dtype, np.integer)
        limits = (0.0, float(np.iinfo(data.dtype).max) if whole else 1.0)
    if data.dtype == np.uint8 and limits == (0.0, 255.0):
        return data
    low, high = limits
    values = data.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name!r} holds NaN or infinite values: replace them")
    scaled = (values - low) / ((high - low) or 1.0)
    levels: NDArray[np.uint8] = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    return levels


def _bands(array: Any, axis: int, width: int) -> list[slice]:
    """Return the rows that are read at a time: whole blocks, of about 32 MB."""
    count = array.shape[axis]
    if isinstance(array, np.ndarray):
        step = max(1, _BAND // max(1, width * array.dtype.itemsize))
    else:
        chunks = getattr(array, "chunks", None)
        block = chunks[axis] if chunks else 1  # of dask: a tuple of all blocks
        block = max(block) if isinstance(block, tuple) else int(block)
        step = block * max(1, _BAND // (block * width * array.dtype.itemsize))
    return [slice(top, min(top + step, count)) for top in range(0, count, step)]


def _read(
    shown: Shown, array: Any, where: tuple[Any, ...], check: Callable[[], None]
) -> NDArray[Any]:
    """Read a part of an array; what is lazy in a thread that can be left behind."""
    if isinstance(array, np.ndarray):
        there: NDArray[Any] = array[where]
        return there

    def look() -> NDArray[Any]:
        return np.asarray(array[where])

    try:
        return wait_for(look, shown.name, progress=lambda *_: check())
    except Cancelled:
        raise
    except Exception as error:  # dask, zarr and their codecs raise any kind
        rows = where[shown.axes[-2]]
        why = str(error) or type(error).__name__
        raise ValueError(
            f"{shown.name!r} cannot be read in rows {rows.start} to {rows.stop}: {why}"
        ) from error


def _planes(shown: Shown) -> tuple[int, ...]:
    return tuple(int(shown.levels[0].shape[axis]) for axis in shown.axes[:-2])


def _check(shown: Shown) -> None:
    shape = tuple(shown.levels[0].shape)
    if len(shown.axes) < 2:
        raise ValueError(
            f"{shown.name!r} has the shape {shape}: a picture has rows and columns"
        )
    if 0 in shape:
        raise ValueError(f"{shown.name!r} has no pixels: {shape}")
    if shown.rgb and shape[-1] not in (3, 4):
        raise ValueError(f"{shown.name!r} has {shape[-1]} colours and not 3 or 4")
