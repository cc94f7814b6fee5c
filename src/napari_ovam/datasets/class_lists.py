"""Classes from elsewhere: lists in files, and two that everybody uses."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.datasets.project_class import ClassError, one_form

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_ovam.datasets.class_colors import Colour
    from napari_ovam.datasets.classes import ClassTable

_LARGEST_FILE = 2_000_000_000  # bytes; the annotations of COCO are 0.5 GB
_YAML = (".yaml", ".yml")

# Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.
_VOC = (
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, "
    "dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"
)
# Lin et al., "Microsoft COCO", ECCV 2014: 80 of the ids 1 to 90 are used.
_COCO = (
    "1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, "
    "9 boat, 10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, "
    "15 bench, 16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, "
    "23 bear, 24 zebra, 25 giraffe, 27 backpack, 28 umbrella, 31 handbag, 32 tie, "
    "33 suitcase, 34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, "
    "39 baseball bat, 40 baseball glove, 41 skateboard, 42 surfboard, "
    "43 tennis racket, 44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, "
    "51 bowl, 52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, "
    "58 hot dog, 59 pizza, 60 donut, 61 cake, 62 chair, 63 couch, 64 potted plant, "
    "65 bed, 67 dining table, 70 toilet, 72 tv, 73 laptop, 74 mouse, 75 remote, "
    "76 keyboard, 77 cell phone, 78 microwave, 79 oven, 80 toaster, 81 sink, "
    "82 refrigerator, 84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear, "
    "89 hair drier, 90 toothbrush"
)
PRESETS = ("voc", "coco")
"""The lists that `preset` has."""


class ClassListError(ValueError):
    """A file that is no class list; the message names what is wrong with it."""


@dataclass(frozen=True)
class ListedClass:
    """A class as a list has it."""

    name: str  # not empty, without spaces at its ends
    id: int | None = None  # None where the list has no ids that labels could hold
    color: Colour | None = None  # (red, green, blue), 0 to 255, or None
    thing: bool = True  # as in `ProjectClass`
    phrase: str | None = None  # what is looked for, or None for the name


@dataclass(frozen=True)
class ListReport:
    """What adding a list did."""

    ids: Mapping[str, int]  # the id of each listed class in the table, by its name
    added: tuple[str, ...] = ()  # the names that were new
    # A sentence for each class that could not keep its id.
    conflicts: tuple[str, ...] = field(default=())


def whole(value: Any) -> int | None:
    """Return the whole number that a value is or stands for ("7", 7.0), else None."""
    if isinstance(value, str):
        known = re.fullmatch(r"\s*(-?[0-9]{1,19})(\.0*)?\s*", value)
        return int(known[1]) if known else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def as_color(values: Any) -> Colour | None:
    """Return (red, green, blue) of three numbers from 0 to 255; None of all else."""
    numbers = [whole(value) for value in values] if isinstance(values, list) else []
    known = [number for number in numbers if number is not None and 0 <= number <= 255]
    return (known[0], known[1], known[2]) if len(numbers) == len(known) == 3 else None


def preset(name: str) -> list[ListedClass]:
    """Return a list by name: the 20 of Pascal VOC, or the 80 of COCO with their ids.

    It raises `ClassListError` if there is no such list.
    """
    if name == "voc":
        return [ListedClass(n, i) for i, n in enumerate(_VOC.split(", "), start=1)]
    if name == "coco":
        pairs = (entry.split(" ", 1) for entry in _COCO.split(", "))
        return [ListedClass(text, int(number)) for number, text in pairs]
    raise ClassListError(f"there is no list {name!r}: give one of {', '.join(PRESETS)}")


def read_class_list(path: str | Path) -> list[ListedClass]:
    """Read a class list from a file.

    It raises `ClassListError` if it is none of these, or names a class twice or not at
    all.

    Parameters
    ----------
    path
        Text with a name a line (a line that starts with # is none); `classes.json` as
        exports write it; COCO's annotations, or its categories alone; `id2label.json`;
        or the `data.yaml` of YOLO, whose indices count from 0 and are no ids, and whose
        names are as they stand there, also `no`, `off` and `1.0`. In UTF-8, or UTF-16
        with its mark.
    """
    path = Path(path)
    if path.stat().st_size > _LARGEST_FILE:
        raise ClassListError(f"{path.name} is too large for a class list")
    try:
        text = read_text(path)
        if path.suffix.lower() in _YAML:
            found = _from_yaml(text)
        elif path.suffix.lower() == ".json":
            found = _from_json(json.loads(text))
        else:
            found = _from_text(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what: object = f"it is broken or another kind of file ({error!r})"
        if isinstance(error, ClassListError):
            what = error
        elif isinstance(error, UnicodeDecodeError):
            what = "it is no text in UTF-8: save it so"
        raise ClassListError(f"{path.name} is no class list: {what}") from error
    names: set[str] = set()
    for entry in found:
        if entry.name in names:
            raise ClassListError(f"{path.name} names {entry.name!r} twice: rename one")
        names.add(entry.name)
    if not found:
        raise ClassListError(f"{path.name} names no class")
    return found


def read_text(path: Path) -> str:
    """Return a text file in UTF-8, or in UTF-16 where its mark says so.

    It raises `UnicodeDecodeError` if it is neither.
    """
    content = path.read_bytes()
    wide = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    return content.removeprefix(BOM_UTF8).decode("utf-16" if wide else "utf-8")


def add_classes(table: ClassTable, listed: Iterable[ListedClass]) -> ListReport:
    """Add listed classes to a table; those of a name that it has are left as they are.

    A class keeps its id where that is free, and gets the next one otherwise. An image
    can hold only 0 (background) and 255 (unsure) beside the ids of classes: these, and
    those of removed classes, are never free.

    It raises `ClassError` if the table has no id left, or a colour is none.
    """
    here = {one_form(entry.name): entry.id for entry in table}
    ids: dict[str, int] = {}
    added: list[str] = []
    conflicts: list[str] = []
    later: list[tuple[ListedClass, str]] = []
    # Ids that can be kept go first: no other class may take them.
    for entry in listed:
        number = here.get(one_form(entry.name))
        if number is not None:
            ids[entry.name] = number
            if entry.id not in (None, number):
                conflicts.append(
                    f"{entry.name!r} has the id {number} here and {entry.id} in the "
                    "list"
                )
        elif entry.id is None:
            later.append((entry, ""))
        else:
            try:
                ids[entry.name] = _added(table, entry, entry.id)
            except ClassError as error:
                later.append((entry, str(error)))
            else:
                added.append(entry.name)
    for entry, why in later:
        ids[entry.name] = number = _added(table, entry, None)
        added.append(entry.name)
        if why:
            conflicts.append(f"{entry.name!r} got the id {number}: {why}")
    return ListReport(ids, tuple(added), tuple(conflicts))


def _added(table: ClassTable, entry: ListedClass, number: int | None) -> int:
    return table.add(
        entry.name,
        number,
        color=entry.color,
        phrase=entry.phrase,
        thing=entry.thing,
        alike=True,
    ).id


def _from_text(text: str) -> list[ListedClass]:
    if "\0" in text:
        raise ClassListError("it is no text")
    lines = (line.strip() for line in text.splitlines())
    return [ListedClass(plain(line)) for line in lines if line and line[0] != "#"]


def _from_yaml(text: str) -> list[ListedClass]:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ClassListError(f"it is no YAML: {error}") from error
    # The nodes have scalars as they are written: `no` is a name here, and not False.
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    names = next((value for key, value in pairs if key.value == "names"), None)
    if isinstance(names, yaml.MappingNode):
        by_index = {whole(key.value): value for key, value in names.value}
        if None in by_index or len(by_index) != len(names.value):
            raise ClassListError("the indices of its names are no numbers, or twice")
        listed = [by_index[index] for index in sorted(by_index, key=lambda i: i or 0)]
    elif isinstance(names, yaml.SequenceNode):
        listed = names.value
    else:
        raise ClassListError("its names are no list")
    if any(not isinstance(node, yaml.ScalarNode) for node in listed):
        raise ClassListError("its names are no texts")
    return [ListedClass(plain(node.value)) for node in listed]


def _from_json(content: Any) -> list[ListedClass]:
    entries = content
    if isinstance(content, dict):
        entries = content.get("categories", content.get("classes", content))
    if isinstance(entries, dict):  # id2label.json: {"1": "cat"}
        entries = [{"id": number, "name": n} for number, n in entries.items()]
        entries = [entry for entry in entries if whole(entry["id"]) != 0]
    if not isinstance(entries, list):
        raise ClassListError("it has neither classes nor categories")
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            found.append(ListedClass(plain(entry)))
            continue
        number = whole(entry.get("id"))
        if number is None and entry.get("id") is not None:
            raise ClassListError(f"the id {entry['id']!r} is no whole number")
        color = as_color(entry.get("color"))
        if color is None and entry.get("color") is not None:
            raise ClassListError(
                f"the colour {entry['color']!r} is none: give (r, g, b), 0-255"
            )
        thing = entry.get("thing", entry.get("isthing", True))
        phrase = entry.get("phrase")
        found.append(
            ListedClass(
                plain(entry["name"]),
                number,
                color,
                bool(thing),
                phrase if isinstance(phrase, str) and phrase.strip() else None,
            )
        )
    return found


def plain(value: Any) -> str:
    """Return the name of a class as it is kept: in one Unicode form, without spaces.

    It raises `ClassListError` if it is empty, or neither text nor a number.
    """
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    name = one_form(str(value)) if known else ""
    if not name:
        raise ClassListError(f"{value!r} is no name")
    return name
