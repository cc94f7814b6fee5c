"""Reading `project.json` as a person may have left it: what can be taken is taken.

Comments, commas too many, other encodings, ids as text, colours as "#ff0000", missing
keys, unknown words, names given twice: each is named with its place, and mended, from
the last good copy where that knows better.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import TYPE_CHECKING, Any, get_args

from PIL import ImageColor

from napari_ovam.base.ids import IGNORE, is_class_id
from napari_ovam.base.loose_json import DamagedError, load_table
from napari_ovam.base.names import check_name
from napari_ovam.datasets.class_colors import default_color
from napari_ovam.datasets.classes import ClassTable
from napari_ovam.datasets.project_class import (
    KEYS,
    ProjectClass,
    default_thresholds,
    one_form,
)
from napari_ovam.project.index import (
    BACKUP,
    FORMAT,
    INDEX,
    Index,
    NewerProjectError,
    ProjectError,
    Sample,
    Status,
)

if TYPE_CHECKING:
    from pathlib import Path

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_STATUSES = get_args(Status)


def read_index(folder: Path, *, mend: bool = True) -> Index:
    """Return what the index of a project says.

    What a person wrote into it is taken as far as it can be, and `notes` names the
    rest, for which the copy or a default stands.

    It raises `ProjectError` if there is no index, neither of the two is whole, or it is
    of a newer version.

    Parameters
    ----------
    mend
        Whether a file that is not taken as it is, is kept as `project.json.damaged` or
        `project.json.by-hand`, where the folder can be written.
    """
    index, backup = folder / INDEX, folder / BACKUP
    if not index.is_file() and not backup.is_file():
        raise ProjectError(f"{folder} is no project: there is no {INDEX} in it")
    copy = None
    with suppress(OSError, DamagedError):
        copy = parse_index(backup.read_bytes(), folder)
    try:
        found = parse_index(index.read_bytes(), folder, copy)
    except (OSError, DamagedError) as error:
        if copy is None:
            raise ProjectError(
                f"{index} is damaged ({error}) and so is its copy {BACKUP}: put a good "
                "one there. Images and labels are still in their folders"
            ) from error
        why = "missing" if isinstance(error, FileNotFoundError) else f"damaged: {error}"
        note = f"{INDEX} was {why}; its last good copy was taken"
        if mend and (kept := keep_copy(index, "damaged")):
            note += f"; it is kept as {kept}"
        return replace(copy, notes=(f"{note}.",))
    if found.notes and mend and (kept := keep_copy(index, "by-hand")):
        found = replace(found, notes=(*found.notes, f"The file is kept as {kept}."))
    return found


def parse_index(data: bytes, folder: Path, copy: Index | None = None) -> Index:
    """Return what an index says, as far as it can be taken.

    It raises `DamagedError` if it is no JSON, with comments and commas too many or
    without; `NewerProjectError` if a newer version wrote it.

    Parameters
    ----------
    data
        The file.
    folder
        Of the project.
    copy
        What its last good copy says.
    """
    reader = _Reader(folder, copy or Index())
    content = reader.content(data)
    classes = reader.classes(content)
    samples = reader.samples(content, classes)
    pending = reader.truth(content, "pending", False, INDEX)
    program = str(content.get("program", ""))
    return Index(classes, samples, pending, program, tuple(reader.notes))


@dataclass
class _Reader:
    """Reads one index and gathers what is to be said of it."""

    folder: Path
    copy: Index
    notes: list[str] = field(default_factory=list)

    def note(self, where: str, what: str) -> None:
        self.notes.append(f"{where}: {what}.")

    def content(self, data: bytes) -> Mapping[str, Any]:
        """Return the table that the file holds."""
        content, said = load_table(data)
        self.notes += [f"{INDEX}: {each}." for each in said]
        if not {"classes", "samples"} & set(content):
            raise DamagedError("it has neither 'classes' nor 'samples'")
        version = self.number(content.get("format", FORMAT))
        if version is None:
            self.note(INDEX, f"the format {content['format']!r} is no number")
        elif version > FORMAT:
            raise NewerProjectError(
                f"{self.folder} was written by {content.get('program')!r}, which is "
                "newer than this version: update napari-ovam to open it"
            )
        return content

    # -- classes -------------------------------------------------------------------

    def classes(self, content: Mapping[str, Any]) -> ClassTable:
        """Return the class table."""
        known = self.copy.classes
        entries: dict[int, ProjectClass] = {}
        retired = self._retired(content)
        last = self.number(content.get("last_id", 0)) or 0
        if not isinstance(content.get("classes"), list):
            self.note(INDEX, "it has no list 'classes': those of its last copy are in")
            return known
        waiting: list[tuple[Mapping[str, Any], str]] = []
        for place, values in enumerate(content["classes"], start=1):
            where = f"{INDEX}, class {place}"
            if isinstance(values, str):
                values = {"name": values}
            if not isinstance(values, dict):
                self.note(where, f"{values!r} is no class and left out")
                continue
            where += f" ({values['name']!r})" if values.get("name") else ""
            number = self.number(values.get("id"))
            if number is None or number in entries or not is_class_id(number):
                waiting.append((values, where))
                continue
            entries[number] = self._class(number, values, where, entries)
        for values, where in waiting:  # when all that have an id have it
            taken = [*entries, *retired, *(e.id for e in known), last, 0]
            same = known.by_name(str(values.get("name", "")).strip())
            number = max(taken) + 1 + (max(taken) + 1 == IGNORE)
            if same is not None and same.id not in entries:
                number = same.id
            self.note(where, f"its id {values.get('id')!r} is {number} now")
            entries[number] = self._class(number, values, where, entries)
        for entry in known:
            if entry.id not in entries and entry.id not in retired:
                self.note(
                    INDEX,
                    f"class {entry.id} ({entry.name!r}) is not in it any more: its "
                    "pixels stay, as an id without a class",
                )
                last = max(last, entry.id)
        return ClassTable.of(entries.values(), last, retired)

    def _retired(self, content: Mapping[str, Any]) -> dict[int, int | None]:
        found: dict[int, int | None] = {}
        values = content.get("retired", {})
        for key, value in values.items() if isinstance(values, dict) else ():
            number, becomes = self.number(key), self.number(value)
            if number is None or (becomes is None and value is not None):
                self.note(f"{INDEX}, retired", f"{key!r}: {value!r} is left out")
            else:
                found[number] = becomes
        return found

    def _class(
        self,
        number: int,
        values: Mapping[str, Any],
        where: str,
        others: Mapping[int, ProjectClass],
    ) -> ProjectClass:
        old = self.copy.classes.get(number)
        name = self._name(number, values, where, others)
        base = old or ProjectClass(number, name, default_color(number), name)
        for key in set(values) - {f.name for f in fields(ProjectClass)}:
            self.note(where, f"{key!r} is no field of a class and left out")

        def take(key: str, read: Callable[[Any], Any]) -> Any:
            if key not in values:
                return getattr(base, key)
            try:
                return read(values[key])
            except (ValueError, TypeError, LookupError):
                kept = getattr(base, key)
                self.note(where, f"the {key} {values[key]!r} is not possible: {kept!r}")
                return kept

        return ProjectClass(
            number,
            name,
            take("color", _color),
            take("phrase", _text) if old or "phrase" in values else name,
            take("source", lambda v: _one_of(v, ("phrase", "token"))),
            take("thresholds", _thresholds),
            take("token", _token),
            self.truth(values, "active", base.active, where),
            self.truth(values, "thing", base.thing, where),
            take("key", lambda v: None if v is None else _one_of(str(v), KEYS)),
        )

    def _name(
        self,
        number: int,
        values: Mapping[str, Any],
        where: str,
        others: Mapping[int, ProjectClass],
    ) -> str:
        given = values.get("name")
        name = "" if given is None else str(given).strip()
        if not name:
            name = f"class {number}"
            self.note(where, f"it has no name and is called {name!r}")
        taken = {one_form(entry.name) for entry in others.values()}
        name = one_form(name)
        if name in taken:
            free = next(n for i in range(2, 10**6) if (n := f"{name} {i}") not in taken)
            self.note(where, f"another class has that name: it is called {free!r}")
            name = free
        return name

    # -- samples -------------------------------------------------------------------

    def samples(
        self, content: Mapping[str, Any], classes: ClassTable
    ) -> dict[str, Sample]:
        """Return the samples by name."""
        if not isinstance(content.get("samples"), list):
            self.note(INDEX, "it has no list 'samples': those of its last copy are in")
            return dict(self.copy.samples)
        found: dict[str, Sample] = {}
        for place, values in enumerate(content["samples"], start=1):
            where = f"{INDEX}, sample {place}"
            if isinstance(values, str):
                values = {"name": values}
            name: Any = values.get("name") if isinstance(values, dict) else values
            try:
                check_name(name if isinstance(name, str) else "")
            except ValueError:
                self.note(where, f"{name!r} is no name of a sample: it is left out")
                continue
            where += f" ({name!r})"
            if name in found:
                self.note(where, "it stands twice: the first counts")
            else:
                found[name] = self._sample(name, values, where, classes)
        return found

    def _sample(
        self, name: str, values: Mapping[str, Any], where: str, classes: ClassTable
    ) -> Sample:
        labelled = (self.folder / "labels" / f"{name}.png").is_file()
        old = self.copy.samples.get(name, Sample(name, "edited" if labelled else "new"))
        status = str(values.get("status", old.status)).strip().lower()
        if status not in _STATUSES:
            self.note(
                where,
                f"the status {values['status']!r} is none of {', '.join(_STATUSES)}: "
                f"it is {old.status!r}",
            )
            status = old.status
        provenance = values.get("provenance", {})
        if not isinstance(provenance, dict):
            self.note(where, f"the provenance {provenance!r} is no table")
            provenance = old.provenance
        return Sample(
            name,
            status,  # type: ignore[arg-type]  # one of them
            self._absent(values.get("absent", ()), where, classes),
            provenance,
            str(values.get("sha256") or ""),
        )

    def _absent(self, values: Any, where: str, classes: ClassTable) -> tuple[int, ...]:
        found = set()
        for value in values if isinstance(values, Iterable) else (values,):
            number = self.number(value)
            if number is None and isinstance(value, str):
                same = classes.by_name(value.strip())
                number = None if same is None else same.id
            if number is None:
                self.note(where, f"{value!r} in 'absent' is no id of a class")
            else:
                found.add(number)
        return tuple(sorted(found))

    # -- values --------------------------------------------------------------------

    @staticmethod
    def number(value: Any) -> int | None:
        """Return a whole number that was given as such, as text or with ".0"."""
        try:
            found = float(value)
        except (TypeError, ValueError):
            return None
        return int(found) if found.is_integer() else None

    def truth(
        self, values: Mapping[str, Any], key: str, default: bool, where: str
    ) -> bool:
        """Return whether a field is true, in one of the usual words."""
        word = str(values.get(key, default)).strip().lower()
        if word not in (*_TRUE, *_FALSE):
            self.note(where, f"{key!r} is {values[key]!r}: true or false?")
            return default
        return word in _TRUE


def _color(value: Any) -> tuple[int, int, int]:
    if isinstance(value, str):
        red, green, blue = ImageColor.getrgb(value)[:3]
    else:
        red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(value)
    return red, green, blue


def _text(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        raise ValueError(value)
    return str(value)


def _one_of(value: Any, known: Iterable[str]) -> Any:
    word = str(value).strip().lower()
    if word not in known:
        raise ValueError(value)
    return word


def _thresholds(value: Any) -> dict[Any, float | None]:
    if not isinstance(value, dict):  # one for both
        value = dict.fromkeys(default_thresholds(), value)
    found = {
        key: None if level is None else float(level)
        for key, level in (default_thresholds() | value).items()
    }
    if set(found) != set(default_thresholds()) or not all(
        level is None or 0 <= level <= 1 for level in found.values()
    ):
        raise ValueError(value)
    return found


def _token(value: Any) -> str | None:
    if value is None:
        return None
    check_name(value)
    return str(value)


def keep_copy(path: Path, ending: str) -> str:
    """Copy an index beside it, as it will be written anew; return the copy's name."""
    names = (f"{path.name}.{ending}{f'-{i}' * (i > 1)}" for i in count(1))
    with suppress(OSError):
        name = next(n for n in names if not path.with_name(n).exists())
        shutil.copyfile(path, path.with_name(name))
        return name
    return ""
