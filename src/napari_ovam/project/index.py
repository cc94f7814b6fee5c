"""The index of a project: `project.json`, and `project.json.bak`, its last good copy.

One of the two is whole at any moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from napari_ovam.base.atomic import replacing
from napari_ovam.datasets.classes import ClassTable

if TYPE_CHECKING:
    from pathlib import Path

Status = Literal["new", "proposed", "edited", "accepted", "rejected"]

FORMAT = 1
INDEX = "project.json"
BACKUP = "project.json.bak"


class ProjectError(ValueError):
    """A project folder that is not as it should be, or asked for what it has not."""


class NewerProjectError(ProjectError):
    """A project that a newer version of the program wrote."""


class ConflictError(ProjectError):
    """Something that another program changed meanwhile; nothing was overwritten."""


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

    def told(self, part: str) -> Mapping[str, Any]:
        """Return a part of its provenance, which may be another's; {} without it."""
        found = self.provenance.get(part)
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def text(self) -> str:
        """It as lines of the index: made once, as most stay between two writes."""
        return "  " + _text(asdict(self)).replace("\n", "\n  ")


@dataclass(frozen=True)
class Index:
    """What an index says."""

    classes: ClassTable = field(default_factory=ClassTable)
    samples: Mapping[str, Sample] = field(default_factory=dict)  # by name
    # Whether labels may still hold ids of removed classes that turn into others.
    pending: bool = False
    program: str = ""  # what wrote it
    # What was wrong with the file and what was made of it, a sentence each.
    notes: tuple[str, ...] = ()


def write_index(folder: Path, index: Index) -> str:
    """Write `project.json` and its copy; return the mark of the file, as `mark_of`."""
    content = {
        "format": FORMAT,
        "program": index.program,
        **index.classes.to_json(),
        "pending": index.pending,
        "samples": [],
    }
    samples = ",\n".join(sample.text for sample in index.samples.values())
    # The samples come last, in the place of the empty list.
    text = _text(content)[: -len("[]\n}")]
    text += f"[\n{samples}\n ]\n}}\n" if samples else "[]\n}\n"
    # What is no text, as in names of files from other systems, is escaped, as in JSON.
    data = text.encode(errors="backslashreplace")
    # The copy first: where only that can be written, another try begins from the same.
    for name in (BACKUP, INDEX):
        with replacing(folder / name) as temporary:
            temporary.write_bytes(data)
    return sha256(data).hexdigest()


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)


def mark_of(folder: Path) -> str:
    """Return what changes with `project.json`; "" where there is none."""
    try:
        return sha256((folder / INDEX).read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""
