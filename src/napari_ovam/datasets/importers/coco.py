"""COCO's instances, wherever their JSON and pictures lie."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from napari_ovam.base.ids import IGNORE
from napari_ovam.datasets.class_lists import ListedClass, plain, whole
from napari_ovam.datasets.importers.coco_masks import ERRORS, draw
from napari_ovam.datasets.importers.search import (
    PICTURES,
    kind_of,
    list_around,
    list_files,
    normal,
    pair,
    place_of,
)
from napari_ovam.datasets.importers.source import (
    UNSURE,
    ImportSourceError,
    Masks,
    Picture,
    Source,
    shorten,
)
from napari_ovam.datasets.importers.turning import read_orientation
from napari_ovam.images.files import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

_LISTS = ("images", "annotations", "categories")
_Annotation = dict[str, Any]


@dataclass
class _File:
    """A JSON of COCO: its place in the data set, and what was understood of it."""

    place: str
    images: list[dict[str, Any]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    annotations: dict[int, list[_Annotation]] = field(default_factory=dict)
    categories: dict[Hashable, str] = field(default_factory=dict)
    several: bool = False
    problems: list[str] = field(default_factory=list)


def open_coco(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open COCO's instances.

    Parameters
    ----------
    path
        A JSON, or a folder with one or several, in whatever folders. Pictures are
        looked for below it, and below the folder around that of a JSON which has none
        beside it: by the names in the JSON, whose folders may be another computer's.
    classes
        Not used: the file has them.

    Raises
    ------
    ImportSourceError
        If there is no such file, or several that speak of the same pictures.
    """
    del classes
    root = path.parent if path.is_file() else path
    problems: dict[str, list[str]] = defaultdict(list)
    places = (
        [path.name]
        if path.is_file()
        else list_files(root, [".json"], problems[path.name])
    )
    listed: dict[str, ListedClass] = {}
    files, strangers = [], {}
    for place in places:
        try:
            files.append(_read_json(root, place, listed))
        except ImportSourceError as error:
            strangers[place] = str(error)
    files = _instances_of(files, strangers)
    if not files:
        why = "; ".join(f"{p}: {s}" for p, s in list(strangers.items())[:3])
        raise ImportSourceError(
            f"there is no JSON of COCO instances in {path}"
            + (f" ({why})" if why else "")
        )
    for place, why in strangers.items():
        if "broken" in why:
            problems[place].append(why)
    pictures, notes = _pictures(root, files, listed, problems[path.name])
    for file in files:
        problems[file.place] += file.problems
    return Source(
        "coco",
        path,
        list(listed.values()),
        pictures,
        notes,
        {place: said for place, said in problems.items() if said},
    )


# -- the JSON ------------------------------------------------------------------------


def _read_json(root: Path, place: str, listed: dict[str, ListedClass]) -> _File:
    """Read a JSON, and add its classes to those that are listed."""
    try:
        content = json.loads((root / place).read_text(encoding="utf-8-sig"))
    except (*ERRORS, OSError, MemoryError) as error:
        raise ImportSourceError(f"it is broken or no JSON: {error}") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in _LISTS
    ):
        raise ImportSourceError(f"it has not the lists {', '.join(_LISTS)}")
    if any("segments_info" in a for a in content["annotations"] if isinstance(a, dict)):
        raise ImportSourceError("it is panoptic: its masks are pictures")
    file = _File(place)
    _take_categories(file, content["categories"], listed)
    _take_images(file, content["images"])
    _take_annotations(file, content["annotations"])
    return file


def _instances_of(files: list[_File], strangers: dict[str, str]) -> list[_File]:
    """Return the files to read: those named after instances, where any is."""
    named = [file for file in files if "instances" in normal(Path(file.place).name)]
    for file in files if named else ():
        if file not in named:
            strangers[file.place] = "not read: others are named after instances"
    return named or files


def _take_categories(
    file: _File, categories: Iterable[Any], listed: dict[str, ListedClass]
) -> None:
    bad: list[Any] = []
    for category in categories:
        try:
            name, number = plain(category["name"]), category["id"]
            entry = ListedClass(name, whole(number), _colour(category.get("color")))
            entry = replace(entry, thing=bool(category.get("isthing", True)))
        except ERRORS:
            bad.append(category)
            continue
        if not name or isinstance(number, list | dict | bool | None):
            bad.append(category)
        elif number in file.categories and file.categories[number] != name:
            raise ImportSourceError(
                f"it is broken: the category {number!r} is {file.categories[number]!r} "
                f"and {name!r}"
            )
        else:
            if name in file.categories.values() and number not in file.categories:
                file.problems.append(f"several categories are {name!r}: one class here")
            file.categories[number] = name
            listed.setdefault(name, entry)
    if bad:
        file.problems.append(
            f"categories without an id or a name: {shorten(bad)[:200]}"
        )


