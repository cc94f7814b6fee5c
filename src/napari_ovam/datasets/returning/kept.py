"""What is kept of a data set that was imported, in a project's folder `imported`.

    imported/ID/about.json   imported/ID/files/...

`files` holds the data set's annotation files and small texts as they were, at their
places; pictures stay where they are. ID is a hash of all that.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_ovam.base.hashing import hash_file
from napari_ovam.datasets.exporters.report import INDEX
from napari_ovam.datasets.importers.search import list_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_ovam.datasets.importers import Source

FOLDER = "imported"
_ABOUT = "about.json"
_FILES = "files"
_TEXTS = (".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".csv", ".md", ".names")
_LARGEST_TEXT = 1_000_000  # bytes
_MOST_TEXTS = 50_000


class KeptError(ValueError):
    """What is kept of a data set is damaged, or not there."""


@dataclass(frozen=True)
class Kept:
    """A data set as it was imported."""

    id: str
    form: str
    name: str  # of its folder
    root: str  # where it was
    classes: tuple[str, ...]  # in the order of their places, from 1
    ids: tuple[int, ...]  # of these in the project, when it was imported
    originals: tuple[str, ...]  # the places of its annotation files
    values: Mapping[int, int] = field(default_factory=dict)  # as in `Source`


def check_place(place: str) -> str:
    """Return the place of a file in a data set.

    It raises `KeptError` if it leads out of it, as a project of others might say.
    """
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or "\\" in place or ":" in place[:2]:
        raise KeptError(f"{place!r} is no place in a data set")
    return place


def files_of(folder: Path, kept: Kept) -> Path:
    """Return where the files of a data set are kept in a project folder."""
    return folder / FOLDER / kept.id / _FILES


@dataclass
class Keeper:
    """Keeps the files of a data set in a project folder: once, if at all."""

    folder: Path
    source: Source
    ids: Sequence[int]
    _seen: set[str] = field(default_factory=set)

    @cached_property
    def id(self) -> str:
        """As `keep_source` returns it."""
        return keep_source(self.folder, self.source, self.ids)

    def mend(self, before: object) -> None:
        """Keep them anew where what was kept under an id before is damaged."""
        number = str(before or "")
        if number and number not in self._seen:
            self._seen.add(number)
            if not is_whole(self.folder, number):
                _ = self.id  # the same, if it is the same data set


def keep_source(folder: Path, source: Source, ids: Sequence[int]) -> str:
    """Keep the files of a data set in a project folder; return the id, "" for none.

    It raises `OSError` if they cannot be read or written.

    Parameters
    ----------
    folder
        The project.
    source
        The data set.
    ids
        Of its classes in the project.
    """
    root = source.root
    if root is None or not source.originals:
        return ""
    texts = [
        place
        for place in list_files(root, _TEXTS, [])[:_MOST_TEXTS]
        # beside a file that was given alone there may be anything
        if place.rpartition("/")[2] != INDEX  # an export's own, which is made anew
        and (source.path.is_dir() or "/" not in place)
        and (root / place).stat().st_size <= _LARGEST_TEXT
    ]
    places = list(dict.fromkeys([*source.originals, *texts]))
    about = Kept(
        "",
        source.form,
        root.resolve().name,
        str(root.resolve()),
        tuple(entry.name for entry in source.classes),
        tuple(ids),
        source.originals,
        source.values,
    )
    content = asdict(about) | {"values": list(map(list, source.values.items()))}
    hashes = {place: hash_file(root / place) for place in places}
    text = json.dumps(content | {"hashes": hashes}, ensure_ascii=False, indent=1)
    number = sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
    target = folder / FOLDER / number
    if is_whole(folder, number):
        return number
    temporary = target.with_name(f".{number}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for place in places:
        file = temporary / _FILES / place
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / place, file)
    (temporary / _ABOUT).write_text(text, "utf-8", "backslashreplace")
    shutil.rmtree(target, ignore_errors=True)  # was damaged
    temporary.rename(target)
    return number


def is_whole(folder: Path, number: str) -> bool:
    """Whether all that was kept of a data set is there as it was."""
    try:
        check_files(folder, read_kept(folder, number))
    except KeptError:
        return False
    return True


def read_kept(folder: Path, number: str) -> Kept:
    """Read what is kept of a data set.

    It raises `KeptError` if it is damaged, or not there.
    """
    path = folder / FOLDER / number / _ABOUT
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return Kept(
            check_place(number),
            str(content["form"]),
            str(content["name"]),
            str(content["root"]),
            tuple(map(str, content["classes"])),
            tuple(map(int, content["ids"])),
            tuple(check_place(str(place)) for place in content["originals"]),
            {int(value): int(place) for value, place in content["values"]},
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise KeptError(
            f"what was kept of a data set is damaged ({path}): import it again, or "
            "choose another format"
        ) from error


def check_files(folder: Path, kept: Kept) -> None:
    """Raise `KeptError` where a file that is kept is not as it was."""
    path = folder / FOLDER / kept.id / _ABOUT
    try:
        hashes = json.loads(path.read_text("utf-8"))["hashes"].items()
        bad = [p for p, h in hashes if hash_file(files_of(folder, kept) / p) != h]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise KeptError(f"what was kept of a data set is damaged: {error}") from error
    if bad:
        raise KeptError(
            f"{bad[0]} in {files_of(folder, kept)} is not as it was imported: import "
            "the data set again, or choose another format"
        )
