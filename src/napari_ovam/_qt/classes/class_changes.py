"""Changes of a session's classes; labels follow, in the window and on the disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_ovam._qt.session.merging import as_project_classes, renumbered
from napari_ovam.datasets.class_lists import add_classes, preset, read_class_list
from napari_ovam.project.class_changes import absent_after

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import ClassEntry, LiveSample
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.datasets.class_lists import ListedClass, ListReport
    from napari_ovam.datasets.classes import ClassTable as ProjectClasses
    from napari_ovam.datasets.classes import ProjectClass
    from napari_ovam.project import Project

_PAUSE = 100  # ms until a stroke or a proposal is looked for again


@dataclass(frozen=True)
class Removal:
    """Classes that a person wants to delete, or to merge into another.

    Attributes
    ----------
    numbers
        Their ids.
    into
        The id of the class that gets their pixels; 0 for the background.
    images
        How many images hold them.
    """

    numbers: tuple[int, ...]
    into: int
    images: int


class ClassChanges:
    """Adds, changes, merges and deletes classes of a session, and imports lists."""

    asked = Signal(object)  # Removal: it waits for `remove`

    def __init__(self, session: Session) -> None:
        self.session = session

    # -- one class -----------------------------------------------------------------

    def add(self, name: str) -> ClassEntry | None:
        """Add a class that can be painted, under an id that no class ever had."""
        table = as_project_classes(self.session.classes)
        try:
            made = table.add(name, phrase=plain_phrase(name))
        except ValueError as error:
            self.session.complain(error)
            return None
        self._put(made)
        self._changed()
        self.session.say(f"{_short(made.name)} is class {made.id}.")
        return self.session.classes[made.id]

    def change(self, number: int, **values: Any) -> bool:
        """Change a class, all but its id; False, and why, where that cannot be.

        `values` are fields of `napari_ovam.datasets.classes.ProjectClass`.
        """
        session = self.session
        if "phrase" in values:
            values["phrase"] = values["phrase"].strip()
            if values["phrase"] != plain_phrase(values["phrase"]):
                session.complain(
                    f"{_short(values['phrase'])!r} is several phrases, or none: give "
                    "one without commas, semicolons or line ends"
                )
                return False
        table = as_project_classes(session.classes)
        try:
            table.change(number, **values)
        except ValueError as error:
            session.complain(error)
            return False
        self._take(table)
        if "phrase" in values:
            self._forget_maps([number])
            session.classes[number].pieces = ()
        self._changed()
        if "phrase" in values and session.classes[number].active:
            self._show_phrases()
            session.say("Press Map to look for the new phrase.")
        return True

    def set_threshold(self, number: int, value: float | None) -> bool:
        """Set the threshold for the source in use; False where it is none."""
        if value is not None and not 0 <= value <= 1:
            self.session.complain(
                f"{value} is no threshold: give 0 to 1, or “auto” for each map's own"
            )
            return False
        self.session.labels.set_threshold(number, value)
        self._changed()
        return True

    def look_for(self, numbers: Sequence[int], on: bool) -> None:
        """Choose whether the phrases of classes are among those that are mapped."""
        if self.session.refused():
            return
        for number in numbers:
            self.session.classes[number].active = on
        current = self.session.current
        if current is not None:
            self.session.show(current)
        self._changed()
        self._show_phrases()

    def paint(self, number: int) -> None:
        """Choose a class for painting."""
        sample = self.session.current
        layer = self.session.layers.find(sample.key, "labels") if sample else None
        if layer is not None:
            layer.selected_label = number
            self.session.viewer.layers.selection.active = layer

    # -- lists ---------------------------------------------------------------------

    def import_file(self, path: Path) -> None:
        """Add the classes of a file: see `read_class_list`."""
        self._import(lambda: read_class_list(path), path.name)

    def import_preset(self, name: str) -> None:
        """Add the classes of a well-known list: see `class_lists.preset`."""
        self._import(lambda: preset(name), name.upper())

    def _import(self, read: Callable[[], list[ListedClass]], what: str) -> None:
        session = self.session
        table = as_project_classes(session.classes)

        def run(_: Job) -> tuple[ProjectClasses, ListReport]:
            report = add_classes(table, read())
            for entry in table:
                phrase = plain_phrase(entry.phrase)
                if entry.name in report.added and phrase != entry.phrase:
                    table.change(entry.id, phrase=phrase)
            return table, report

        def returned(found: tuple[ProjectClasses, ListReport]) -> None:
            table, report = found
            names = {entry.name for entry in session.classes}
            new = [e for e in table if not session.classes.knows(e.id)]
            lost = [e.name for e in new if e.name in names]  # added meanwhile
            for entry in new:
                if entry.name not in names:
                    self._put(entry)
            self._changed()
            notes = [*report.conflicts, *(f"{n!r} is there already" for n in lost)]
            text = f"{len(new) - len(lost)} classes of {_short(what)} were added."
            known = len(report.ids) - len(report.added)
            if known:
                text += f" {known} were there, and are as they were."
            if notes:
                text += f" {len(notes)} could not keep their ids: {notes[0]}."
            session.say(text, "warning" if notes else "info")

        session.start(
            "Reading the class list", run, returned=returned, kept="No class was added."
        )

    # -- removing --------------------------------------------------------------------

    def ask_delete(self, numbers: Sequence[int]) -> None:
        """Count the images that hold classes, and ask whether to delete them."""
        self._ask(tuple(numbers), 0)

    def ask_merge(self, number: int, into: int) -> None:
        """Count the images that hold a class, and ask whether to merge it."""
        self._ask((number,), into)

    def _ask(self, numbers: tuple[int, ...], into: int) -> None:
        session = self.session
        if not numbers or not self._free(numbers):
            return
        if session.current is not None:
            session.labels.take_edits(session.current)
        project = self._project()
        if project is None:
            held = [s for s in session.samples if _holds(s, numbers)]
            self.asked.emit(Removal(numbers, into, len(held)))
            return

        def run(job: Job) -> int:
            session.saving.flush()
            return len(project.images_with(numbers, progress=job.progress))

        def returned(count: int) -> None:
            session.say("Answer below the class table; nothing is changed yet.")
            self.asked.emit(Removal(numbers, into, count))

        session.start(
            "Counting images",
            run,
            returned=returned,
            kept="No class was changed.",
        )

    def remove(self, removal: Removal) -> None:
        """Delete or merge classes; the labels of all images follow."""
        session = self.session
        numbers = tuple(n for n in removal.numbers if n in session.classes)
        gone = removal.into and removal.into not in session.classes
        if not numbers or gone or not self._free(numbers):
            return
        names = self._names(numbers)
        if session.current is not None:
            session.labels.take_edits(session.current)
        project = self._project()
        changed: list[str] = []
        whole: list[bool] = []

        def run(job: Job) -> None:
            if project is None:
                return
            session.saving.flush()
            if removal.into:
                for number in numbers:
                    changed.extend(
                        project.merge_classes(
                            number, removal.into, progress=job.progress
                        )
                    )
            else:
                changed.extend(project.delete_classes(numbers, progress=job.progress))
            whole.append(True)

        def ended() -> None:
            # A run that was stopped has changed the table, and ends when it is opened.
            done = numbers
            if project is not None:
                retired = project.classes.retired
                done = tuple(n for n in numbers if n in retired)
            if done:
                self._removed(done, removal.into)
                if project is not None and session.projects.opened is not None:
                    names = [sample.name for sample in project.samples]
                    session.projects.refresh(changed if whole else names)

        def returned(_: None) -> None:
            if removal.into:
                other = _short(session.classes[removal.into].name)
                session.say(
                    f"{names} belong{'s' * (len(numbers) == 1)} to {other} now."
                )
            else:
                session.say(f"{names} {_were(numbers)} deleted.")

        title = "Merging classes" if removal.into else "Deleting classes"
        if project is None:
            ended()
            returned(None)
            return
        session.start(title, run, returned=returned, ended=ended)

    def _removed(self, numbers: tuple[int, ...], into: int) -> None:
        """Let the session follow what was removed."""
        session = self.session
        active = any(session.classes[n].active for n in numbers)
        for number in numbers:
            session.classes.remove(number, into)
        for sample in session.samples:
            for number in numbers:
                sample.absent = set(absent_after(tuple(sample.absent), number, into))
            self._follow(sample, dict.fromkeys(numbers, into))
        self._forget_maps(numbers)
        session.layers.forget_history()
        self._changed()
        if active:
            self._show_phrases()

    def _follow(self, sample: LiveSample, changes: dict[int, int]) -> None:
        """Change the pixels of a sample, as soon as no brush or proposal is at it."""
        session = self.session
        if session.closed or sample not in session.samples:
            return
        if session.labels.job is not None:
            QTimer.singleShot(_PAUSE, partial(self._follow, sample, changes))
            return
        session.labels.take_edits(sample)  # which has them written as well
        layer = session.layers.labels(sample.key)
        if layer is not None and layer.selected_label in changes:
            first = next(iter(session.classes), None)
            into = changes[layer.selected_label]
            layer.selected_label = into or (first.id if first is not None else 1)
        if sample.edits is None or not _holds(sample, changes):
            return
        sample.edits = renumbered(sample.edits, changes)
        session.instances.replace(sample, changes)
        name = session.saving.name(sample.key)
        if name is not None:  # the file has followed, and so will one not written yet
            session.saving.known(sample, name)
        if layer is not None:
            session.layers.show_labels(sample, session.classes)
        session.labels_changed.emit()

    # -- inside ----------------------------------------------------------------------

    def _free(self, numbers: Sequence[int]) -> bool:
        """Whether nothing uses or could use classes now, else say what does."""
        session = self.session
        if session.saving.read_only:
            session.complain("The open project can only be read: its classes stay")
            return False
        title = session.job.title if session.job is not None else ""
        if session.labels.job is not None:
            title = title or "Making labels"
        if title:
            session.complain(
                f"{self._names(numbers)} {_were(numbers, 'is', 'are')} in use: "
                f"{title} is still running. Wait for it or press Cancel, then try again"
            )
        return not title

    def _project(self) -> Project | None:
        """Return where the labels are written, if any were."""
        autosave = self.session.saving.autosave
        return None if autosave is None else autosave.project

    def _names(self, numbers: Sequence[int]) -> str:
        if len(numbers) > 3:
            return f"{len(numbers)} classes"
        return ", ".join(_short(self.session.classes[n].name) for n in numbers)

    def _put(self, made: ProjectClass) -> None:
        """Add a class of a project's table to the session's, to be painted only."""
        self.session.classes.add(made.name, made.id)
        entry = self.session.classes[made.id]
        entry.active = False
        _fill(entry, made, ("color", "phrase", "thing", "key"))

    def _take(self, table: ProjectClasses) -> None:
        """Take over what was changed in a project's table of the session's classes."""
        names = [f.name for f in fields(type(next(iter(table))))]
        same = {"id", "token", "thresholds", "active", "source"}
        for made in table:
            entry = self.session.classes[made.id]
            _fill(entry, made, [name for name in names if name not in same])

    def _forget_maps(self, numbers: Sequence[int]) -> None:
        session = self.session
        for sample in session.samples:
            for number in numbers:
                sample.maps.pop(number, None)
                sample.probabilities.pop(number, None)
            keep = {entry.id for entry in session.classes} - set(numbers)
            session.layers.remove_maps(sample.key, keep)

    def _show_phrases(self) -> None:
        phrases = [entry.phrase for entry in self.session.classes.active]
        self.session.phrases_restored.emit(", ".join(phrases))

    def _changed(self) -> None:
        self.session.layers.show_classes(self.session.classes)
        self.session.classes_changed.emit()


def plain_phrase(name: str) -> str:
    """Return a name as one phrase, which has no comma and no line of its own."""
    return " ".join(re.split(r"[,;\s]+", name)).strip()


def _fill(entry: ClassEntry, made: ProjectClass, names: Sequence[str]) -> None:
    for name in names:
        setattr(entry, name, getattr(made, name))


def _holds(sample: LiveSample, numbers: Any) -> bool:
    """Whether labels hold a class, in sight or below what a person painted."""
    edits = sample.edits
    if edits is None:
        return False
    wanted = np.zeros(2**16, bool)
    wanted[list(numbers)] = True
    return not edits.now.ids.isdisjoint(numbers) or bool(wanted[edits.proposal].any())


def _were(numbers: Sequence[int], one: str = "was", several: str = "were") -> str:
    return one if len(numbers) == 1 else several


def _short(name: str) -> str:
    """Return a name that fits into a sentence."""
    return name if len(name) <= 40 else f"{name[:39]}…"
