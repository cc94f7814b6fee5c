"""Keeps the work of a session safe in a scratch project, and brings it back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ovam.autosave import Autosave
from napari_ovam.classes import ClassTable as ProjectClasses
from napari_ovam.classes import ProjectClass
from napari_ovam.project import Project
from napari_ovam.scratch import Scratch, clean, mark_done, unfinished

from .edits import UNTOUCHED, Edits
from .images import as_settings
from .state import LiveSample, ModelChoice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam import Token
    from napari_ovam.trace import Trace

    from .session import Session
    from .state import ClassEntry, ClassTable
    from .worker import Job

_LARGEST_TRACE = 200_000_000  # bytes; a larger one is made anew from the settings
_CLOSING = 10.0  # seconds that closing waits for a slow disk at most


@dataclass(frozen=True, eq=False)
class Recovered:
    """What an unfinished scratch project holds."""

    path: Path
    classes: list[ProjectClass]
    tokens: dict[int, Token]
    samples: list[LiveSample]
    notes: list[str]


class Saving:
    """Writes samples, labels, classes and tokens soon after they change.

    Everything that takes time happens in the thread of an `Autosave`: nothing is
    written before the first sample is there.

    Attributes
    ----------
    autosave
        None until then.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.autosave: Autosave | None = None
        self._scratch: Scratch | None = None
        self._names: dict[str, str] = {}  # in the project, by the sample's key
        self._labels: dict[str, NDArray[Any]] = {}  # what was saved last
        self._classes: list[ProjectClass] = []
        self._tokens: dict[int, Token] = {}
        self._voice = _Voice()
        self._voice.failed.connect(self._failed)
        session.samples_changed.connect(self._save_samples)
        session.labels_changed.connect(self._save_labels)
        session.labels_changed.connect(self._save_classes)  # thresholds
        session.classes_changed.connect(self._save_classes)

    def close(self) -> None:
        """Write what is left."""
        if self.autosave is not None and self._scratch is not None:
            self.autosave.close(_CLOSING)
            self._scratch.close()

    def _started(self) -> Autosave:
        if self.autosave is None:
            scratch = self._scratch = Scratch()
            self.autosave = Autosave(scratch.project, failed=self._voice.failed.emit)
            self.autosave.submit(("start", None), scratch.start)
            self._save_classes()
        return self.autosave

    def _failed(self, error: Exception) -> None:
        again = "; it is tried again every 5 seconds" * isinstance(error, OSError)
        self.session.complain(error, f"This could not be autosaved{again}.")

    def _save_samples(self) -> None:
        for sample in self.session.samples:
            if sample.key in self._names:
                continue
            autosave = self._started()
            self._names[sample.key] = name = autosave.add_sample(
                sample.image,
                _settings(sample),
                sample.name,
                provenance={"title": sample.name, "model": sample.choice.model},
            )
            if sample.trace is not None and _size(sample.trace) <= _LARGEST_TRACE:
                autosave.submit(
                    ("trace", name),
                    partial(autosave.project.save_trace, name, sample.trace),
                )
        self._save_labels()

    def _save_labels(self) -> None:
        for sample in self.session.samples:
            edits, name = sample.edits, self._names.get(sample.key)
            if edits is None or name is None:
                continue
            same = self._labels.get(sample.key) is edits.labels
            if same and sample is not self.session.current:
                continue
            self._labels[sample.key] = edits.labels
            self._started().save_labels(
                name,
                edits.labels,
                "proposed" if edits.are_proposal else "edited",
                painted=edits.override != UNTOUCHED,
                absent=sample.absent,
            )

    def _save_classes(self) -> None:
        autosave = self.autosave
        if autosave is None:
            return
        entries = [_project_class(entry) for entry in self.session.classes]
        if entries != self._classes:
            self._classes = entries
            write = partial(_write_classes, autosave.project, entries)
            autosave.submit(("classes", None), write)
        for entry in self.session.classes:
            token = entry.token
            if token is not None and self._tokens.get(entry.id) is not token:
                self._tokens[entry.id] = token
                autosave.save_token(entry.id, token)

    # -- recovery ----------------------------------------------------------------

    def recover(self, path: Path) -> None:
        """Open an unfinished scratch project beside what is there already."""

        def run(job: Job) -> Recovered:
            return _read(path, self.session.choice, job)

        self.session.start(
            "Opening the unsaved work",
            run,
            returned=self._recovered,
            kept=f"It is still in {path}.",
        )

    def _recovered(self, found: Recovered) -> None:
        session = self.session
        ids, kept = _merged(session.classes, found)
        for sample in found.samples:
            if sample.edits is not None:
                sample.edits = _renumbered(sample.edits, ids)
            sample.absent = {ids.get(i, i) for i in sample.absent}
            session.samples.append(sample)
        session.samples_changed.emit()
        session.classes_changed.emit()
        session.layers.show_classes(session.classes)
        phrases = ", ".join(entry.phrase for entry in session.classes.active)
        if phrases:
            session.phrases_restored.emit(phrases)
        if found.samples:
            session.select(found.samples[-1].key)
        autosave = self._started()
        names = [self._names[sample.key] for sample in found.samples]
        done = partial(_finish, found.path, autosave.project, names, set(ids.values()))
        autosave.submit(("done", found.path), done)
        count = len(found.samples)
        session.labels_changed.emit()
        notes = " ".join([*found.notes, *kept])
        session.say(
            f"{count} image{'s' * (count != 1)} of the unsaved work are here again. "
            f"{notes}".strip()
        )


