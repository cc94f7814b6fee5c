"""OME-Zarr stores: the images in one, where they lie, and their pixels when asked for.

Versions 0.4 (Zarr 2) and 0.5 (Zarr 3) of the specification, https://ngff.openmicroscopy
.org. By zarr itself: ome-zarr and ngff-zarr bring several times as much with them, and
neither takes pixels and labels as they are (docs/export.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.images.zarr_stores import (
    HEADS,
    SECONDS,
    StoreError,
    asked,
    is_remote,
    named,
    stem_of,
    zarr_library,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ("0.4", "0.5")
"""What is read and written."""


@dataclass(frozen=True)
class Axis:
    """An axis: its name, kind ("space", "time", "channel" or other) and unit."""

    name: str
    kind: str
    unit: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as stores say it."""
        found = {"name": self.name, "type": self.kind, "unit": self.unit}
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Level:
    """One of the sizes of an image: where it is, and where it lies in the world."""

    path: str  # of the array in the image's group
    shape: tuple[int, ...]
    scale: tuple[float, ...]  # world units a pixel, an axis each
    translation: tuple[float, ...]  # of the first pixel's middle

    def on_axes(self, axes: Sequence[int]) -> Level:
        """Return it with some of its axes only, by their numbers."""
        both = zip(self.shape, self.scale, self.translation, strict=True)
        every = list(both)
        return Level(self.path, *zip(*(every[n] for n in axes), strict=True))


@dataclass(frozen=True)
class Channel:
    """How a channel is to be shown."""

    name: str
    color: tuple[int, int, int] | None = None
    window: tuple[float, float] | None = None  # the values of black and full colour
    active: bool = True


@dataclass(frozen=True, eq=False)
class OmeImage:
    """An image of a store, or a label image: pixels are read when they are asked for.

    Attributes
    ----------
    place
        The store as it was given, for messages.
    path
        Of the image's group in the store; empty for the store's own.
    group
        The zarr group.
    about
        The OME metadata of the group.
    """

    place: str
    path: str
    group: Any
    version: str
    about: Mapping[str, Any]
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    channels: tuple[Channel, ...] = ()

    @property
    def name(self) -> str:
        """What the store calls it, or its place."""
        said = str(self.about["multiscales"][0].get("name") or "").strip("/")
        return said.rpartition("/")[2] or self.path or stem_of(self.place)

    @property
    def remote(self) -> bool:
        """Whether it is not on a disk of this computer."""
        return is_remote(self.place)

    def axis(self, kind: str) -> int | None:
        """Return the number of the first axis of a kind, None if there is none."""
        kinds = [axis.kind for axis in self.axes]
        return kinds.index(kind) if kind in kinds else None

    def array(self, level: int = 0) -> Any:
        """Return the zarr array of a level, which reads what is sliced of it."""
        path = self.levels[level].path
        with named(self.where):
            return asked(self.place, lambda: self.group[path])

    @property
    def where(self) -> str:
        """The place of the image, for messages."""
        return f"{self.place}/{self.path}" if self.path else self.place

    def label_names(self) -> list[str]:
        """Return the names of the label images beside the picture.

        It raises `StoreError` if they are none.
        """

        def look() -> Any:
            found = self.group.get("labels")
            return [] if found is None else _metadata(found).get("labels", [])

        with named(self.where):
            names = asked(self.place, look)
            if not isinstance(names, list):
                raise StoreError(f"{self.where}/labels: {names!r} is no list of names")
            return [str(name) for name in names]

    def label_image(self, name: str) -> OmeImage:
        """Return a label image beside the picture.

        It raises `StoreError` if it is missing or none.
        """
        path = f"labels/{name}"
        with named(f"{self.where}/{path}"):
            within = f"{self.path}/{path}" if self.path else path
            return asked(
                self.place, lambda: _image(self.place, within, self.group[path])
            )


def open_images(
    place: str | Path, *, seconds: float = SECONDS, progress: Progress = no_progress
) -> list[OmeImage]:
    """Return the images of a store: of the group that is given, or its series.

    It raises `StoreError` if there is no store, it is of an unknown version, cut off or
    a plate; `TimeoutError` if a remote one does not answer.

    Parameters
    ----------
    place
        A folder, or an URL (`https://`, `s3://`).
    seconds, progress
        As in `wait_for`, for remote stores.
    """
    place = str(place)
    return asked(
        place, lambda: list(_images(place)), seconds=seconds, progress=progress
    )


# -- groups --------------------------------------------------------------------------


def _images(place: str) -> Iterator[OmeImage]:
    zarr = zarr_library()
    if not is_remote(place):
        folder = Path(place.removeprefix("file://"))
        if not folder.exists():
            raise StoreError(f"there is no {place}")
        if not any((folder / head).is_file() for head in HEADS):
            raise StoreError(f"{place} is no Zarr store: give the folder of one")
    with named(place):
        root = zarr.open(place, mode="r")
        if isinstance(root, zarr.Array):
            raise StoreError(
                f"{place} is a Zarr array without OME metadata: give the OME-Zarr "
                "group that it lies in"
            )
        for path in _paths(place, root):
            yield _image(place, path, root[path] if path else root)


