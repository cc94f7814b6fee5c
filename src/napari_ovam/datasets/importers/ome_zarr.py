"""Pictures and labels of OME-Zarr stores, plane by plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.base.words import shorten
from napari_ovam.datasets.class_lists import ListedClass, as_color
from napari_ovam.datasets.importers.source import (
    UNSURE,
    ImportSourceError,
    Masks,
    Picture,
    Source,
)
from napari_ovam.images.arrays.stacks import STACK
from napari_ovam.images.arrays.stacks import Plane as StackPlane
from napari_ovam.images.ome_zarr import OmeImage, open_images
from napari_ovam.images.ome_zarr_pixels import (
    count_missing,
    finest_level,
    other_axes,
    plane_size,
    planes_of,
    read_plane,
    read_rgb,
)
from napari_ovam.images.ome_zarr_write import resample
from napari_ovam.images.zarr_stores import StoreError, is_remote, is_store, stem_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam.images.ome_zarr_pixels import Plane

_NAMES = ("name", "class_name", "class", "label", "label-name")
"""What stores call the property that names a value's class."""


@dataclass(frozen=True)
class Choice:
    """What of the images of a store is wanted."""

    level: int | None = None  # the size, 0 is the full one; None the first that fits
    # Which channels make the picture; None for those that the store shows.
    channels: Sequence[int] | None = None
    # Which planes, by the names of axes; all by default.
    planes: Mapping[str, range] = field(default_factory=dict)
    # Which label images, in the order in which they are drawn; None for all.
    labels: Sequence[str] | None = None
    # Called while pixels are read; may raise `Cancelled`.
    watch: Progress = no_progress


@dataclass(frozen=True, eq=False)
class StorePicture(Picture):
    """A plane of an image."""

    read_pixels: Callable[[], NDArray[np.uint8]] | None = None

    @property
    def masks_alone(self) -> bool:
        """Never: a plane has pixels."""
        return False

    def read_image(self) -> NDArray[np.uint8]:
        """Return the plane, (H, W, 3) RGB."""
        assert self.read_pixels is not None  # noqa: S101
        return self.read_pixels()


def open_ome_zarr(place: str | Path, choice: Choice | None = None) -> Source:
    """Open a store, an image group in one, or a folder of stores.

    A plane of an image is a picture. Values of label images that have a name are
    classes; all others are objects of a class that is called as the label image.

    It raises `ImportSourceError` if there is no store, or none can be read;
    `TimeoutError` if a remote one does not answer.

    Parameters
    ----------
    place
        A folder, or an URL.
    choice
        What of it is wanted.
    """
    choice = choice or Choice()
    problems: dict[str, list[str]] = {}
    notes: list[str] = []
    table = _Classes()
    pictures: list[Picture] = []
    for store, shown in _stores(str(place)):
        try:
            for image in open_images(store, progress=choice.watch):
                pictures += _pictures(image, shown, choice, table, notes)
        except StoreError as error:
            problems.setdefault(shown, []).append(str(error))
    if not pictures:
        said = [each for many in problems.values() for each in many]
        raise ImportSourceError("; ".join(said) or f"{place} holds no OME-Zarr images")
    path = Path(str(place))
    return Source("ome-zarr", path, table.listed, pictures, notes, problems)


def _stores(place: str) -> list[tuple[str, str]]:
    """Return stores, and what each is called within the data set."""
    if is_remote(place) or not Path(place).is_dir() or is_store(Path(place)):
        return [(place, place.rstrip("/").replace("\\", "/").rpartition("/")[2])]
    root = Path(place)
    found: list[Path] = []
    for path in sorted(root.glob("**/*.zarr")):
        if is_store(path) and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    if not found:
        raise ImportSourceError(f"there is no Zarr store in {place}")
    return [(str(path), path.relative_to(root).as_posix()) for path in found]