def _colour(values: Any) -> tuple[int, int, int] | None:
    numbers = [whole(v) for v in values] if isinstance(values, list) else []
    if len(numbers) != 3 or not all(v is not None and 0 <= v <= 255 for v in numbers):
        return None
    red, green, blue = (v or 0 for v in numbers)
    return red, green, blue


def _take_images(file: _File, images: Iterable[Any]) -> None:
    bad = []
    for image in images:
        name = image.get("file_name") if isinstance(image, dict) else None
        if isinstance(name, str) and name.strip() and "id" in image:
            file.images.append(image)
            file.names.append(_path_of(name))
        else:
            bad.append(image)
    if bad:
        file.problems.append(
            f"{len(bad)} images without an id or a file_name: {shorten(bad)[:200]}"
        )


def _path_of(name: str) -> str:
    """Return what a file calls a picture as a path with "/" between folders."""
    if re.match(r"https?://", name):
        name = unquote(re.sub(r"[?#].*", "", name.partition("://")[2]))
    name = re.sub(r"^[A-Za-z]:(?=[\\/])", "", name.strip()).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or name


def _take_annotations(file: _File, annotations: Iterable[Any]) -> None:
    """Sort annotations by the place of their image; name those that have none."""
    find = _finder(image["id"] for image in file.images)
    lost: dict[str, list[Any]] = defaultdict(list)
    for number, annotation in enumerate(annotations, start=1):
        if not isinstance(annotation, dict):
            lost["annotations are none"].append(annotation)
            continue
        annotation.setdefault("id", f"#{number}")
        at = find(annotation.get("image_id"))
        if len(at) == 1:
            file.annotations.setdefault(at[0], []).append(annotation)
        else:
            why = "several images" if at else "no image of the list"
            what = f"annotations belong to {why}, by their image_id"
            lost[what].append(annotation.get("image_id"))
    for what, ids in lost.items():
        unlike = list(dict.fromkeys(map(str, ids)))
        file.problems.append(f"{len(ids)} {what}: {shorten(unlike)[:200]}")
    # Where no image has two of a class, these are masks of classes and no objects.
    for each in file.annotations.values():
        count = Counter(str(a.get("category_id")) for a in each)
        file.several = file.several or max(count.values()) > 1


def _finder(ids: Iterable[Any]) -> Any:
    """Return what finds the places of an id: as it stands, else as the number it is."""
    exact: dict[str, list[int]] = defaultdict(list)
    alike: dict[Any, list[int]] = defaultdict(list)
    for place, value in enumerate(ids):
        exact[repr(value)].append(place)
        alike[_number(value)].append(place)

    def find(value: Any) -> list[int]:
        return exact.get(repr(value)) or alike.get(_number(value), [])

    return find


def _number(value: Any) -> Any:
    """Return an id as a number, where text or a fraction stands for one."""
    number = whole(value)
    return repr(value) if number is None else number


# -- pictures ------------------------------------------------------------------------


def _pictures(
    root: Path,
    files: Sequence[_File],
    listed: Mapping[str, ListedClass],
    problems: list[str],
) -> tuple[list[Picture], list[str]]:
    """Return the pictures of all files, and notes on where they were found."""
    there = list_files(root, PICTURES, problems)
    base, notes = root, []
    found, unclear = _find(files, there)
    if not found:
        around, others = list_around(root)
        if others:
            base, (found, unclear) = around, _find(files, others)
            notes = [f"pictures are taken from {around}"] if found else []
    owners: dict[str, str] = {}
    for (number, _), picture in found.items():
        place = files[number].place
        if (other := owners.setdefault(picture, place)) != place:
            raise ImportSourceError(
                f"{other} and {place} both speak of {picture}: give one of them"
            )
    places = {name: place for place, name in enumerate(listed, start=1)}
    pictures = []
    for number, file in enumerate(files):
        find = _finder(file.categories)
        names = list(file.categories.values())
        for index, (image, name) in enumerate(
            zip(file.images, file.names, strict=True)
        ):
            key = number, index
            where = base / found[key] if key in found else None
            size = _size_of(image, where)
            reader = partial(
                _read,
                file.annotations.get(index, []),
                size,
                lambda i, f=find, n=names: [places[n[k]] for k in f(i)],
                names=list(places),
                several=file.several,
            )
            could = unclear.get(key, [])
            missing = (
                f"its picture could be {' or '.join(could[:3])}: it is not clear which"
                if could
                else Picture.missing
            )
            pictures.append(Picture(found.get(key, name), where, size, reader, missing))
    return pictures, notes


