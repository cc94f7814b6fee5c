"""COCO's instances, wherever their JSON and pictures lie."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from napari_ovam.datasets.class_lists import ListedClass, plain, read_text, whole
from napari_ovam.datasets.importers.coco_masks import ERRORS, draw_all
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
    ImportSourceError,
    Picture,
    Source,
    shorten,
)
from napari_ovam.images.files import image_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Find = Callable[[Any], Sequence[int]]
_LISTS = ("images", "annotations", "categories")
_Annotation = dict[str, Any]


@dataclass
class _File:
    """A JSON of COCO: its place in the data set, and what was understood of it."""

    place: str
    images: list[dict[str, Any]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    annotations: dict[int, list[_Annotation]] = field(default_factory=dict)
    unclear: set[int] = field(default_factory=set)  # images that lost ones may be of
    categories: list[tuple[Any, str]] = field(default_factory=list)
    several: bool = False
    problems: list[str] = field(default_factory=list)


def open_coco(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open COCO's instances.

    It raises `ImportSourceError` if there is no such file, or several that speak of the
    same pictures.

    Parameters
    ----------
    path
        A JSON, or a folder with one or several, in whatever folders. Pictures are
        looked for below it, and below the folder around that of a JSON which has none
        beside it: by the names in the JSON, whose folders may be another computer's.
    classes
        Not used: the file has them.
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
        content = json.loads(read_text(root / place))
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
        if name in (known for _, known in file.categories):
            file.problems.append(f"several categories are {name!r}: one class here")
        file.categories.append((number, name))
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
    if url := re.match(r"[A-Za-z][\w+.-]+://", name):
        name = unquote(re.sub(r"[?#].*", "", name[url.end() :]))
    name = re.sub(r"^/?[A-Za-z]:(?=[\\/])", "", name.strip()).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "picture"


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
            file.unclear.update(at)
    if lost and not file.annotations:
        file.unclear.update(range(len(file.images)))
    for what, ids in lost.items():
        unlike = list(dict.fromkeys(map(str, ids)))
        file.problems.append(f"{len(ids)} {what}: {shorten(unlike)[:200]}")
    # Where no image has two of a class, these are masks of classes and no objects.
    for each in file.annotations.values():
        count = Counter(str(a.get("category_id")) for a in each)
        file.several = file.several or max(count.values()) > 1


def _finder(ids: Iterable[Any]) -> _Find:
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
    base: Path = root
    notes: list[str] = []
    if not there:
        base, there = list_around(root)
        notes = [f"pictures are taken from {base}"] if there else []
    found, unclear = _find(files, there)
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
        find = _finder(number for number, _ in file.categories)
        classes = [places[name] for _, name in file.categories]
        for index, (image, name) in enumerate(
            zip(file.images, file.names, strict=True)
        ):
            key = number, index
            where = base / found[key] if key in found else None
            size = _size_of(image, where)
            reader = partial(
                draw_all,
                file.annotations.get(index, None if index in file.unclear else []),
                size,
                partial(_places_of, find, classes),
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


def _places_of(find: _Find, classes: Sequence[int], category: Any) -> list[int]:
    """Return the places that a category could mean."""
    return sorted({classes[at] for at in find(category)})


_Key = tuple[int, int]


def _find(
    files: Sequence[_File], there: Sequence[str]
) -> tuple[dict[_Key, str], dict[_Key, list[str]]]:
    """Find the pictures that the files name: each file by itself."""
    found: dict[_Key, str] = {}
    unclear: dict[_Key, list[str]] = {}
    for number, file in enumerate(files):
        own = f"{Path(file.place).parent.as_posix()}/"
        said = any(kind_of(name) == "mask" for name in file.names)
        places = {
            picture: place_of(picture)
            for picture in there
            if said or kind_of(picture) != "mask" or picture.startswith(own)
        }
        common = _common([place_of(name).parts[:-1] for name in file.names])
        wanted = {
            (number, index): place_of(name, without=common)
            for index, name in enumerate(file.names)
        }
        prefer = partial(_likelier, file.place)
        hits, doubtful = pair(wanted, places, prefer)
        bare = {  # some programs leave the ending away
            key: place
            for key, place in wanted.items()
            if key not in hits and Path(place.name).suffix.lower() not in PICTURES
        }
        taken = set(hits.values())
        stems = {
            p: place_of(p, Path(p).stem) for p in places if bare and p not in taken
        }
        found |= hits | pair(bare, stems, prefer)[0]
        unclear |= doubtful
    return found, unclear


def _likelier(file: str, _: _Key, picture: str) -> int:
    """Prefer pictures in a JSON's folder, then in one that it is named after."""
    place = Path(file)
    folder = place.parent.as_posix()
    own = folder == "." or picture.startswith(f"{folder}/")
    words = set(re.split(r"[^a-z0-9]+", normal(place.stem))) - {"", "instances"}
    named = any(
        part == word or (min(len(part), len(word)) > 2 and _starts(part, word))
        for part in place_of(picture).folders
        for word in words
    )
    return 4 * own + 2 * named + (kind_of(picture) != "mask")


def _starts(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


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
        return None if file is None else image_size(file)
    except ValueError:  # said when it is read
        return None
