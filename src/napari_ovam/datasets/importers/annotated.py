"""Annotation files: pictures and the shapes on them, as most tools write them."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree import ElementTree

import numpy as np

from napari_ovam.base.words import shorten
from napari_ovam.datasets.class_lists import ListedClass, plain, read_text
from napari_ovam.datasets.exporters.report import INDEX
from napari_ovam.datasets.importers.coco_masks import draw_polygon
from napari_ovam.datasets.importers.named_pictures import (
    Key,
    NamedPictures,
    make_pictures,
)
from napari_ovam.datasets.importers.search import list_files
from napari_ovam.datasets.importers.shapes import (
    BROKEN,
    Shape,
    Size,
    as_masks,
    check_drawable,
    crosses_itself,
    draw_shapes,
    in_order,
    no_wrong,
    say,
)
from napari_ovam.datasets.importers.source import (
    BrokenFileError,
    ImportSourceError,
    Masks,
    Picture,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_File = TypeVar("_File")

CROSSES = "its outline crosses itself: what lies inside twice is not in it"

LARGEST_FILE = 500_000_000
"""Bytes of an annotation file: as objects it takes about ten times as much memory."""


@dataclass(eq=False)
class Annotated:
    """A picture as an annotation file has it."""

    name: str  # as a path with "/" between folders
    size: Size | None = None  # (H, W) as the file says
    shapes: list[Shape] = field(default_factory=list)
    # Annotations that are no masks, by what they are: of a part of the picture, and of
    # all of it; and what else is to be said.
    others: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    record: Any = None  # as in the file
    container: Any = None  # what holds the records of its shapes; None if nothing does
    read_bytes: Callable[[], bytes] | None = None
    unnamed: int = 0  # shapes without a label, which are left out

    def add(
        self,
        label: Any,
        which: Any,
        draw: Callable[[Size], tuple[NDArray[np.bool_], Sequence[str]]],
        *,
        labels: dict[str, ListedClass] | None = None,
        **more: Any,
    ) -> None:
        """Add a shape under the label that the file gives, as far as it is a name.

        Parameters
        ----------
        label
            As in the file; a class of that name is added to `labels`.
        which, draw, **more
            As in `Shape`.
        """
        try:
            name = plain(label)
        except ValueError:
            self.unnamed += 1
            return
        if labels is not None:
            labels.setdefault(name, ListedClass(name))
        self.shapes.append(Shape(which, name, draw, **more))


@dataclass(eq=False)
class AnnotationFile:
    """What was read of an annotation file."""

    place: str
    content: Any  # the whole file; the records of pictures and shapes are parts of it
    pictures: list[Annotated] = field(default_factory=list)
    classes: list[ListedClass] = field(default_factory=list)
    # Labels that stand for no class: 0 for the background, or `UNSURE`.
    special: Mapping[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_files(
    form: str,
    path: Path,
    ending: str,
    read: Callable[[Path, str], AnnotationFile],
    *,
    together: bool = False,
) -> Source:
    """Open the annotation files of a data set.

    It raises `ImportSourceError` if there is none, or two speak of the same picture.

    Parameters
    ----------
    form
        The name of the format.
    path
        A file, or a folder with one or several, in whatever folders. Pictures are
        looked for as `make_pictures` does.
    ending
        Of the files, in small letters.
    read
        Reads one of them by its place below a folder, or raises `ImportSourceError`.
    together
        Whether there is a file for each picture, whose name is a path from the folder.
    """
    problems: dict[str, list[str]] = defaultdict(list)

    def read_small(root: Path, place: str) -> AnnotationFile:
        check_file_size(root / place)
        return read(root, place)

    root, files, strangers = read_files(path, ending, read_small, problems)
    if not any(file.pictures for file in files):
        what = f"{form} file (*{ending}) with pictures"
        raise ImportSourceError(say_none(what, path, strangers))
    notes = [note for file in files for note in file.notes]
    if others := [place for place in strangers if place not in problems]:
        notes.append(f"not read, as no {form}: {shorten(others)}")
    for file in files:
        problems[file.place] += file.problems
    classes = list_classes(files)
    places_by_name = {entry.name: at for at, entry in enumerate(classes, start=1)}
    pictures, more = _pictures(root, files, places_by_name, problems, path, together)
    return Source(
        form,
        path,
        classes,
        pictures,
        [*notes, *more],
        {place: said for place, said in problems.items() if said},
        root,
        tuple(file.place for file in files),
    )


def read_files(
    path: Path,
    ending: str,
    read: Callable[[Path, str], _File],
    problems: dict[str, list[str]],
) -> tuple[Path, list[_File], dict[str, str]]:
    """Read a file, or those of an ending below a folder.

    Returns
    -------
    Path
        Their folder.
    list
        What `read` returns of a folder and a place in it.
    dict
        By its place why it raised `ImportSourceError`; `problems` gets what is broken.
    """
    root = path.parent if path.is_file() else path
    places = [path.name]
    if not path.is_file():
        found = list_files(root, [ending], problems[path.name])
        places = [p for p in found if p.rpartition("/")[2] != INDEX]
    files: list[_File] = []
    strangers: dict[str, str] = {}
    for place in places:
        try:
            files.append(read(root, place))
        except ImportSourceError as error:
            strangers[place] = str(error)
            if isinstance(error, BrokenFileError):
                problems[place].append(str(error))
    return root, files, strangers


def say_none(what: str, path: Path, strangers: Mapping[str, str]) -> str:
    """Return a sentence for a path without files of a kind."""
    why = "; ".join(f"{p}: {s}" for p, s in list(strangers.items())[:3])
    return f"there is no {what} in {path}" + (f" ({why})" if why else "")


def check_file_size(path: Path) -> None:
    """Raise `ImportSourceError` where a file is too large to be read."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BrokenFileError(f"it cannot be read: {error}") from error
    if size > LARGEST_FILE:
        raise BrokenFileError(
            f"it has {size / 1e6:.0f} MB, and {LARGEST_FILE // 10**6} MB are the "
            "limit: export it in parts"
        )


