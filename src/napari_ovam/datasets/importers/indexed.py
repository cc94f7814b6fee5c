"""Data sets of pictures and grey or palette masks whose pixels are class ids."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_ovam.base.ids import BACKGROUND, IGNORE
from napari_ovam.base.words import shorten
from napari_ovam.datasets.class_lists import (
    ListedClass,
    read_class_list,
    read_text,
    whole,
)
from napari_ovam.datasets.importers.mask_files import find_masks, join
from napari_ovam.datasets.importers.masks import (
    doubt_palette,
    find_places,
    mask_size,
    read_mask,
    values_of,
)
from napari_ovam.datasets.importers.source import (
    BACKGROUND_WORDS,
    UNSURE,
    ImportSourceError,
    Masks,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_TABLES = ("classes.json", "id2label.json")
_UNDECIDED = {"ignore", "ignored", "void", "unsure", "unlabeled", "unlabelled"}
_MOST_NUMBERS = 1000
_ONLY = "foreground"  # the class of masks that say "there" and no more


class _Ids(NamedTuple):
    """What ids mean: classes, their places by id, and whether 255 was spoken of."""

    classes: list[ListedClass]
    places: dict[int, int]
    spoken: bool


def open_indexed(
    path: Path,
    classes: Sequence[ListedClass] | None = None,
    background: int = BACKGROUND,
) -> Source:
    """Open pictures and masks of class ids, as `indexed`, ADE20K and many others have.

    It raises `ImportSourceError` if there are no masks in it, or they hold too many ids
    to be classes.

    Parameters
    ----------
    path
        The folder: see `find_masks`.
    classes
        With ids, or in the order of ids from 1 (from 0 where the first is the
        background); by default those of `classes.json` or `id2label.json`, else each id
        becomes a class of that number. Where all masks hold one value beside the
        background, it is the class, be it 255.
    background
        The id of the background.
    """
    problems: list[str] = []
    notes: list[str] = []
    masks, pictures = find_masks(path, problems)
    if not masks:
        why = problems or [
            "their folder, or the end of their names, should have a word such as masks "
            "or labels"
        ]
        raise ImportSourceError(f"there are no masks in {path}: {'; '.join(why)}")
    table = next((path / n for n in _TABLES if (path / n).is_file()), None)
    ignore = None
    if classes is None and table is not None:
        classes, ignore = read_class_list(table), _ignore_of(table)
    files = [path / mask for mask in masks]
    inside = [c for c in classes or () if not _is_one_of(c.name, BACKGROUND_WORDS)]
    if classes is None or (len(inside) == 1 and ignore is None):
        ids = _ids_of(files, inside, background, notes)
    else:
        ids = _listed_ids(classes, ignore, background, problems)
    found = join(
        path,
        masks,
        pictures,
        mask_size,
        lambda mask: partial(_read, path / mask, ids),
        notes,
    )
    return Source(
        "indexed",
        path,
        ids.classes,
        found,
        notes,
        {path.name: problems} if problems else {},
        path,
        tuple(masks),
        ids.places,
    )


def _read(path: Path, ids: _Ids) -> Masks:
    pixels = read_mask(path)
    places, problems = find_places(path, pixels, ids.places, spoken=ids.spoken)
    doubts = doubt_palette(path, values_of(pixels))
    return Masks(places, problems=(*doubts, *problems))


def _listed_ids(
    classes: Sequence[ListedClass],
    ignore: int | None,
    background: int,
    problems: list[str],
) -> _Ids:
    """Return what ids mean with a list of classes."""
    first = classes[0]
    start = 0 if first.id is None and _is_one_of(first.name, BACKGROUND_WORDS) else 1
    kept: list[ListedClass] = []
    places = {background: 0, IGNORE if ignore is None else ignore: UNSURE}
    owners: dict[int, str] = {}
    for number, entry in enumerate(classes, start=start):
        number = number if entry.id is None else entry.id
        if number in owners:
            raise ImportSourceError(
                f"the classes {owners[number]!r} and {entry.name!r} have the same id "
                f"{number}: mend the list"
            )
        owners[number] = entry.name
        if number == background and ignore is None:
            if not _is_one_of(entry.name, BACKGROUND_WORDS | _UNDECIDED):
                problems.append(
                    f"the class {entry.name!r} has the id {number}, which is read as "
                    "the background: say which id that is (--background), if another"
                )
            continue
        if number == IGNORE and _is_one_of(entry.name, _UNDECIDED):
            continue
        kept.append(entry)
        places[number] = len(kept)
    return _Ids(kept, places, ignore is not None)


def _ids_of(
    files: Iterable[Path],
    known: list[ListedClass],
    background: int,
    notes: list[str],
) -> _Ids:
    """Return what ids mean as the masks themselves show; one class may be known."""
    values: Counter[int] = Counter()
    edges: Counter[int] = Counter()
    for file in files:
        try:
            pixels = read_mask(file)
        except ValueError:  # said when it is imported
            continue
        values.update(values_of(pixels))
        if len(values) > _MOST_NUMBERS + 2:
            raise ImportSourceError(
                f"the masks hold more than {_MOST_NUMBERS} values, as {file.name}: "
                "are they pictures, or masks of numbered objects? Give a class list"
            )
        border = np.concatenate([pixels[[0, -1]].ravel(), pixels[:, [0, -1]].ravel()])
        count = values_of(border)
        edges[max(count, key=lambda value: count[value], default=0)] += 1
    inside = sorted(values.keys() - {background})
    if len(inside) == 1 and (known or inside[0] == IGNORE or background):
        value = inside[0]
        entry = known[0] if known else ListedClass(_ONLY)
        if value != (1 if entry.id is None else entry.id):
            notes.append(
                f"the masks hold {background} and {value} only: {value} is taken for "
                f"the class {entry.name!r}"
            )
        if edges[value] > edges[background]:
            notes.append(
                f"{value} is at the border of most masks: if it is the background, "
                f"import again with --background {value}"
            )
        own = 1 if entry.id is None else entry.id
        return _Ids([entry], {own: 1, value: 1, background: 0}, spoken=True)
    if known:
        return _listed_ids(known, None, background, [])
    numbers = [i for i in inside if i != IGNORE]
    if odd := [i for i in numbers if not 0 < i < 1 << 16]:
        notes.append(f"ids that labels cannot hold get others: {shorten(odd)}")
    if 0 < sum(values[i] for i in numbers) < values[IGNORE]:
        notes.append(
            f"{IGNORE} is unsure, and has more pixels than all classes: masks of one "
            f"class with soft borders are to be saved as {background} and {IGNORE} only"
        )
    places = {i: place for place, i in enumerate(numbers, start=1)}
    named = [ListedClass(f"class {i}", i) for i in numbers]
    return _Ids(named, {IGNORE: UNSURE, **places, background: 0}, spoken=False)


def _is_one_of(name: str, words: Iterable[str]) -> bool:
    return name.strip().casefold() in words


def _ignore_of(table: Path) -> int | None:
    """Return the id that a `classes.json` says is ignored; None if it does not."""
    content: Mapping[str, object] = json.loads(read_text(table))
    ignore = content.get("ignore") if isinstance(content, dict) else None
    if ignore is not None and whole(ignore) is None:
        raise ImportSourceError(f"{table.name} says that {ignore!r} is ignored: no id")
    return whole(ignore)
