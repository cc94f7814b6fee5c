"""Writes OME-Zarr: pyramids of pictures and labels, each read back and compared."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.atomic import replacing
from napari_ovam.images.ome_zarr import VERSIONS, Axis, Level
from napari_ovam.images.zarr_stores import StoreError, zarr_library

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_SMALLEST = 512  # the longer side of the last level is at most this
_BLOCK = 512


@dataclass(frozen=True)
class Frame:
    """Where an array lies: its axes, and the levels that it is written in."""

    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]

    @classmethod
    def of(
        cls,
        axes: Sequence[Axis],
        shape: Sequence[int],
        scale: Sequence[float] | None = None,
        translation: Sequence[float] | None = None,
    ) -> Frame:
        """Return a frame of halved levels, down to about 512 pixels a side.

        It raises `StoreError` if the numbers do not fit the axes.
        """
        scale = tuple(map(float, scale or (1,) * len(shape)))
        translation = tuple(map(float, translation or (0,) * len(shape)))
        if not len(axes) == len(shape) == len(scale) == len(translation):
            raise StoreError(
                f"{len(axes)} axes, a shape of {len(shape)}, {len(scale)} scales and "
                f"{len(translation)} translations do not fit together"
            )
        levels = [Level("0", tuple(shape), scale, translation)]
        while max(levels[-1].shape[-2:]) > _SMALLEST:
            last, number = levels[-1], len(levels)
            halved = tuple((side + 1) // 2 for side in last.shape[-2:])
            # The levels take every second pixel: the first one stays where it is.
            doubled = tuple(2 * each for each in last.scale[-2:])
            levels.append(
                Level(
                    str(number),
                    last.shape[:-2] + halved,
                    last.scale[:-2] + doubled,
                    last.translation,
                )
            )
        return cls(tuple(axes), tuple(levels))


@dataclass(frozen=True)
class About:
    """What a group says besides where its pixels lie."""

    name: str
    # Beside "multiscales": "omero", "image-label".
    ome: Mapping[str, Any] = field(default_factory=dict)
    # Of other programs: beside "ome", or all else in 0.4.
    other: Mapping[str, Any] = field(default_factory=dict)


def write_pyramid(
    folder: Path, pixels: NDArray[Any], frame: Frame, about: About, version: str
) -> None:
    """Write an array as a group of all its levels, and read it back.

    Levels take the nearest pixel, so that no value is made that was not there.

    It raises `StoreError` if the version is unknown, the array does not fit, or it
    reads back differently; `OSError` if it cannot be written, such as on a full disk.

    Parameters
    ----------
    folder
        A new one.
    pixels
        Integers, of the shape of one of the frame's levels: finer ones repeat it.
    frame, about, version
        What is said of it; the version is one of `VERSIONS`.
    """
    zarr = zarr_library()
    if version not in VERSIONS:
        raise StoreError(
            f"the version is {version!r}: {' and '.join(VERSIONS)} are written"
        )
    known = [n for n, each in enumerate(frame.levels) if each.shape == pixels.shape]
    if not known or pixels.dtype.kind not in "ui":
        raise StoreError(
            f"{folder.name}: pixels of {pixels.shape} {pixels.dtype} do not fit levels "
            f"of {', '.join(str(each.shape) for each in frame.levels)} integers"
        )
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    group = zarr.create_group(folder, zarr_format=_zarr_format(version))
    for level in frame.levels:
        levelled = resample(pixels, frame.levels[known[0]], level)
        shape = levelled.shape
        array = group.create_array(
            level.path,
            shape=shape,
            dtype=levelled.dtype,
            chunks=(*(1 for _ in shape[:-2]), *(min(_BLOCK, n) for n in shape[-2:])),
            fill_value=0,
            **_keys(version, frame.axes),
        )
        array[...] = levelled
    group.attrs.update(_attributes(frame, about, version))
    for level in frame.levels:
        written = zarr.open_group(folder, mode="r")[level.path][...]
        if not np.array_equal(written, resample(pixels, frame.levels[known[0]], level)):
            raise StoreError(
                f"{folder.name}/{level.path} reads back differently from what was "
                "written: write it again"
            )


def resample(pixels: NDArray[Any], at: Level, to: Level) -> NDArray[Any]:
    """Return the nearest pixels where those of another level lie; of any axes."""
    if at.shape == to.shape:
        return pixels
    for axis in range(pixels.ndim):
        if at.shape[axis] == to.shape[axis]:
            continue
        world = np.arange(to.shape[axis]) * to.scale[axis] + to.translation[axis]
        places = (world - at.translation[axis]) / at.scale[axis]
        # Half-way between two, the first one: levels that are means lie so.
        nearest = np.ceil(places - 0.5).astype(np.int64)
        pixels = pixels.take(nearest.clip(0, at.shape[axis] - 1), axis)
    return pixels


def list_labels(folder: Path, names: Sequence[str], version: str) -> None:
    """Write the list of a group `labels`, which is made where it is missing."""
    zarr = zarr_library()
    if not folder.exists():
        zarr.create_group(folder, zarr_format=_zarr_format(version))
    change_metadata(folder, version, {"labels": list(names)})


def change_metadata(folder: Path, version: str, changes: Mapping[str, Any]) -> None:
    """Change what a group says, whole or not at all; the rest of it stays."""
    path = folder / (".zattrs" if version == "0.4" else "zarr.json")
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if version == "0.4":
        content |= dict(changes)
    else:
        attributes = content.setdefault("attributes", {})
        inner = attributes.setdefault("ome", {})
        inner |= {"version": version, **changes}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _zarr_format(version: str) -> int:
    return 2 if version == "0.4" else 3


def _keys(version: str, axes: Sequence[Axis]) -> dict[str, Any]:
    """Return how blocks are named: "/" between numbers, and axes where Zarr 3 can."""
    if version == "0.4":
        return {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    return {"dimension_names": [axis.name for axis in axes]}


def _moves(level: Level) -> list[dict[str, Any]]:
    scale = {"type": "scale", "scale": list(level.scale)}
    shift = {"type": "translation", "translation": list(level.translation)}
    return [scale, shift] if any(level.translation) else [scale]


def _attributes(frame: Frame, about: About, version: str) -> dict[str, Any]:
    scales = {
        "name": about.name,
        "axes": [axis.to_json() for axis in frame.axes],
        "datasets": [
            {
                "path": level.path,
                "coordinateTransformations": _moves(level),
            }
            for level in frame.levels
        ],
        "type": "nearest",
        "metadata": {"description": "every pixel of a level is one of level 0"},
    }
    if version == "0.4":
        return {
            "multiscales": [{"version": version, **scales}],
            **about.ome,
            **about.other,
        }
    ome = {"version": version, "multiscales": [scales], **about.ome}
    return {"ome": ome, **about.other}