def _pictures(
    image: OmeImage,
    shown: str,
    choice: Choice,
    table: _Classes,
    notes: list[str],
) -> list[Picture]:
    names = image.label_names()
    wanted = names if choice.labels is None else list(choice.labels)
    if unknown := [name for name in wanted if name not in names]:
        raise StoreError(
            f"{image.where} has no labels {', '.join(map(repr, unknown))}: there are "
            f"{', '.join(map(repr, names)) or 'none'}"
        )
    layers = [_Layer.of(image.label_image(name), name, table) for name in wanted]
    level = finest_level(image) if choice.level is None else choice.level
    notes += _said_of(image, shown, level, chosen=choice.level is not None)
    size = plane_size(image, level)
    stem = "-".join(filter(None, (stem_of(image.place), image.path.replace("/", "-"))))
    found = []
    for plane in planes_of(image, choice.planes):
        about = {
            "store": {
                "place": str(Path(image.place).resolve())
                if not image.remote
                else image.place,
                "image": image.path,
                "level": level,
                "plane": list(plane),
            },
            **(_placement(image, level) | _stack(image, plane, stem)),
        }
        found.append(
            StorePicture(
                f"{shown}/{stem}{_plane_name(image, plane)}",
                None,
                size,
                partial(_read_masks, image, plane, level, layers, choice.watch),
                unlabelled=not layers,
                about=about,
                read_pixels=partial(
                    read_rgb,
                    image,
                    plane,
                    level=level,
                    channels=choice.channels,
                    progress=choice.watch,
                ),
            )
        )
    return list(found)


def _said_of(image: OmeImage, shown: str, level: int, *, chosen: bool) -> Iterator[str]:
    """Yield what a person should know of an image, as sentences."""
    if level and not chosen:
        height, width = plane_size(image)
        yield (
            f"{shown}: level {level} of {image.where} is taken, as level 0 is too "
            f"large ({width} x {height})"
        )
    missing, blocks = count_missing(image, level)
    if missing:
        yield (
            f"{shown}: {missing} of {blocks} blocks of {image.where} are not in the "
            "store and count as 0: if it should be full, it was cut off"
        )


def _plane_name(image: OmeImage, plane: Plane) -> str:
    """Return a plane as in "-t0-z012", with as many digits as the last one has."""
    shape = image.levels[0].shape
    return "".join(
        f"-{image.axes[axis].name}{place:0{len(str(shape[axis] - 1))}}"
        for axis, place in zip(other_axes(image), plane, strict=True)
        if shape[axis] > 1
    )


def _placement(image: OmeImage, level: int) -> dict[str, Any]:
    """Return where a plane lies in the world, as the provenance of samples says it."""
    at = image.levels[level]
    scale, shift = list(at.scale[-2:]), list(at.translation[-2:])
    units = [axis.unit for axis in image.axes[-2:]]
    found: dict[str, Any] = {}
    if scale != [1, 1]:
        found["scale"] = scale
    if shift != [0, 0]:
        found["translate"] = shift
    if all(units):
        found["units"] = units
    return {"placement": found} if found else {}


def _stack(image: OmeImage, plane: Plane, name: str) -> dict[str, Any]:
    """Return which plane of the image's stack it is, as the provenance says it."""
    axes, whole = other_axes(image), image.levels[0]
    if all(whole.shape[axis] == 1 for axis in axes):
        return {}
    found = StackPlane(
        id=f"{image.place}/{image.path}",
        name=name,
        at=tuple(plane),
        shape=tuple(whole.shape[axis] for axis in axes),
        axes=tuple(image.axes[axis].name for axis in axes),
        scale=tuple(float(whole.scale[axis]) for axis in axes),
        translate=tuple(float(whole.translation[axis]) for axis in axes),
        units=tuple(image.axes[axis].unit or "pixel" for axis in axes),
    )
    return {STACK: found.as_json()}


# -- labels --------------------------------------------------------------------------


class _Classes:
    """The classes of a data set, as they are met."""

    def __init__(self) -> None:
        self.listed: list[ListedClass] = []
        self._places: dict[str, int] = {}

    def place(self, entry: ListedClass) -> int:
        """Return the place of a class, from 1; the first of a name counts."""
        if entry.name not in self._places:
            self.listed.append(entry)
            self._places[entry.name] = len(self.listed)
        return self._places[entry.name]


