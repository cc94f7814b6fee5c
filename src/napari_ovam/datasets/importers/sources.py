"""Masks of other data sets, read one image at a time: indexed PNGs and Pascal VOC.

COCO is read in `import_coco`. Whatever the form, masks come out as places in the list
of classes, counted from 1, with 0 for the background and -1 for "unsure".
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.ids import IGNORE
from napari_ovam.datasets.class_lists import ListedClass, preset, read_class_list
from napari_ovam.datasets.exporters.palette import voc_palette
from napari_ovam.images.files import opened
from napari_ovam.images.png import read_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

UNSURE = -1
_MASKS = ("labels", "masks", "ann_dir", "annotations")
_IMAGES = ("images", "img_dir", "JPEGImages")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_VOC_BORDER = (224, 224, 192)  # the colour of 255 in VOC's palette


class ImportSourceError(ValueError):
    """A data set that cannot be read; the message names its place."""


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of one image.

    Attributes
    ----------
    places
        (H, W) int32: places in the list of classes from 1, 0, or `UNSURE`.
    objects
        (H, W) integers that differ between objects, or None where they are not told
        apart.
    """

    places: NDArray[np.int32]
    objects: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Entry:
    """An image of a data set: its name, its file if it has one, its masks when read."""

    name: str
    image: Path | None
    read: Callable[[], Masks]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set: its form, where it is, its classes and its images."""

    form: str
    path: Path
    classes: Sequence[ListedClass]
    entries: Sequence[Entry]


def open_indexed(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open a folder of PNGs of class ids, as `indexed`, ADE20K and MMSegmentation have.

    Parameters
    ----------
    path
        The masks are in its folder labels, masks, ann_dir or annotations, else in
        itself; the images in images or img_dir. Both may have folders such as train.
    classes
        With ids, or in the order of ids from 1; by default those of `classes.json`,
        else each id becomes a class of that number.

    Raises
    ------
    ImportSourceError
        If there are no masks in it.
    """
    masks = next((path / n for n in _MASKS if (path / n).is_dir()), path)
    table, ignore = path / "classes.json", IGNORE
    if table.is_file():
        classes = classes or read_class_list(table)
        ignore = _ignore_of(table)
    files = _files(masks)
    if not files:
        raise ImportSourceError(f"there are no masks (*.png) in {masks}")
    if classes is None:
        classes = _numbered(files.values(), ignore)
    table_of = _places(classes, ignore)
    images = _images(path)
    return Source(
        "indexed",
        path,
        classes,
        [
            Entry(name, images.get(key), partial(_read_indexed, file, table_of))
            for name, (key, file) in _named(files).items()
        ],
    )


