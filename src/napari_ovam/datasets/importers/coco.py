"""COCO's instances, wherever their JSON and pictures lie."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.base.words import shorten
from napari_ovam.datasets.class_lists import ListedClass, as_color, plain, whole
from napari_ovam.datasets.importers.annotated import read_files, read_json, say_none
from napari_ovam.datasets.importers.coco_masks import draw_all
from napari_ovam.datasets.importers.named_pictures import (
    Key,
    NamedPictures,
    make_pictures,
    path_of,
    read_size,
)
from napari_ovam.datasets.importers.search import normal
from napari_ovam.datasets.importers.shapes import ERRORS
from napari_ovam.datasets.importers.source import (
    ImportSourceError,
    Picture,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_ovam.datasets.importers.source import Masks

_Find = Callable[[Any], Sequence[int]]
_LISTS = ("images", "annotations", "categories")
_NAMES = ("file_name", "path", "coco_url")  # what says which picture one is
_Annotation = dict[str, Any]


@dataclass
class CocoFile:
    """A JSON of COCO: its place in the data set, and what was understood of it."""

    place: str
    images: list[dict[str, Any]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    annotations: dict[int, list[_Annotation]] = field(default_factory=dict)
    unclear: set[int] = field(default_factory=set)  # images that lost ones may be of
    categories: list[tuple[Any, str]] = field(default_factory=list)
    several: bool = False
    problems: list[str] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)

    def annotations_of(self, index: int) -> list[_Annotation] | None:
        """Return those of an image; None where nobody knows which they are."""
        return self.annotations.get(index, None if index in self.unclear else [])


def open_coco(path: Path) -> Source:
    """Open COCO's instances.

    It raises `ImportSourceError` if there is no such file, or several that speak of the
    same pictures.

    Parameters
    ----------
    path
        A JSON, or a folder with one or several, in whatever folders. Pictures are
        looked for below it, and below the folder around that of a JSON which has none
        beside it: by the names in the JSON, whose folders may be another computer's.
    """
    problems: dict[str, list[str]] = defaultdict(list)
    listed: dict[str, ListedClass] = {}
    read = partial(read_coco, listed=listed)
    root, files, strangers = read_files(path, ".json", read, problems)
    files = _instances_of(files, strangers)
    if not files:
        what = "JSON of COCO instances"
        raise ImportSourceError(say_none(what, path, strangers))
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
        root,
        tuple(file.place for file in files),
    )


# -- the JSON ------------------------------------------------------------------------


def read_coco(root: Path, place: str, listed: dict[str, ListedClass]) -> CocoFile:
    """Read a JSON, and add its classes to those that are listed.

    It raises `ImportSourceError` if it is none of COCO's instances.
    """
    content = read_json(root / place)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in _LISTS
    ):
        raise ImportSourceError(f"it has not the lists {', '.join(_LISTS)}")
    if any("segments_info" in a for a in content["annotations"] if isinstance(a, dict)):
        raise ImportSourceError("it is panoptic: its masks are pictures")
    file = CocoFile(place, content=content)
    _take_categories(file, content["categories"], listed)
    _take_images(file, content["images"])
    _take_annotations(file, content["annotations"])
    return file


def _instances_of(files: list[CocoFile], strangers: dict[str, str]) -> list[CocoFile]:
    """Return the files to read: those named after instances, where any is."""
    named = [file for file in files if "instances" in normal(Path(file.place).name)]
    for file in files if named else ():
        if file not in named:
            strangers[file.place] = "not read: others are named after instances"
    return named or files


def _take_categories(
    file: CocoFile, categories: Iterable[Any], listed: dict[str, ListedClass]
) -> None:
    bad: list[Any] = []
    for category in categories:
        try:
            name, number = plain(category["name"]), category["id"]
            entry = ListedClass(name, whole(number), as_color(category.get("color")))
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


def _take_images(file: CocoFile, images: Iterable[Any]) -> None:
    bad = []
    for image in images:
        names = (image.get(k) for k in _NAMES) if isinstance(image, dict) else ()
        name = next(filter(None, names), None)
        if isinstance(name, str) and name.strip() and "id" in image:
            file.images.append(image)
            file.names.append(path_of(name))
        else:
            bad.append(image)
    if bad:
        file.problems.append(
            f"{len(bad)} images without an id or a file_name: {shorten(bad)[:200]}"
        )


def _take_annotations(file: CocoFile, annotations: Iterable[Any]) -> None:
    """Sort annotations by the place of their image; name those that have none."""
    find = _finder(image["id"] for image in file.images)
    lost: dict[str, list[Any]] = defaultdict(list)
    for annotation in annotations:
        if not isinstance(annotation, dict):
            lost["annotations are none"].append(annotation)
            continue
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
    files: Sequence[CocoFile],
    listed: Mapping[str, ListedClass],
    problems: list[str],
) -> tuple[list[Picture], list[str]]:
    """Return the pictures of all files, and notes on where they were found."""
    named = [
        NamedPictures(
            file.place,
            file.names,
            [read_size(i.get("height"), i.get("width")) for i in file.images],
        )
        for file in files
    ]
    places = {name: place for place, name in enumerate(listed, start=1)}
    finders = [places_finder(file, places) for file in files]

    def reader(key: Key, size: tuple[int, int] | None) -> partial[Masks]:
        number, index = key
        file = files[number]
        return partial(
            draw_all,
            file.annotations_of(index),
            size,
            finders[number],
            names=list(places),
            several=file.several,
        )

    return make_pictures(root, named, reader, problems)


def places_finder(
    file: CocoFile, places: Mapping[str, int]
) -> Callable[[Any], Sequence[int]]:
    """Return what finds the places that a category of a file could mean."""
    find = _finder(number for number, _ in file.categories)
    classes = [places[name] for _, name in file.categories]
    return lambda category: sorted({classes[at] for at in find(category)})
