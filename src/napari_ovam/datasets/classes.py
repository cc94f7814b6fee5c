"""The class table of a project: ids that stay, with names and colours."""

from __future__ import annotations

import threading
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from napari_ovam.base.ids import IGNORE, LARGEST_ID
from napari_ovam.datasets.class_colors import Colour, default_color
from napari_ovam.datasets.exporters import LabelClass
from napari_ovam.datasets.project_class import (
    ClassError,
    ProjectClass,
    check_class,
    one_form,
    plain_phrase,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class ClassTable:
    """Classes in the order of their ids.

    An id belongs to its class for good: when that is removed, no other class gets it.
    0 (background) and 255 ("unsure") are never given. Several threads may read and
    change it: each change puts a new table in the place of the old one.
    """

    def __init__(self) -> None:
        self._changing = threading.RLock()
        self._entries: dict[int, ProjectClass] = {}
        self._last = 0  # the largest id ever given
        self._retired: dict[int, int | None] = {}

    def __iter__(self) -> Iterator[ProjectClass]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, number: object) -> bool:
        return number in self._entries

    def __getitem__(self, number: int) -> ProjectClass:
        try:
            return self._entries[number]
        except KeyError:
            known = ", ".join(map(str, self._entries)) or "none"
            raise ClassError(
                f"no class has the id {number}: there are {known}"
            ) from None

    def get(self, number: int) -> ProjectClass | None:
        """Return the class with an id, if there is one."""
        return self._entries.get(number)

    @property
    def active(self) -> list[ProjectClass]:
        """The classes whose phrases are looked for."""
        return [entry for entry in self if entry.active]

    def find(self, phrase: str) -> ProjectClass | None:
        """Return the class of a phrase, or else of that name, in any case."""
        wanted, entries = phrase.casefold(), list(self)
        same = [e for e in entries if e.phrase.casefold() == wanted]
        same += [e for e in entries if e.name.casefold() == wanted]
        return next(iter(same), None)

    def by_name(self, name: str) -> ProjectClass | None:
        """Return the class of that name, if there is one."""
        wanted = one_form(name)
        return next((entry for entry in self if one_form(entry.name) == wanted), None)

    def add(
        self,
        name: str,
        number: int | None = None,
        *,
        color: Colour | None = None,
        phrase: str | None = None,
        thing: bool = True,
        alike: bool = False,
    ) -> ProjectClass:
        """Add a class under the id `number`, or the next that was never used.

        It raises `ClassError` if the name or id is taken or reserved, or the id was a
        removed class's.

        Parameters
        ----------
        name
            Any text that no other class has.
        number
            1 to 65535 without 255.
        color
            One of a cycle by default.
        phrase
            The name by default.
        thing
            As in `ProjectClass`.
        alike
            Whether another name may differ from it by case only, as in lists of others.
            Phrases are the same in any case.
        """
        with self._changing:
            if number is None:
                number = self._free_id()
            if number in self._retired:
                raise ClassError(
                    f"the id {number} belonged to a class that was removed: choose "
                    "another id, as masks may still hold it"
                )
            if number in self._entries:
                raise ClassError(
                    f"the id {number} belongs to {self._entries[number].name!r}: "
                    "choose another id"
                )
            name = one_form(name)
            if not alike:
                self._check_alike(number, name)
            if color is None:
                color = default_color(number)
            phrase = plain_phrase(phrase or name)
            self._put(ProjectClass(number, name, color, phrase, thing=thing))
            self._last = max(self._last, number)
            return self._entries[number]

    def _free_id(self) -> int:
        """Return the id after the largest ever given, at the end the least free one."""
        number = self._last + 1 + (self._last + 1 == IGNORE)
        if number <= LARGEST_ID:
            return number
        taken = {IGNORE, *self._entries, *self._retired}
        return next((i for i in range(1, number) if i not in taken), number)

    def change(self, number: int, **values: Any) -> ProjectClass:
        """Set fields of a class, all but its id; return it as it is now.

        It raises `ClassError` if there is no such class or field, or a value is not
        possible.
        """
        allowed = {f.name for f in fields(ProjectClass)} - {"id"}
        if unknown := set(values) - allowed:
            raise ClassError(f"a class has no {min(unknown)!r} that can be changed")
        if "name" in values:
            values["name"] = one_form(str(values["name"]))
            self._check_alike(number, values["name"])
        if "phrase" in values:
            values["phrase"] = phrase = str(values["phrase"]).strip()
            if phrase != plain_phrase(phrase):
                raise ClassError(
                    f"{phrase[:40]!r} is several phrases: give one without commas, "
                    "semicolons or line ends"
                )
        with self._changing:
            self._put(replace(self[number], **values))
            return self._entries[number]

    def remove(self, number: int, becomes: int | None = None) -> None:
        """Remove a class; its id is not given again.

        Parameters
        ----------
        number
            The class.
        becomes
            What its pixels turn into: 0, or another class. None leaves them.
        """
        with self._changing:
            entry = self[number]
            self._retired = self._retired | {number: becomes}
            self._entries = {i: e for i, e in self._entries.items() if i != entry.id}

    def withdraw(self, number: int) -> None:
        """Take back a class that was added a moment ago and that no labels hold."""
        with self._changing:
            self._entries = {i: e for i, e in self._entries.items() if i != number}

    def merge(self, number: int, into: int) -> dict[int, int]:
        """Remove a class whose pixels belong to another from now on.

        It raises `ClassError` if there is no such class, or both are the same.

        It returns what the pixels of labels turn into, by what they are.
        """
        if self[number] is self[into]:
            raise ClassError(f"{self[into].name!r} cannot be merged into itself")
        self.remove(number, into)
        return self.replaced()

    @property
    def retired(self) -> dict[int, int | None]:
        """Ids of removed classes: what their pixels turned into, None if they stay."""
        return dict(self._retired)

    def replaced(self) -> dict[int, int]:
        """Return what pixels of removed classes turn into now, by their ids."""
        found = {}
        for number in self._retired:
            becomes: int | None = number
            for _ in self._retired:  # it may be merged into one removed later
                if becomes in self._retired:
                    becomes = self._retired[becomes]
            if becomes is not None:
                found[number] = becomes
        return found

    @property
    def changing(self) -> threading.RLock:
        """Held while the table changes: hold it to look and change in one go."""
        return self._changing

    def take_over(self, other: ClassTable) -> None:
        """Become another table; who holds this one sees its classes."""
        with self._changing:
            self._entries = other._entries
            self._last, self._retired = other._last, other._retired

    def label_classes(self) -> list[LabelClass]:
        """Return the classes as exports take them."""
        return [
            LabelClass(entry.id, entry.name, entry.color, entry.thing) for entry in self
        ]

    @property
    def last_id(self) -> int:
        """The largest id that was ever given."""
        return self._last

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        return {
            "last_id": self._last,
            "retired": {str(i): becomes for i, becomes in self._retired.items()},
            "classes": [
                {f.name: getattr(entry, f.name) for f in fields(entry)}
                | {"thresholds": dict(entry.thresholds), "color": list(entry.color)}
                for entry in self
            ],
        }

    @classmethod
    def of(
        cls,
        entries: Iterable[ProjectClass],
        last_id: int = 0,
        retired: Mapping[int, int | None] | None = None,
    ) -> ClassTable:
        """Return a table of these classes.

        It raises `ClassError` if two have the same id or name, or one is not possible.

        Parameters
        ----------
        entries
            In any order.
        last_id
            The largest id that was ever given, if it is larger than theirs.
        retired
            Of removed classes, as the property. An id that a class has is none.
        """
        table = cls()
        names: dict[str, int] = {}
        for entry in sorted(entries, key=lambda entry: entry.id):
            check_class(entry)
            if entry.id in table._entries:
                raise ClassError(f"two classes have the id {entry.id}")
            if entry.name in names:
                raise _same_name(entry.name, names[entry.name])
            names[entry.name] = entry.id
            table._entries[entry.id] = entry
        table._retired = {
            number: becomes
            for number, becomes in (retired or {}).items()
            if number not in table._entries
        }
        table._last = max([last_id, *table._entries, *table._retired])
        return table

    def _check_alike(self, number: int, name: str) -> None:
        for entry in self:
            if entry.id != number and entry.name.casefold() == name.casefold():
                raise _same_name(entry.name, entry.id)

    def _put(self, entry: ProjectClass) -> None:
        check_class(entry)
        same = self.by_name(entry.name)
        if same is not None and same.id != entry.id:
            raise _same_name(entry.name, same.id)
        entries = self._entries | {entry.id: entry}
        if entry.key is not None:  # a key chooses one class: it goes to the last one
            for other in self:
                if other.key == entry.key and other.id != entry.id:
                    entries[other.id] = replace(other, key=None)
        self._entries = dict(sorted(entries.items()))


def _same_name(name: str, number: int) -> ClassError:
    return ClassError(f"class {number} is named {name!r} already: choose another name")
