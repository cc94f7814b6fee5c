"""Changes of a session's classes; labels follow, in the window and on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_ovam.datasets.class_lists import add_classes, preset, read_class_list
from napari_ovam.project.files import replace_ids

from .edits import Edits
from .jobs import short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_ovam.datasets.class_lists import ListedClass
    from napari_ovam.datasets.project_class import ProjectClass

    from .projects import Projects
    from .saving import Saving
    from .state import LiveSample
    from .worker import Job
    from .workspace import Workspace


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

    def __init__(self, session: Workspace, saving: Saving, projects: Projects) -> None:
        self.session, self.saving, self.projects = session, saving, projects

    # -- one class -----------------------------------------------------------------

    def add(self, name: str, number: int | None = None) -> ProjectClass | None:
        """Add a class that can be painted, under an id that no class ever had.

        None, and why, where that cannot be.
        """
        classes = self.session.classes
        try:
            made = classes.add(name, number)
        except ValueError as error:
            self.session.complain(error)
            return None
        classes.change(made.id, active=False)
        self._changed()
        self.session.labels_changed.emit()  # an id of theirs may have a class now
        self.session.say(f"{short(made.name)} is class {made.id}.")
        return made

    def change(self, number: int, **values: Any) -> bool:
        """Change a class, all but its id; False, and why, where that cannot be.

        `values` are fields of `napari_ovam.datasets.classes.ProjectClass`.
        """
        session = self.session
        try:
            made = session.classes.change(number, **values)
        except ValueError as error:
            session.complain(error)
            session.classes_changed.emit()  # a field goes back
            return False
        if "phrase" in values:
            self._forget_maps([number])
            session.view(number).pieces = ()
        self._changed()
        if "phrase" in values and made.active:
            session.phrases.restore()
            session.say("Press Map to look for the new phrase.")
        return True

    def set_threshold(
        self, number: int, value: float | None, *, live: bool = True
    ) -> bool:
        """Set the threshold for the source in use; False, and why, where it is none.

        None is each map's own. `live` makes the labels that are shown follow.
        """
        session, entry = self.session, self.session.classes[number]
        limits = {**entry.thresholds, entry.source: value}
        try:
            session.classes.change(number, thresholds=limits)
        except ValueError:
            session.complain(
                f"{value} is no threshold: give 0 to 1, or “auto” for each map's own"
            )
            return False
        self.saving.save_index()
        if live:
            session.rules_changed.emit()
        return True

    def look_for(self, numbers: Sequence[int], on: bool) -> None:
        """Choose whether the phrases of classes are among those that are mapped."""
        if self.session.refused():
            return
        for number in numbers:
            self.session.classes.change(number, active=on)
        current = self.session.current
        if current is not None:
            self.session.show(current)
        self._changed()
        self.session.phrases.restore()

    def use_phrases(self, phrases: Sequence[str]) -> Callable[[], None] | None:
        """Look for exactly these phrases from now on; new ones become classes.

        Of classes with the same phrase those that are looked for stay so.

        Returns what undoes it: classes that it added go again. None, and why, where
        a phrase cannot be a class.
        """
        session, classes = self.session, self.session.classes
        known = {entry.id: entry.active for entry in classes}

        def undo() -> None:
            for entry in classes:
                if entry.id not in known:
                    classes.withdraw(entry.id)
                elif entry.active != known[entry.id]:
                    classes.change(entry.id, active=known[entry.id])
            session.classes_changed.emit()

        alike: dict[str, list[int]] = {}  # those that are looked for already go first
        for entry in classes.active:
            alike.setdefault(entry.phrase.casefold(), []).append(entry.id)
        wanted: set[int] = set()
        try:
            for phrase in phrases:
                there = alike.get(phrase.casefold())
                wanted.update(
                    there or [(classes.find(phrase) or classes.add(phrase)).id]
                )
        except ValueError as error:
            undo()
            session.complain(error)
            return None
        for entry in classes:
            if entry.active != (entry.id in wanted):
                classes.change(entry.id, active=entry.id in wanted)
        return undo

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

        def returned(listed: list[ListedClass]) -> None:
            known = {entry.id for entry in session.classes}
            try:
                report = add_classes(session.classes, listed)
            finally:
                for entry in session.classes:
                    if entry.id not in known:
                        session.classes.change(entry.id, active=False)
                self._changed()
            text = f"{len(report.added)} classes of {short(what)} were added."
            if had := len(report.ids) - len(report.added):
                text += f" {had} were there, and are as they were."
            notes = report.conflicts
            if notes:
                text += f" {len(notes)} could not keep their ids: {notes[0]}."
            session.say(text, "warning" if notes else "info")

        session.start(
            "Reading the class list",
            lambda _: read(),
            returned=returned,
            kept="No class was added.",
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
        session.take_edits(session.current)
        project = session.project

        def run(job: Job) -> int:
            self.saving.flush()
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
        session.take_edits(session.current)
        self.saving.begin()
        project = session.project
        was_active = any(session.classes[n].active for n in numbers)
        changed: list[str] = []
        whole: list[bool] = []

        def run(job: Job) -> None:
            self.saving.flush()
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
            done = tuple(n for n in numbers if n in project.classes.retired)
            if done:
                self._removed(done, removal.into)
                if was_active:
                    session.phrases.restore()
                if session.opened.chosen:
                    every = [sample.name for sample in project.samples]
                    self.projects.refresh(changed if whole else every)

        def returned(_: None) -> None:
            if removal.into:
                other = short(session.classes[removal.into].name)
                session.say(
                    f"{names} belong{'s' * (len(numbers) == 1)} to {other} now."
                )
            else:
                session.say(f"{names} {_were(numbers)} deleted.")

        title = "Merging classes" if removal.into else "Deleting classes"
        session.start(title, run, returned=returned, ended=ended)

    def _removed(self, numbers: tuple[int, ...], into: int) -> None:
        """Let what is in memory follow what was removed."""
        session = self.session
        for number in numbers:
            session.views.pop(number, None)
        for sample in session.samples:
            self._follow(sample, dict.fromkeys(numbers, into))
        self._forget_maps(numbers)
        session.layers.forget_history()
        self._changed()

    def _follow(self, sample: LiveSample, changes: dict[int, int]) -> None:
        """Change the pixels of a sample in memory; its files follow by themselves."""
        session = self.session
        session.take_edits(sample)  # which has them written as well
        layer = session.layers.labels(sample.key)
        if layer is not None and layer.selected_label in changes:
            first = next(iter(session.classes), None)
            into = changes[layer.selected_label]
            layer.selected_label = into or (first.id if first is not None else 1)
        if sample.edits is None or not _holds(sample, changes):
            return
        sample.edits = _renumbered(sample.edits, changes)
        sample.saved = sample.edits.now
        if sample.on_disk is not None:
            sample.on_disk = Edits(replace_ids(sample.on_disk.labels, changes)).now
        session.classes_replaced.emit(sample, changes)
        session.show_labels(sample)
        session.labels_changed.emit()

    # -- inside ----------------------------------------------------------------------

    def _free(self, numbers: Sequence[int]) -> bool:
        """Whether nothing uses or could use classes now, else say what does."""
        session = self.session
        if session.opened.read_only:
            session.complain("The open project can only be read: its classes stay")
            return False
        title = session.job.title if session.job is not None else ""
        if title:
            session.complain(
                f"{self._names(numbers)} {_were(numbers, 'is', 'are')} in use: "
                f"{title} is still running. Wait for it or press Cancel, then try again"
            )
        return not title

    def _names(self, numbers: Sequence[int]) -> str:
        if len(numbers) > 3:
            return f"{len(numbers)} classes"
        return ", ".join(short(self.session.classes[n].name) for n in numbers)

    def _forget_maps(self, numbers: Sequence[int]) -> None:
        session = self.session
        for sample in session.samples:
            for number in numbers:
                sample.maps.pop(number, None)
                sample.probabilities.pop(number, None)
            keep = {entry.id for entry in session.classes} - set(numbers)
            session.layers.remove_maps(sample.key, keep)

    def _changed(self) -> None:
        self.session.layers.show_classes(self.session.classes)
        self.session.classes_changed.emit()


def _renumbered(edits: Edits, ids: Mapping[int, int]) -> Edits:
    """Return labels with other class ids; those that are not named stay."""
    proposal = replace_ids(edits.proposal, ids)
    labels = replace_ids(edits.labels, ids)
    return Edits(proposal, labels, edits.painted, steps=edits.steps)


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
