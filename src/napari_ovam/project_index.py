"""The index of a project: `project.json`, and `project.json.bak`, its last good copy.

One of the two is whole at any moment.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_ovam.atomic import replacing
from napari_ovam.classes import ClassTable
from napari_ovam.export import check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Status = Literal["new", "proposed", "edited", "accepted", "rejected"]

FORMAT = 1
INDEX = "project.json"
BACKUP = "project.json.bak"
_DAMAGED = "project.json.damaged"
_READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    MemoryError,
)


class ProjectError(ValueError):
    """A project folder that is not as it should be, or asked for what it has not."""


class NewerProjectError(ProjectError):
    """A project that a newer version of the program wrote."""


@dataclass(frozen=True)
class Sample:
    """An image of a project.

    Attributes
    ----------
    name
        The name of its files, without an ending.
    status
        How far its labels are.
    absent
        Ids of classes that are said not to be in it.
    provenance
        What made image and labels, as JSON: model, thresholds, times, version.
    """

    name: str
    status: Status = "new"
    absent: tuple[int, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_index(
    folder: Path, classes: ClassTable, samples: Iterable[Sample], program: str
) -> None:
    """Write `project.json` and its copy."""
    content = {
        "format": FORMAT,
        "program": program,
        **classes.to_json(),
        "samples": [asdict(sample) for sample in samples],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    for name in (INDEX, BACKUP):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def read_index(folder: Path) -> tuple[ClassTable, dict[str, Sample], str]:
    """Return classes, samples by name, and a sentence where the copy was needed.

    A damaged `project.json` is kept as `project.json.damaged`, where the folder can be
    written.

    Raises
    ------
    ProjectError
        If there is no index, neither of the two is whole, or it is of a newer version.
    """
    index, backup = folder / INDEX, folder / BACKUP
    if not index.is_file() and not backup.is_file():
        raise ProjectError(f"{folder} is no project: there is no {INDEX} in it")
    try:
        return *_parse(index), ""
    except NewerProjectError:
        raise
    except _READ_ERRORS as error:
        try:
            classes, samples = _parse(backup)
        except NewerProjectError:
            raise
        except _READ_ERRORS:
            raise ProjectError(
                f"{index} is damaged ({error}) and so is its copy {BACKUP}: put a good "
                "one there. Images and labels are still in their folders"
            ) from error
    if index.is_file():
        with suppress(OSError):
            index.replace(folder / _DAMAGED)
    note = f"{INDEX} was damaged or missing: its last good copy was taken."
    return classes, samples, note


def _parse(path: Path) -> tuple[ClassTable, dict[str, Sample]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["format"] > FORMAT:
        raise NewerProjectError(
            f"{path.parent} was written by {content.get('program')!r}, which is newer "
            "than this version: update napari-ovam to open it"
        )
    samples = {}
    for values in content["samples"]:
        sample = Sample(
            values["name"],
            values["status"],
            tuple(map(int, values.get("absent", ()))),
            dict(values.get("provenance", {})),
        )
        check_name(sample.name)
        if sample.status not in get_args(Status):
            raise ProjectError(f"the status {sample.status!r} is unknown")
        samples[sample.name] = sample
    return ClassTable.from_json(content), samples