_Key = tuple[int, int]


def _find(
    files: Sequence[_File], there: Sequence[str]
) -> tuple[dict[_Key, str], dict[_Key, list[str]]]:
    """Find the pictures that the files name."""
    wanted = {}
    for number, file in enumerate(files):
        common = _common([place_of(name).folders for name in file.names])
        for index, name in enumerate(file.names):
            wanted[number, index] = place_of(name, without=common)

    def prefer(key: _Key, picture: str) -> int:
        """Prefer the JSON's own folder, then one that it is named after, to masks."""
        place = Path(files[key[0]].place)
        folder = place.parent.as_posix()
        own = folder == "." or picture.startswith(f"{folder}/")
        words = set(re.split(r"[^a-z0-9]+", normal(place.stem))) - {"", "instances"}
        split = any(
            part == word
            or (len(part) > 2 and word.startswith(part))
            or (len(word) > 2 and part.startswith(word))
            for part in place_of(picture).folders
            for word in words
        )
        return 4 * own + 2 * split + (kind_of(picture) != "mask")

    return pair(wanted, {file: place_of(file) for file in there}, prefer)


def _common(folders: Sequence[tuple[str, ...]]) -> int:
    """Return how many folders all paths begin with."""
    if not folders:
        return 0
    first, last = min(folders), max(folders)
    return next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(len(first), len(last)),
    )


def _size_of(image: Mapping[str, Any], file: Path | None) -> tuple[int, int] | None:
    """Return (H, W) as the JSON says, else of the upright picture."""
    height, width = whole(image.get("height")), whole(image.get("width"))
    if height and width and height > 0 and width > 0:
        return height, width
    try:
        return None if file is None else read_orientation(file)[1]
    except ValueError:  # said when it is read
        return None


# -- masks ---------------------------------------------------------------------------


def _read(
    annotations: Sequence[_Annotation],
    size: tuple[int, int] | None,
    places_of: Any,
    *,
    names: Sequence[str],
    several: bool,
) -> Masks:
    """Draw the annotations of an image: crowds first, then the largest first."""
    if size is None:
        raise ImportSourceError("neither its picture nor the JSON says how large it is")
    if size[0] * size[1] > MAX_PIXELS:
        raise ImportSourceError(f"the image is said to be {size} pixels")
    wrong: dict[str, list[Any]] = defaultdict(list)
    drawn = []
    for annotation in annotations:
        try:
            mask = draw(annotation, size)
        except (*ERRORS, OverflowError) as error:
            why = str(error) if isinstance(error, ValueError) else repr(error)
            wrong[why].append(annotation["id"])
            continue
        category = annotation.get("category_id")
        place = places_of(category)
        if len(place) != 1:
            wrong[
                f"the category {category!r} is not in the list; its pixels are unsure "
                f"({IGNORE})"
            ].append(annotation["id"])
        number = place[0] if len(place) == 1 else UNSURE
        first = number == UNSURE, bool(annotation.get("iscrowd"))
        drawn.append(
            (
                not first[0],
                not first[1],
                -int(mask.sum()),
                annotation["id"],
                number,
                mask,
            )
        )
    if annotations and not any(each[4] != UNSURE for each in drawn):
        raise ImportSourceError("; ".join(_say(wrong)))
    drawn.sort(key=lambda each: each[:3])
    labels = np.zeros(size, np.int32)
    objects = np.zeros(size, np.int32)
    for number, (*_, place, mask) in enumerate(drawn, start=1):
        labels[mask] = place
        objects[mask] = number
    seen = np.bincount(objects.ravel(), minlength=len(drawn) + 1)
    for number, (*_, which, place, _) in enumerate(drawn, start=1):
        if not seen[number] and place != UNSURE:
            what = f"wholly covered by others ({names[place - 1]})"
            wrong[what].append(which)
    return Masks(labels, objects if several else None, tuple(_say(wrong)))


def _say(wrong: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return a sentence for each thing that is wrong, with the annotations' ids."""
    return [
        f"{'annotation' if len(ids) == 1 else f'{len(ids)} annotations'} "
        f"{shorten(ids)}: {why}"
        for why, ids in wrong.items()
    ]
