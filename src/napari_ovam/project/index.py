"""The index of a project: `project.json`, and `project.json.bak`, its last good copy.

One of the two is whole at any moment.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_ovam.base.atomic import replacing
from napari_ovam.base.names import check_name
from napari_ovam.datasets.classes import ClassTable

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
    sha256
        Of the image's file, in hexadecimal; empty where it is not known.
    """

    name: str
    status: Status = "new"
    absent: tuple[int, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""


def write_index(
    folder: Path,
    classes: ClassTable,
    samples: Iterable[Sample],
    program: str,
    *,
    pending: bool = False,
) -> None:
    """Write `project.json` and its copy.

    Parameters
    ----------
    pending
        Whether labels may still hold ids of removed classes that turn into others.
    """
    content = {
        "format": FORMAT,
        "program": program,
        **classes.to_json(),
        "pending": pending,
        "samples": [asdict(sample) for sample in samples],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    for name in (INDEX, BACKUP):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Index:
    """What an index says.

    Attributes
    ----------
    samples
        By name.
    pending
        As for `write_index`.
    program
        What wrote it.
    note
        A sentence where the copy was needed.
    """

    classes: ClassTable
    samples: dict[str, Sample]
    pending: bool = False
    program: str = ""
    note: str = ""


def read_index(folder: Path, *, mend: bool = True) -> Index:
    """Return what the index of a project says.

    Parameters
    ----------
    mend
        Whether a damaged `project.json` is moved to `project.json.damaged`, where the
        folder can be written.

    Raises
    ------
    ProjectError
        If there is no index, neither of the two is whole, or it is of a newer version.
    """
    index, backup = folder / INDEX, folder / BACKUP
    if not index.is_file() and not backup.is_file():
        raise ProjectError(f"{folder} is no project: there is no {INDEX} in it")
    try:
        return _parse(index)
    except NewerProjectError:
        raise
    except _READ_ERRORS as error:
        try:
            found = _parse(backup)
        except NewerProjectError:
            raise
        except _READ_ERRORS:
            raise ProjectError(
                f"{index} is damaged ({error}) and so is its copy {BACKUP}: put a good "
                "one there. Images and labels are still in their folders"
            ) from error
    if mend and index.is_file():
        with suppress(OSError):
            index.replace(folder / _DAMAGED)
    note = f"{INDEX} was damaged or missing: its last good copy was taken."
    return replace(found, note=note)


def _parse(path: Path) -> Index:
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
            str(values.get("sha256", "")),
        )
        check_name(sample.name)
        if sample.status not in get_args(Status):
            raise ProjectError(f"the status {sample.status!r} is unknown")
        samples[sample.name] = sample
    return Index(
        ClassTable.from_json(content),
        samples,
        bool(content.get("pending", False)),
        str(content.get("program", "")),
    )