def list_classes(files: Iterable[AnnotationFile]) -> list[ListedClass]:
    """Return the classes of files, each once, with what the first of them says."""
    listed: dict[str, ListedClass] = {}
    for file in files:
        for entry in file.classes:
            listed.setdefault(entry.name, entry)
    return list(listed.values())


def _pictures(
    root: Path,
    files: Sequence[AnnotationFile],
    places: Mapping[str, int],
    problems: dict[str, list[str]],
    path: Path,
    together: bool,
) -> tuple[list[Picture], list[str]]:
    """Return the pictures of all files."""
    parts = [(file, index) for file in files for index in range(len(file.pictures))]
    groups = [parts] if together else [[p for p in parts if p[0] is f] for f in files]
    groups = [group for group in groups if group]
    named = [
        NamedPictures(
            group[0][0].place if len({id(f) for f, _ in group}) == 1 else "",
            [file.pictures[index].name for file, index in group],
            [file.pictures[index].size for file, index in group],
        )
        for group in groups
    ]

    def reader(key: Key, size: Size | None) -> partial[Masks]:
        file, index = groups[key[0]][key[1]]
        return partial(read_masks, file.pictures[index], size, places, file.special)

    found, notes = make_pictures(root, named, reader, problems[path.name])
    flat = [part for group in groups for part in group]
    return [
        replace(
            picture,
            record=(file.place, index),
            read_bytes=file.pictures[index].read_bytes,
            problems=tuple(_say_others(file.pictures[index])),
        )
        for picture, (file, index) in zip(found, flat, strict=True)
    ], notes


def _say_others(about: Annotated) -> list[str]:
    both = about.others + about.whole
    said = [f"{count} {what} are no masks" for what, count in both.items()]
    if about.unnamed:
        said.append(f"{about.unnamed} annotations without a label are left out")
    return [*said, *about.problems]


def read_masks(
    about: Annotated,
    size: Size | None,
    places: Mapping[str, int],
    special: Mapping[str, int],
) -> Masks:
    """Draw the shapes of a picture.

    It raises `ImportSourceError` if there are annotations, and none of them is a mask:
    the picture would count as background.
    """
    size = check_drawable(size)
    wrong = no_wrong()
    drawn = draw_shapes(about.shapes, size, {**places, **special}, wrong)
    if (about.shapes or about.others) and not drawn:
        raise ImportSourceError("; ".join([*_say_others(about), *say(wrong)]))
    return as_masks(in_order(drawn), size, list(places), wrong)


# -- what several formats hold -------------------------------------------------------


def read_xml(path: Path) -> ElementTree.Element:
    """Read an XML without document type: no entity is defined, and none expanded.

    It raises `BrokenFileError` if it is broken or has one.
    """
    try:
        text = read_text(path)
        if re.search(r"<!\s*(DOCTYPE|ENTITY)", text):
            raise BrokenFileError("it has a document type, which no annotations need")
        # The text is no bytes any more: what its head says of its encoding is over.
        text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text)
        builder = ElementTree.TreeBuilder(insert_comments=True)
        parser = ElementTree.XMLParser(target=builder)  # noqa: S314 - no entities
        return ElementTree.fromstring(text, parser=parser)  # noqa: S314
    except (ElementTree.ParseError, *BROKEN, OSError) as error:
        if isinstance(error, BrokenFileError):
            raise
        raise BrokenFileError(f"it is broken or no XML: {error}") from error


def read_json(path: Path) -> Any:
    """Read a JSON.

    It raises `BrokenFileError` if it is broken.
    """
    try:
        return json.loads(read_text(path))
    except (*BROKEN, OSError) as error:
        raise BrokenFileError(f"it is broken or no JSON: {error}") from error


def parse_color(text: Any) -> tuple[int, int, int] | None:
    """Return a colour that is written as "#rrggbb"; None if it is not."""
    if not isinstance(text, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", text.strip()):
        return None
    red, green, blue = bytes.fromhex(text.strip()[1:])
    return red, green, blue


def draw_outline(
    points: Any, size: Size, form: str = "[[x, y], [x, y] …]"
) -> tuple[NDArray[np.bool_], Sequence[str]]:
    """Return the mask of a polygon of (N, 2) points, and what is to be said of it.

    It raises `ValueError` if it is none; `form` is how the file should say it.
    """
    points = np.array(points, float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"its points are not {form}")
    mask = draw_polygon(points.ravel().tolist(), size)
    return mask, [CROSSES] if crosses_itself(points) else ()
