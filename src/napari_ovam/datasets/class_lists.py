"""Classes from elsewhere: lists in files, and two that everybody uses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.datasets.classes import ClassError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_ovam.datasets.classes import ClassTable, Colour

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
    """A class as a list has it.

    Attributes
    ----------
    name
        Not empty, without spaces at its ends.
    id
        None where the list has no ids that labels could hold.
    color
        (red, green, blue), 0 to 255, or None.
    thing
        As in `ProjectClass`.
    phrase
        What is looked for, or None for the name.
    """

    name: str
    id: int | None = None
    color: Colour | None = None
    thing: bool = True
    phrase: str | None = None


@dataclass(frozen=True)
class ListReport:
    """What adding a list did.

    Attributes
    ----------
    ids
        The id of each listed class in the table, by its name.
    added
        The names that were new.
    conflicts
        A sentence for each class that could not keep its id.
    """

    ids: Mapping[str, int]
    added: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = field(default=())


def preset(name: str) -> list[ListedClass]:
    """Return a list by name: the 20 of Pascal VOC, or the 80 of COCO with their ids.

    Raises
    ------
    ClassListError
        If there is no such list.
    """
    if name == "voc":
        return [ListedClass(n, i) for i, n in enumerate(_VOC.split(", "), start=1)]
    if name == "coco":
        pairs = (entry.split(" ", 1) for entry in _COCO.split(", "))
        return [ListedClass(text, int(number)) for number, text in pairs]
    raise ClassListError(f"there is no list {name!r}: give one of {', '.join(PRESETS)}")


def read_class_list(path: str | Path) -> list[ListedClass]:
    """Read a class list from a file.

    Parameters
    ----------
    path
        Text with a name a line (a line that starts with # is none); `classes.json` as
        exports write it; COCO's annotations, or its categories alone; or the
        `data.yaml` of YOLO, whose indices count from 0 and are no ids.

    Raises
    ------
    ClassListError
        If it is none of these, or names a class twice or not at all.
    OSError
        If it cannot be read.
    """
    path = Path(path)
    if path.stat().st_size > _LARGEST_FILE:
        raise ClassListError(f"{path.name} is too large for a class list")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in _YAML:
            found = _from_yaml(text)
        elif path.suffix.lower() == ".json":
            found = _from_json(json.loads(text))
        else:
            found = _from_text(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        known = error if isinstance(error, ClassListError) else None
        what = known or f"it is broken or another kind of file ({error!r})"
        raise ClassListError(f"{path.name} is no class list: {what}") from error
    names: set[str] = set()
    for entry in found:
        if entry.name in names:
            raise ClassListError(f"{path.name} names {entry.name!r} twice: rename one")
        names.add(entry.name)
    if not found:
        raise ClassListError(f"{path.name} names no class")
    return found


def add_classes(table: ClassTable, listed: Iterable[ListedClass]) -> ListReport:
    """Add listed classes to a table; those of a name that it has are left as they are.

    A class keeps its id where that is free, and gets the next one otherwise. An image
    can hold only 0 (background) and 255 (unsure) beside the ids of classes: these, and
    those of removed classes, are never free.

    Raises
    ------
    ClassError
        If the table has no id left, or a colour is none.
    """
    here = {entry.name: entry.id for entry in table}
    ids: dict[str, int] = {}
    added: list[str] = []
    conflicts: list[str] = []
    later: list[tuple[ListedClass, str]] = []
    # Ids that can be kept go first: no other class may take them.
    for entry in listed:
        number = here.get(entry.name)
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
        entry.name, number, color=entry.color, phrase=entry.phrase, thing=entry.thing
    ).id


def _from_text(text: str) -> list[ListedClass]:
    if "\0" in text:
        raise ClassListError("it is no text")
    lines = (line.strip() for line in text.splitlines())
    return [ListedClass(line) for line in lines if line and line[0] != "#"]


def _from_yaml(text: str) -> list[ListedClass]:
    import yaml

    try:
        names = yaml.safe_load(text)["names"]
    except yaml.YAMLError as error:
        raise ClassListError(f"it is no YAML: {error}") from error
    if isinstance(names, dict):
        names = [names[index] for index in sorted(names)]
    if not isinstance(names, list):
        raise ClassListError("its names are no list")
    return [ListedClass(_name(name)) for name in names]


def _from_json(content: Any) -> list[ListedClass]:
    entries = content
    if isinstance(content, dict):
        entries = content.get("categories", content.get("classes", content))
    if isinstance(entries, dict):  # id2label.json: {"1": "cat"}
        entries = [{"id": int(number), "name": n} for number, n in entries.items()]
        entries = [entry for entry in entries if entry["id"] != 0]
    if not isinstance(entries, list):
        raise ClassListError("it has neither classes nor categories")
    found = []
    for entry in entries:
        if isinstance(entry, str):
            found.append(ListedClass(_name(entry)))
            continue
        number = entry.get("id")
        if isinstance(number, bool) or not isinstance(number, int | None):
            raise ClassListError(f"the id {number!r} is no whole number")
        color = entry.get("color")
        thing = entry.get("thing", entry.get("isthing", True))
        phrase = entry.get("phrase")
        found.append(
            ListedClass(
                _name(entry["name"]),
                number,
                None if color is None else _colour(color),
                bool(thing),
                phrase if isinstance(phrase, str) and phrase.strip() else None,
            )
        )
    return found


def _colour(values: Any) -> Colour:
    red, green, blue = values
    if any(isinstance(c, bool) or not isinstance(c, int) for c in values):
        raise ClassListError(f"the colour {values!r} is none: give (r, g, b), 0-255")
    return red, green, blue


def _name(value: Any) -> str:
    name = str(value).strip() if isinstance(value, str | int | float) else ""
    if not name:
        raise ClassListError(f"{value!r} is no name")
    return name
