"""Brings the classes and labels of another project into those of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.datasets.classes import ClassTable as ProjectClasses
from napari_ovam.datasets.classes import ProjectClass

from .edits import Edits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .reading import Recovered
    from .state import ClassEntry, ClassTable


def merged(table: ClassTable, found: Recovered) -> tuple[dict[int, int], list[str]]:
    """Add recovered classes to a table where they are new.

    A class is the same as one of the table that has its name or phrase, and no two
    recovered classes become one.

    Returns
    -------
    The ids in the table by recovered id, and what a person should know.
    """
    ids, notes = {}, []
    here = list(table)
    for each in found.classes:
        token = found.tokens.get(each.id)
        entry = next((entry for entry in here if _same(entry, each)), None)
        if entry is None:
            taken, name, number = {entry.name for entry in table}, each.name, 1
            while name in taken:
                number += 1
                name = f"{each.name} {number}"
            entry = table.add(name, None if table.knows(each.id) else each.id)
            entry.color, entry.phrase = each.color, each.phrase
            entry.thresholds = dict(each.thresholds)
            entry.active, entry.thing = each.active, each.thing
            if all(each.key != other.key for other in table):
                entry.key = each.key
            entry.source = each.source if token is not None else "phrase"
        else:
            here.remove(entry)
            if token is not None and entry.token is None:
                entry.thresholds["token"] = each.thresholds["token"]
            elif token is not None:
                notes.append(f"Its token of {each.name} is still in {found.path}.")
        entry.token = entry.token or token
        ids[each.id] = entry.id
    return ids, notes


def as_project_class(entry: ClassEntry) -> ProjectClass:
    """Return a class as a project keeps it, without the name of its token's file."""
    return ProjectClass(
        entry.id,
        entry.name,
        entry.color,
        entry.phrase,
        entry.source,
        dict(entry.thresholds),
        active=entry.active,
        thing=entry.thing,
        key=entry.key,
    )


def as_project_classes(table: ClassTable) -> ProjectClasses:
    """Return a table as a project keeps it, which refuses what cannot be."""
    return ProjectClasses.of(map(as_project_class, table), table.last_id, table.retired)


def _same(entry: ClassEntry, found: ProjectClass) -> bool:
    return (
        entry.name.casefold() == found.name.casefold()
        or entry.phrase.casefold() == found.phrase.casefold()
    )


def renumbered(edits: Edits, ids: Mapping[int, int]) -> Edits:
    """Return labels with other class ids; those that are not named stay."""
    table = np.arange(2**16, dtype=np.uint16)
    for old, new in ids.items():
        table[old] = new
    return Edits(table[edits.proposal], table[edits.labels], edits.painted)
