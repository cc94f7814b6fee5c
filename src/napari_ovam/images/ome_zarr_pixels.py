"""Pixels of OME-Zarr images: planes of any level, and channels as one RGB picture."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.images.faults import MAX_PIXELS
from napari_ovam.images.pixels import stretch
from napari_ovam.images.zarr_stores import SECONDS, StoreError, asked, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_ovam.images.ome_zarr import Channel, OmeImage

Plane = tuple[int, ...]
"""Where a plane is on each axis that is neither channel, row nor column."""

_COLORS = (
    *((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    *((0, 255, 255), (255, 0, 255), (255, 255, 0)),
)
_BAND = 1 << 22  # values that are turned into colours at a time


def planes_of(
    image: OmeImage, ranges: Mapping[str, range] | None = None
) -> Iterator[Plane]:
    """Yield the planes of an image, all or those in ranges, by the names of axes.

    It raises `StoreError` if an axis is none to choose on, or is not so long.
    """
    ranges = dict(ranges or {})
    shape = image.levels[0].shape
    chosen = []
    for number in other_axes(image):
        axis = image.axes[number]
        found = ranges.pop(axis.name, range(shape[number]))
        if found and not 0 <= found[0] <= found[-1] < shape[number]:
            raise StoreError(
                f"{image.where} has {shape[number]} planes along {axis.name!r}, from "
                f"0, and {found[0]} to {found[-1]} are asked for"
            )
        chosen.append(found)
    if ranges:
        names = [image.axes[number].name for number in other_axes(image)]
        raise StoreError(
            f"{image.where} has no planes along {', '.join(map(repr, ranges))}: "
            f"choose on {', '.join(map(repr, names)) or 'none, as it is flat'}"
        )
    yield from product(*chosen)


def other_axes(image: OmeImage) -> list[int]:
    """Return the numbers of the axes that are neither channel, row nor column."""
    channel = image.axis("channel")
    return [number for number in range(len(image.axes) - 2) if number != channel]


def plane_size(image: OmeImage, level: int = 0) -> tuple[int, int]:
    """Return (H, W) of a level."""
    height, width = image.levels[_level(image, level)].shape[-2:]
    return height, width


def finest_level(image: OmeImage) -> int:
    """Return the first level that is not too large to be a picture; 0 if none is."""
    sizes = [plane_size(image, number) for number in range(len(image.levels))]
    fits = (n for n, (h, w) in enumerate(sizes) if h * w <= MAX_PIXELS)
    return next(fits, 0)


def count_missing(image: OmeImage, level: int = 0) -> tuple[int, int]:
    """Return how many blocks of a level are not in a local store, and of how many.

    Zarr reads them as 0, which a store may mean so; so does one that was cut off.
    """
    if image.remote:
        return 0, 0
    with named(image.where):
        array = image.array(level)
        total = int(np.prod(array.cdata_shape)) if array.shards is None else 0
        return total and total - int(array.nchunks_initialized), total


def read_plane(
    image: OmeImage,
    plane: Plane = (),
    *,
    level: int = 0,
    channel: int = 0,
    seconds: float = SECONDS,
    progress: Progress = no_progress,
) -> NDArray[Any]:
    """Read one plane of one channel as it is stored, (H, W).

    It raises `StoreError` if it is broken or too large; `TimeoutError` if a remote
    store does not answer for one part in time.

    Parameters
    ----------
    image, plane, level
        Of `open_images`, and `planes_of`.
    channel
        Its number; 0 where there is no axis of channels.
    seconds
        How long a remote store may take for each part.
    progress
        Called with (rows done, all rows); may raise `Cancelled`.
    """
    height, width = plane_size(image, level)
    _check_size(image, level)
    array = image.array(level)
    at: list[Any] = [0] * (len(image.axes) - 2)
    for number, place in zip(other_axes(image), plane, strict=True):
        at[number] = place
    if (axis := image.axis("channel")) is not None:
        at[axis] = channel
    rows = (array.shards or array.chunks)[-2]
    with named(image.where):
        pixels = np.zeros((height, width), array.dtype)
        for start in range(0, height, rows):
            band = (*at, slice(start, start + rows))

            def read(band: tuple[Any, ...] = band) -> NDArray[Any]:
                return np.asarray(array[band])

            part = asked(image.place, read, seconds=seconds, progress=progress)
            pixels[start : start + rows] = part
            progress(min(start + rows, height), height)
    return pixels


def read_rgb(
    image: OmeImage,
    plane: Plane = (),
    *,
    level: int = 0,
    channels: Sequence[int] | None = None,
    progress: Progress = no_progress,
) -> NDArray[np.uint8]:
    """Read a plane as (H, W, 3) RGB, its channels added up in their colours.

    One channel is grey. Values are stretched from the channel's window, as `omero` says
    it, else 8 bits are as they are, and others from 0 to the largest. Channels without
    a colour are red, green, blue, cyan, magenta and yellow.

    Parameters
    ----------
    channels
        Which, in the order of the colours for those without one; by default the active
        ones, or the first three where nothing says which.
    image, plane, level, progress
        As in `read_plane`; with its errors.
    """
    chosen = list(channels) if channels is not None else _shown(image)
    if not chosen or any(not 0 <= each < len(image.channels) for each in chosen):
        raise StoreError(
            f"{image.where} has the channels 0 to {len(image.channels) - 1}, and "
            f"{', '.join(map(str, chosen)) or 'none'} are asked for"
        )
    height, width = plane_size(image, level)
    _check_size(image, level)
    mixed = np.zeros((height, width, 3), np.float32 if len(chosen) > 1 else np.uint8)
    rows = max(1, _BAND // max(width, 1))
    for number, channel in enumerate(chosen):

        def part(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(chosen) * total)

        how = {"level": level, "channel": channel}
        values = read_plane(image, plane, **how, progress=part)
        grey = _grey(image, image.channels[channel], values)
        if len(chosen) == 1:
            mixed[:] = grey[..., None]
            break
        color = image.channels[channel].color or _COLORS[number % len(_COLORS)]
        share = np.asarray(color, np.float32) / 255
        for start in range(0, height, rows):
            band = slice(start, start + rows)
            mixed[band] += grey[band, :, None] * share
    return mixed.clip(0, 255).round().astype(np.uint8)


def _shown(image: OmeImage) -> list[int]:
    """Return the channels that a store wants to be shown."""
    if "omero" not in image.about:
        return list(range(min(3, len(image.channels))))
    active = [n for n, channel in enumerate(image.channels) if channel.active]
    return active or [0]


def _grey(image: OmeImage, channel: Channel, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values as 0 to 255."""
    window = channel.window
    if window is None and values.dtype == np.uint8:
        return values
    if window is None:
        return stretch(Path(image.where), values)
    low, high = window
    scaled = (values.astype(np.float32) - low) * (255 / (high - low))
    grey: NDArray[np.uint8] = np.nan_to_num(scaled).clip(0, 255).round().astype("u1")
    return grey


def _level(image: OmeImage, level: int) -> int:
    if not 0 <= level < len(image.levels):
        raise StoreError(
            f"{image.where} has the levels 0 to {len(image.levels) - 1}, and {level} "
            "is asked for"
        )
    return level


def _check_size(image: OmeImage, level: int) -> None:
    """Refuse a level that is too large to be a picture, and name one that is not."""
    height, width = plane_size(image, level)
    if 0 < height * width <= MAX_PIXELS:
        return
    finest = finest_level(image)
    advice = f"take level {finest}" if finest else "cut it into parts"
    raise StoreError(
        f"{image.where} has {height * width / 1e6:.0f} million pixels at level "
        f"{level}, {width} x {height}, and {MAX_PIXELS // 10**6} million are the "
        f"limit: {advice}"
    )
