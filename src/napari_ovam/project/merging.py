"""Two programs' changes of one index, brought together field by field.

Both began from the same base. What one of them changed counts; where both changed one
field, a person's decision counts before a program's and the later before the earlier,
and a note says so. What cannot be brought together is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from napari_ovam.datasets.classes import ClassTable
from napari_ovam.datasets.project_class import ClassError, ProjectClass
from napari_ovam.project.index import ConflictError, Index, Sample, Status

_MISSING = object()
# From what a program does to what a person decides
_RANK: tuple[Status, ...] = ("new", "proposed", "edited", "rejected", "accepted")


def merge_indices(base: Index, ours: Index, theirs: Index) -> Index:
    """Return an index with the changes of both; its notes say where they met.

    It raises `ConflictError` if both gave one id to different classes, or one name to
    different ids.
    """
    notes = list(theirs.notes)
    classes = _merge_classes(base.classes, ours.classes, theirs.classes, notes)
    samples = {}
    for name in (*theirs.samples, *ours.samples):  # nothing is taken out of an index
        if name not in samples:
            b, o, t = (index.samples.get(name) for index in (base, ours, theirs))
            samples[name] = _merge_sample(b, o, t, notes)
    pending = theirs.pending if ours.pending == base.pending else ours.pending
    return Index(classes, samples, pending, ours.program, tuple(notes))


def _merge_classes(
    base: ClassTable, ours: ClassTable, theirs: ClassTable, notes: list[str]
) -> ClassTable:
    retired = {**ours.retired, **theirs.retired}
    entries = []
    for number in sorted({e.id for table in (ours, theirs) for e in table}):
        b, o, t = (table.get(number) for table in (base, ours, theirs))
        # An id that was given and taken back here may be another program's by now
        removed_here = number in ours.retired and (b is not None or t is None)
        if removed_here or number in theirs.retired:
            continue
        if o is None or t is None:
            entries.append(o or t)
        elif b is None and o.name.casefold() != t.name.casefold():
            raise ConflictError(
                f"the id {number} was given to {t.name!r} by another program, and to "
                f"{o.name!r} here: nothing was written. Remove {o.name!r} here and add "
                "it again: it gets another id"
            )
        else:
            entries.append(_merge_class(b or replace(o, token=None), o, t, notes))
    last = max(ours.last_id, theirs.last_id)
    try:
        return ClassTable.of((e for e in entries if e is not None), last, retired)
    except ClassError as error:
        raise ConflictError(
            f"{error}: another program gave a class that name. Nothing was written"
        ) from error


def _merge_class(
    base: ProjectClass, ours: ProjectClass, theirs: ProjectClass, notes: list[str]
) -> ProjectClass:
    values: dict[str, Any] = {}
    for each in fields(ProjectClass):
        b, o, t = (getattr(entry, each.name) for entry in (base, ours, theirs))
        if isinstance(b, Mapping):
            values[each.name] = _merge_tables(b, o, t)
        elif o in (b, t):
            values[each.name] = t
        else:
            values[each.name] = o
            if t != b:
                notes.append(
                    f"Class {ours.name!r}: its {each.name} was set to {t!r} by another "
                    f"program and to {o!r} here, which counts."
                )
    return ProjectClass(**values)


def _merge_sample(
    base: Sample | None, ours: Sample | None, theirs: Sample | None, notes: list[str]
) -> Sample:
    if ours is None or theirs is None:
        found = ours or theirs
        assert found is not None  # noqa: S101
        return found
    base = base or Sample(ours.name)
    status = theirs.status if ours.status == base.status else ours.status
    if base.status not in (ours.status, theirs.status) and ours.status != theirs.status:
        status = max(ours.status, theirs.status, key=_RANK.index)
        notes.append(
            f"{ours.name}: it was {theirs.status} by another program and {ours.status} "
            f"here: it is {status}."
        )
    gone = set(base.absent) - set(ours.absent)
    new = set(ours.absent) - set(base.absent)
    history = [
        *theirs.provenance.get("history", ()),
        *(
            each
            for each in ours.provenance.get("history", ())
            if each not in theirs.provenance.get("history", ())
        ),
    ]
    provenance = _merge_tables(base.provenance, ours.provenance, theirs.provenance)
    if history:
        provenance["history"] = history
    return replace(
        ours,
        status=status,
        absent=tuple(sorted((set(theirs.absent) | new) - gone)),
        provenance=provenance,
        sha256=theirs.sha256 if ours.sha256 == base.sha256 else ours.sha256,
    )


def _merge_tables(
    base: Mapping[Any, Any], ours: Mapping[Any, Any], theirs: Mapping[Any, Any]
) -> dict[Any, Any]:
    """Return theirs with what is another here than it was."""
    found = dict(theirs)
    for key, value in ours.items():
        if value != base.get(key, _MISSING):
            found[key] = value
    for key in set(base) - set(ours):
        found.pop(key, None)
    return found