class _Voice(QObject):
    """Carries errors from the autosave's thread to the GUI's."""

    failed = Signal(object)


def find_unfinished() -> list[tuple[Path, int]]:
    """Return unfinished scratch projects and how many images they have.

    Those that were finished a month ago are deleted, as nothing else would do so.
    """
    clean()
    return [
        (path, sum(1 for _ in path.joinpath("images").glob("*.png")))
        for path in unfinished()
    ]


def _settings(sample: LiveSample) -> dict[str, Any] | None:
    if sample.settings is None:
        return None
    return {"model": sample.choice.model, **asdict(sample.settings)}


def _size(trace: Trace) -> int:
    tensors = [layer.queries for layer in trace.layers]
    tensors += [t for each in trace.self_layers for t in (each.queries, each.keys)]
    return sum(t.numel() * t.element_size() for t in tensors)


def _project_class(entry: ClassEntry) -> ProjectClass:
    return ProjectClass(
        entry.id,
        entry.name,
        entry.color,
        entry.phrase,
        entry.source,
        dict(entry.thresholds),
        active=entry.active,
    )


def _merged(table: ClassTable, found: Recovered) -> tuple[dict[int, int], list[str]]:
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
            entry = table.add(name, None if each.id in table else each.id)
            entry.color, entry.phrase = each.color, each.phrase
            entry.thresholds = dict(each.thresholds)
            entry.active = each.active
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


def _same(entry: ClassEntry, found: ProjectClass) -> bool:
    return (
        entry.name.casefold() == found.name.casefold()
        or entry.phrase.casefold() == found.phrase.casefold()
    )


def _write_classes(project: Project, entries: Iterable[ProjectClass]) -> None:
    """Take over the session's classes; their tokens' files stay known."""
    old = project.classes
    files = {entry.id: entry.token for entry in old}
    project.classes = ProjectClasses.of(
        (replace(entry, token=files.get(entry.id)) for entry in entries), old.last_id
    )
    project.save()


def _finish(
    path: Path, project: Project, names: Iterable[str], classes: Iterable[int]
) -> None:
    """Do not offer a project again whose samples and classes are safe in another."""
    known = {sample.name for sample in project.samples}
    if not known.issuperset(names):
        raise OSError(f"{project.path} does not hold all recovered images yet")
    if not {entry.id for entry in project.classes}.issuperset(classes):
        raise OSError(f"{project.path} does not hold all recovered classes yet")
    mark_done(path)


def _read(path: Path, choice: ModelChoice, job: Job) -> Recovered:
    from napari_ovam import load_trace

    project = Project.open(path)
    samples, notes = [], list(project.notes)
    entries = project.samples
    for done, entry in enumerate(entries):
        job.progress(done, len(entries))
        name = entry.name
        try:
            image, ids = project.load_image(name), project.load_labels(name)
            painted = project.load_painted(name)
        except ValueError as error:
            notes.append(f"{error}.")
            continue
        sample = LiveSample(
            str(entry.provenance.get("title") or name),
            image,
            ModelChoice(
                str(entry.provenance.get("model") or choice.model), choice.device
            ),
            settings=as_settings(project.settings(name)),
            absent=set(entry.absent),
        )
        if ids is not None:
            sample.edits = _edits(ids, painted)
        try:
            sample.trace = load_trace(project.trace_path(name))
        except (OSError, ValueError):
            notes.append(f"{sample.name} has no trace: load it again to map phrases.")
        samples.append(sample)
    tokens = {}
    for each in project.classes:
        try:
            token = project.load_token(each.id)
        except (OSError, ValueError) as error:
            notes.append(f"{error}.")
            continue
        if token is not None:
            tokens[each.id] = token
    return Recovered(path, list(project.classes), tokens, samples, notes)


def _edits(ids: NDArray[Any], painted: NDArray[np.bool_] | None) -> Edits:
    """Return labels with what a person decided.

    What the maps proposed under it is not known: background until they do so again.
    """
    if painted is None or painted.shape != ids.shape:
        return Edits(ids)
    override = np.where(painted, ids.astype(np.int32), np.int32(UNTOUCHED))
    return Edits(np.where(painted, 0, ids), override)


def _renumbered(edits: Edits, ids: Mapping[int, int]) -> Edits:
    """Return labels with other class ids; those that are not named stay."""
    table = np.arange(2**16, dtype=np.int32)
    for old, new in ids.items():
        table[old] = new
    untouched = edits.override == UNTOUCHED
    override = np.where(untouched, np.int32(UNTOUCHED), table[edits.override.clip(0)])
    return Edits(table[edits.proposal], override)