@dataclass(frozen=True, eq=False)
class _Layer:
    """A label image, and what its values mean."""

    image: OmeImage
    places: Mapping[int, int]  # of values that have a name, or `UNSURE`
    other: int  # the place of all other values
    objects: bool  # whether its values are objects

    @classmethod
    def of(cls, image: OmeImage, name: str, table: _Classes) -> _Layer:
        """Read what the values mean."""
        said = image.about.get("image-label")
        said = said if isinstance(said, Mapping) else {}
        colors = _by_value(said.get("colors"))
        named: dict[int, str] = {}
        places: dict[int, int] = {}
        things: dict[str, bool] = {}
        of_classes = False  # as we write objects: each says its class
        for value, about in _by_value(said.get("properties")).items():
            of_classes |= isinstance(about.get("class"), int)
            if about.get("ignore") is True:
                places[value] = UNSURE
                continue
            words = (about.get(key) for key in _NAMES)
            word = next(
                (w.strip() for w in words if isinstance(w, str) and w.strip()), ""
            )
            if word:
                named[value] = word
                things[word] = about.get("thing") is not False
        several = len(set(named.values())) < len(named) or of_classes
        for value, word in named.items():
            number = value if not several and 0 < value < 1 << 16 else None
            color = _color(colors.get(value, {}))
            entry = ListedClass(word, number, color, things[word])
            places[value] = table.place(entry)
        other = 0
        if not named:
            other = table.place(ListedClass(name))
        return cls(image, places, other, several or not named)


def _by_value(said: Any) -> dict[int, Mapping[str, Any]]:
    """Return what `colors` or `properties` say of each value but 0."""
    found: dict[int, Mapping[str, Any]] = {}
    for each in said if isinstance(said, list) else ():
        value = each.get("label-value") if isinstance(each, Mapping) else None
        if isinstance(value, int) and not isinstance(value, bool) and value:
            found.setdefault(value, each)
    return found


def _color(said: Mapping[str, Any]) -> tuple[int, int, int] | None:
    values = said.get("rgba")
    return as_color(values[:3]) if isinstance(values, list) else None


def _read_masks(
    image: OmeImage,
    plane: Plane,
    level: int,
    layers: Sequence[_Layer],
    watch: Progress,
) -> Masks:
    """Read the label images of a plane, the later ones over the earlier."""
    height, width = plane_size(image, level)
    places = np.zeros((height, width), np.int32)
    objects = np.zeros((height, width), np.int64)
    problems: list[str] = []
    count = 0
    for layer in layers:
        pixels = _label_plane(image, plane, level, layer.image, watch)
        values, inverse = np.unique(pixels, return_inverse=True)
        of_value = [_place_of(int(value), layer) for value in values]
        table = np.array(
            [0 if place is None else place for place in of_value], np.int32
        )
        if unknown := [
            int(v) for v, p in zip(values, of_value, strict=True) if p is None
        ]:
            problems.append(
                f"{layer.image.where} holds values without a name, which are unsure "
                f"(255) now: {shorten(unknown)}"
            )
            table[[p is None for p in of_value]] = UNSURE
        found = table[inverse].reshape(pixels.shape)
        there = found != 0
        places[there] = found[there]
        numbers = np.arange(len(values)) + count + 1 if layer.objects else 0
        objects[there] = np.broadcast_to(numbers, len(values))[inverse].reshape(
            pixels.shape
        )[there]
        count += len(values) if layer.objects else 0
    told = any(layer.objects for layer in layers)
    return Masks(places, objects if told else None, tuple(problems))


def _place_of(value: int, layer: _Layer) -> int | None:
    """Return the place of a value's class; None where it has none."""
    if value == 0:
        return 0
    if value in layer.places:
        return layer.places[value]
    return (layer.other or None) if value > 0 else UNSURE


def _label_plane(
    image: OmeImage, plane: Plane, level: int, labels: OmeImage, watch: Progress
) -> NDArray[Any]:
    """Read the plane of labels that lies over a plane of the picture."""
    at = {
        image.axes[axis].name: place
        for axis, place in zip(other_axes(image), plane, strict=True)
    }
    own = []
    for axis in other_axes(labels):
        place, count = at.get(labels.axes[axis].name, 0), labels.levels[0].shape[axis]
        if not (place < count and (labels.axes[axis].name in at or count == 1)):
            raise StoreError(
                f"{labels.where} has {count} planes along {labels.axes[axis].name!r}, "
                "which the picture has not"
            )
        own.append(place)
    size = plane_size(image, level)
    sizes = [plane_size(labels, number) for number in range(len(labels.levels))]
    taken = sizes.index(size) if size in sizes else 0
    pixels = read_plane(labels, tuple(own), level=taken, progress=watch)
    if pixels.dtype.kind not in "uib":
        raise StoreError(f"{labels.where} holds {pixels.dtype}: labels are integers")
    return resample(pixels, _flat(labels, taken), _flat(image, level))


def _flat(image: OmeImage, level: int) -> Any:
    """Return rows and columns of a level."""
    return image.levels[level].on_axes([-2, -1])