def open_voc(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open a folder in the form of Pascal VOC, its masks in palette or RGB PNGs.

    Parameters
    ----------
    path
        The folder that holds SegmentationClass, and perhaps JPEGImages,
        SegmentationObject and labelmap.txt.
    classes
        With ids of VOC's colours, where there is no `labelmap.txt`; by default the 20.

    Raises
    ------
    ImportSourceError
        If there are no masks in it, or `labelmap.txt` cannot be read.
    """
    folder = path / "SegmentationClass"
    files = _files(folder)
    if not files:
        raise ImportSourceError(f"there are no masks (*.png) in {folder}")
    colours: dict[tuple[int, int, int], int] = {}
    if (path / "labelmap.txt").is_file():
        classes, colours = _read_labelmap(path / "labelmap.txt")
    else:
        classes = classes or preset("voc")
        palette = voc_palette()
        for place, entry in enumerate(classes, start=1):
            red, green, blue = palette[(entry.id or place) % 256].tolist()
            colours[red, green, blue] = place
    colours = {(0, 0, 0): 0, _VOC_BORDER: UNSURE, **colours}
    images = _images(path)
    return Source(
        "voc",
        path,
        classes,
        [
            Entry(
                name,
                images.get(key),
                partial(
                    _read_voc, file, path / "SegmentationObject" / file.name, colours
                ),
            )
            for name, (key, file) in _named(files).items()
        ],
    )


def _read_indexed(path: Path, table: NDArray[np.int32]) -> Masks:
    ids = read_ids(path)
    places = table[ids]
    unknown = np.unique(ids[places < UNSURE])
    if len(unknown):
        shown = ", ".join(map(str, unknown[:5].tolist()))
        raise ImportSourceError(f"{path.name} holds ids without a class: {shown}")
    return Masks(places)


def _read_voc(
    path: Path, objects: Path, colours: dict[tuple[int, int, int], int]
) -> Masks:
    packed = _packed(path)
    found, inverse = np.unique(packed, return_inverse=True)
    known = {r << 16 | g << 8 | b: place for (r, g, b), place in colours.items()}
    unknown = [value for value in found.tolist() if value not in known]
    if unknown:
        value = unknown[0]
        rgb = (value >> 16, value >> 8 & 255, value & 255)
        raise ImportSourceError(
            f"{path.name} holds the colour {rgb}, which is no class"
        )
    table = np.array([known[value] for value in found.tolist()], np.int32)
    places = table[inverse.reshape(packed.shape)]
    apart = _packed(objects) if objects.is_file() else None
    if apart is not None and apart.shape != places.shape:
        raise ImportSourceError(
            f"{objects.name} is {apart.shape} pixels in SegmentationObject and "
            f"{places.shape} in SegmentationClass"
        )
    return Masks(places, apart)


def _packed(path: Path) -> NDArray[np.int64]:
    """Return the colours of a mask, (H, W), as red·65536 + green·256 + blue."""
    with opened(path) as picture:
        picture.load()
        mode = picture.mode
        pixels = np.asarray(picture if mode in ("L", "P") else picture.convert("RGB"))
        palette = voc_palette()
        if mode == "P":
            own = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
            palette = np.zeros((256, 3), np.uint8)
            palette[: len(own)] = own
    if pixels.ndim == 2:
        pixels = palette[pixels]
    red, green, blue = np.moveaxis(pixels.astype(np.int64), 2, 0)
    packed: NDArray[np.int64] = red << 16 | green << 8 | blue
    return packed


def _read_labelmap(
    path: Path,
) -> tuple[list[ListedClass], dict[tuple[int, int, int], int]]:
    """Return the classes of a labelmap.txt, and their places by colour."""
    palette = [tuple(colour) for colour in voc_palette().tolist()]
    classes: list[ListedClass] = []
    colours: dict[tuple[int, int, int], int] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, colour = line.split(":")[:2]
            red, green, blue = (int(value) for value in colour.split(","))
        except ValueError:
            raise ImportSourceError(
                f"{path} line {number} is {line[:60]!r}: it should be NAME:R,G,B::"
            ) from None
        rgb = (red, green, blue)
        if name in ("background", "ignored"):
            colours[rgb] = 0 if name == "background" else UNSURE
            continue
        # In VOC's own palette the colour says the id.
        known = palette.index(rgb) if rgb in palette else None
        classes.append(ListedClass(name, known, rgb))
        colours[rgb] = len(classes)
    return classes, colours


def _places(classes: Sequence[ListedClass], ignore: int) -> NDArray[np.int32]:
    """Return the place of each id, (65536,); less than `UNSURE` where it has none."""
    table = np.full(1 << 16, UNSURE - 1, np.int32)
    for place, entry in enumerate(classes, start=1):
        number = place if entry.id is None else entry.id
        if 0 <= number < len(table):
            table[number] = place
    table[0], table[ignore] = 0, UNSURE
    return table


def _numbered(files: Iterable[Path], ignore: int) -> list[ListedClass]:
    ids: set[int] = set()
    for file in files:
        ids.update(np.unique(read_ids(file)).tolist())
    return [ListedClass(f"class {i}", i) for i in sorted(ids - {0, ignore})]


def _ignore_of(table: Path) -> int:
    content = json.loads(table.read_text(encoding="utf-8"))
    ignore = content.get("ignore", IGNORE) if isinstance(content, dict) else IGNORE
    return ignore if isinstance(ignore, int) and 0 < ignore < 1 << 16 else IGNORE


def _files(folder: Path) -> dict[str, Path]:
    """Return the PNGs of a folder by their place in it, without an ending."""
    found = sorted(folder.rglob("*.png")) if folder.is_dir() else []
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in found}


def _images(path: Path) -> dict[str, Path]:
    """Return the images of a data set by their place, without an ending."""
    found: dict[str, Path] = {}
    for name in _IMAGES:
        folder = path / name
        for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if file.suffix.lower() in _SUFFIXES:
                key = file.relative_to(folder).with_suffix("").as_posix()
                found.setdefault(key, file)
    return found


def _named(files: dict[str, Path]) -> dict[str, tuple[str, Path]]:
    """Return (place, file) by name: the file's, with its folders where not unique."""
    count = Counter(file.stem for file in files.values())
    return {
        file.stem if count[file.stem] == 1 else key.replace("/", "-"): (key, file)
        for key, file in files.items()
    }