def _paths(place: str, root: Any) -> list[str]:
    """Return the groups of images in a store."""
    about = _metadata(root)
    if "plate" in about:
        raise StoreError(
            f"{place} is a plate: give one of its images, such as {place}/A/1/0"
        )
    if "multiscales" in about:
        return [""]
    if "labels" in about:
        raise StoreError(f"{place} holds labels: give the store that they lie in")
    if isinstance(well := about.get("well"), Mapping):
        return [str(image["path"]) for image in well.get("images", [])]
    series: list[str] = []
    if "OME" in root:
        series = [str(each) for each in _metadata(root["OME"]).get("series", [])]
    if not series and "bioformats2raw.layout" in about:
        while (path := str(len(series))) in root:
            series.append(path)
    if not series:
        raise StoreError(
            f"{place} is a Zarr group without OME metadata: give a group with images"
        )
    return series


def _metadata(group: Any) -> Mapping[str, Any]:
    """Return the OME metadata of a group: under "ome" since 0.5."""
    about = group.attrs.asdict()
    inner = about.get("ome", about)
    return inner if isinstance(inner, Mapping) else {}


def _image(place: str, path: str, group: Any) -> OmeImage:
    where = f"{place}/{path}" if path else place
    about = _metadata(group)
    scales = about.get("multiscales")
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], Mapping):
        raise StoreError(f"{where} has no 'multiscales': it is no OME-Zarr image")
    version = _version(where, about, scales[0])
    axes = _axes(where, scales[0])
    levels = []
    for data in scales[0].get("datasets") or ():
        path_ = str(data["path"])
        try:
            shape = tuple(map(int, group[path_].shape))
        except KeyError as error:
            raise StoreError(
                f"{where}: the level {path_!r} is missing: the store is cut off"
            ) from error
        if len(shape) != len(axes):
            raise StoreError(
                f"{where}: the level {path_!r} is {shape}, and there are {len(axes)} "
                "axes"
            )
        moves = [*_moves(data), *_moves(scales[0])]
        levels.append(Level(path_, shape, *_placed(where, moves, len(axes))))
    if not levels:
        raise StoreError(f"{where} has no 'datasets': the store is cut off")
    channels = _channels(about, axes, levels[0])
    return OmeImage(place, path, group, version, about, axes, tuple(levels), channels)


def _version(where: str, about: Mapping[str, Any], scales: Mapping[str, Any]) -> str:
    said = about.get("version", scales.get("version"))
    if said is None and _moves((scales.get("datasets") or [{}])[0]):
        return "0.4"  # where a version should, but need not, be said
    if str(said) not in VERSIONS:
        raise StoreError(
            f"{where} is OME-Zarr of the version {said!r}, and "
            f"{' and '.join(VERSIONS)} are read: convert it"
        )
    return str(said)


def _axes(where: str, scales: Mapping[str, Any]) -> tuple[Axis, ...]:
    axes = tuple(
        Axis(
            str(each.get("name", number)),
            str(each.get("type", "")),
            str(each.get("unit") or ""),
        )
        for number, each in enumerate(scales.get("axes") or ())
        if isinstance(each, Mapping)
    )
    kinds = [axis.kind for axis in axes]
    if not 2 <= len(axes) <= 5 or kinds[-2:] != ["space", "space"]:
        raise StoreError(
            f"{where} has the axes {', '.join(a.name for a in axes) or '(none)'}: two "
            "to five are known, the last two of them rows and columns in space"
        )
    return axes


def _moves(holder: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return holder.get("coordinateTransformations") or ()


def _placed(
    where: str, moves: Sequence[Mapping[str, Any]], count: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return scale and translation of transformations one after the other."""
    scale, translation = [1.0] * count, [0.0] * count
    for move in moves:
        kind = str(move.get("type"))
        values = [_number(each) for each in move.get(kind, ())]
        if kind == "identity":
            continue
        if (
            kind not in ("scale", "translation")
            or len(values) != count
            or not all(map(math.isfinite, values))
            or (kind == "scale" and 0 in values)
        ):
            raise StoreError(
                f"{where} has the transformation {dict(move)}, which places nothing: "
                f"a scale or translation of {count} numbers is known, not 0 or infinite"
            )
        if kind == "scale":
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            translation = [a * b for a, b in zip(translation, values, strict=True)]
        else:
            translation = [a + b for a, b in zip(translation, values, strict=True)]
    return tuple(scale), tuple(translation)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _channels(
    about: Mapping[str, Any], axes: tuple[Axis, ...], level: Level
) -> tuple[Channel, ...]:
    """Return the channels as `omero` says them; what it says wrongly is left out."""
    kinds = [axis.kind for axis in axes]
    count = level.shape[kinds.index("channel")] if "channel" in kinds else 1
    said = about.get("omero")
    listed = said.get("channels") if isinstance(said, Mapping) else None
    listed = listed if isinstance(listed, list) else []
    return tuple(
        _channel(number, listed[number] if number < len(listed) else None)
        for number in range(count)
    )


def _channel(number: int, said: Any) -> Channel:
    said = said if isinstance(said, Mapping) else {}
    color = window = None
    with suppress(ValueError, TypeError, KeyError):
        red, green, blue = bytes.fromhex(str(said["color"]).lstrip("#")[:6])
        color = red, green, blue
    with suppress(ValueError, TypeError, KeyError):
        low, high = float(said["window"]["start"]), float(said["window"]["end"])
        if math.isfinite(low) and math.isfinite(high) and low < high:
            window = low, high
    name = str(said.get("label") or f"channel {number}")
    return Channel(name, color, window, said.get("active") is not False)
