"""Data sets in the form of Pascal VOC: masks of colours, and masks of objects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.base.words import shorten
from napari_ovam.datasets.class_lists import ListedClass, preset, read_text
from napari_ovam.datasets.exporters.palette import (
    pack_colors,
    unpack_color,
    voc_palette,
)
from napari_ovam.datasets.importers.mask_files import join, suffix
from napari_ovam.datasets.importers.masks import find_places, mask_size, read_mask
from napari_ovam.datasets.importers.search import MASKS, PICTURES, list_files, normal
from napari_ovam.datasets.importers.source import (
    BACKGROUND_WORDS,
    UNSURE,
    ImportSourceError,
    Masks,
    Source,
)
from napari_ovam.images.files import opened
from napari_ovam.images.png import check_exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_MASKS, _OBJECTS = "segmentationclass", "segmentationobject"
_LABELMAP = "labelmap.txt"
_BORDER = (224, 224, 192)  # the colour of 255 in VOC's palette

_Colour = tuple[int, int, int]


def open_voc(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open a folder in the form of Pascal VOC, its masks in palette or RGB PNGs.

    It raises `ImportSourceError` if there are no masks in it or several
    SegmentationClass, or `labelmap.txt` cannot be read.

    Parameters
    ----------
    path
        The folder in which SegmentationClass is, and perhaps SegmentationObject,
        pictures and labelmap.txt; SegmentationClass may be some folders deeper.
    classes
        With ids of VOC's colours, where there is no `labelmap.txt`; by default the 20.
    """
    problems: list[str] = []
    notes: list[str] = []
    root = path.parent if normal(path.name) == _MASKS else path
    files = list_files(root, PICTURES | MASKS, problems)
    masks = [f for f in files if _folder(f, _MASKS) and suffix(f) in MASKS]
    bases = sorted({_folder(mask, _MASKS) for mask in masks})
    if not masks:
        raise ImportSourceError(
            f"there are no masks (*.png) in {path}/SegmentationClass"
        )
    if len(bases) > 1:
        raise ImportSourceError(
            f"there are several data sets in {path}: give one of {shorten(bases)}"
        )
    base = root / Path(bases[0]).parent
    labelmap = next(
        (d / _LABELMAP for d in (base, root) if (d / _LABELMAP).is_file()), None
    )
    if labelmap is not None:
        classes, colours = _read_labelmap(labelmap)
    else:
        classes = [entry for entry in classes or preset("voc") if entry.id != 0]
        colours = _colours_of(classes)
    packed = {
        int(pack_colors(c)): place
        for c, place in {(0, 0, 0): 0, _BORDER: UNSURE, **colours}.items()
    }
    objects = {_within(f, _OBJECTS): f for f in files if _folder(f, _OBJECTS)}
    pictures = [f for f in files if not (_folder(f, _MASKS) or _folder(f, _OBJECTS))]

    def reader(mask: str) -> partial[Masks]:
        apart = objects.get(_key(mask))
        return partial(_read, root / mask, root / apart if apart else None, packed)

    found = join(root, masks, pictures, mask_size, reader, notes)
    where = {path.name: problems} if problems else {}
    kept = (*masks, *(objects[key] for m in masks if (key := _key(m)) in objects))
    return Source("voc", path, classes, found, notes, where, root, kept, packed)


def _folder(path: str, name: str) -> str:
    """Return the part of a path up to a folder of a name; empty if it is in none."""
    parts = path.split("/")
    for depth, part in enumerate(parts[:-1], start=1):
        if normal(part) == name:
            return "/".join(parts[:depth])
    return ""


def _key(mask: str) -> str:
    """Return what a mask of classes and that of its objects have in common."""
    return _within(mask, _MASKS)


def objects_of(mask: str, files: Iterable[str]) -> str | None:
    """Return the place of the objects of a mask among those of files."""
    wanted = _key(mask)
    places = (file for file in files if _folder(file, _OBJECTS))
    return next((file for file in places if _within(file, _OBJECTS) == wanted), None)


def _within(path: str, name: str) -> str:
    """Return the place of a file below a folder of a name, without its ending."""
    below = path[len(_folder(path, name)) + 1 :]
    return below.removesuffix(Path(below).suffix)


def _read(path: Path, objects: Path | None, known: Mapping[int, int]) -> Masks:
    colours = read_colours(path)
    places, problems = find_places(path, colours, known, "colours", unpack_color)
    apart = None
    if objects is not None:
        try:
            apart = read_colours(objects)
        except ValueError as error:
            problems.append(f"objects are not told apart: {error}")
    if apart is not None and apart.shape != places.shape:
        problems.append(
            f"objects are not told apart: {objects} is {apart.shape} pixels and the "
            f"mask {places.shape}"
        )
        apart = None
    return Masks(places, apart, tuple(problems))


def read_colours(path: Path) -> NDArray[np.int64]:
    """Return the colours of a mask, (H, W), as red·65536 + green·256 + blue.

    Grey pixels are ids: they have the colours of VOC's palette.
    """
    with opened(path) as picture:
        check_exact(path, picture)
        colored = picture.mode in ("P", "PA", "RGB", "RGBA")
        pixels = np.asarray(picture.convert("RGB")) if colored else None
    if pixels is None:
        ids = read_mask(path)
        if ids.min() < 0 or ids.max() > 255:
            wrong = ids.min() if ids.min() < 0 else ids.max()
            raise ImportSourceError(
                f"{path.name} holds {wrong}: VOC's palette has 0 to 255"
            )
        pixels = voc_palette()[ids]
    return pack_colors(pixels)


def _colours_of(classes: Sequence[ListedClass]) -> dict[_Colour, int]:
    """Return the places of classes by the colours of their ids in VOC's palette."""
    palette = [tuple(colour) for colour in voc_palette().tolist()]
    colours: dict[_Colour, int] = {}
    for place, entry in enumerate(classes, start=1):
        number = place if entry.id is None else entry.id
        if not 0 < number < len(palette) - 1:
            raise ImportSourceError(
                f"class {entry.name!r} has the id {number}: VOC's palette has 1 to 254"
            )
        red, green, blue = palette[number]
        if (red, green, blue) in colours:
            raise ImportSourceError(f"two classes have the id {number}: mend the list")
        colours[red, green, blue] = place
    return colours


def _read_labelmap(path: Path) -> tuple[list[ListedClass], dict[_Colour, int]]:
    """Return the classes of a labelmap.txt, and their places by colour."""
    palette = [tuple(colour) for colour in voc_palette().tolist()]
    classes: list[ListedClass] = []
    colours: dict[_Colour, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, colour = (part.strip() for part in line.split(":")[:2])
            red, green, blue = (int(value) for value in colour.split(","))
        except ValueError:
            raise ImportSourceError(
                f"{path} line {number} is {line[:60]!r}: it should be NAME:R,G,B::"
            ) from None
        rgb = (red, green, blue)
        taken = next(
            (c.name for c in classes if c.name == name or c.color == rgb), None
        )
        if taken is not None or not all(0 <= value <= 255 for value in rgb):
            raise ImportSourceError(
                f"{path} line {number} is {line[:60]!r}: its name or colour is "
                + (f"that of {taken!r}" if taken is not None else "none")
            )
        black = name.casefold() in BACKGROUND_WORDS and not any(rgb)
        if black or name in ("background", "ignored"):
            colours[rgb] = UNSURE if name == "ignored" else 0
            continue
        # In VOC's own palette the colour says the id.
        known = palette.index(rgb) if rgb in palette else None
        classes.append(ListedClass(name, known, rgb))
        colours[rgb] = len(classes)
    return classes, colours
