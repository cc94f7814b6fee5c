"""Keeps the work of a session safe in a project, and brings unfinished work back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ovam.datasets.classes import ClassTable as ProjectClasses
from napari_ovam.datasets.classes import ProjectClass
from napari_ovam.project.autosave import Autosave
from napari_ovam.project.scratch import Scratch, clean, mark_done, unfinished

from .merging import as_project_class, merged, renumbered
from .reading import read_all
from .state import DECIDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from napari_ovam import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.project import Project
    from napari_ovam.project.index import Status

    from .edits import Edits, Snapshot
    from .reading import Recovered
    from .session import Session
    from .state import LiveSample
    from .worker import Job

_LARGEST_TRACE = 200_000_000  # bytes; a larger one is made anew from the settings
_CLOSING = 10.0  # seconds that closing waits for a slow disk at most


class Saving:
    """Writes samples, labels, classes and tokens soon after they change.

    Everything that takes time happens in the thread of an `Autosave`. It writes to the
    project that is open, else to a scratch project, which is made with the first
    sample.

    Attributes
    ----------
    autosave
        None until then.
    read_only
        Nothing can be written to the project that is open.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.autosave: Autosave | None = None
        self.read_only = False
        self._scratch: Scratch | None = None
        self._names: dict[str, str] = {}  # in the project, by the sample's key
        self._saved: dict[str, _Saved] = {}  # by the sample's key
        self._waiting: set[str] = set()  # keys of samples that may not be written yet
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
        if self.autosave is not None:
            self.autosave.close(_CLOSING)
        if self._scratch is not None:
            self._scratch.close()
        self.autosave = self._scratch = None

    def name(self, key: str) -> str | None:
        """Return the name in the project of a sample, by its key."""
        return self._names.get(key)

    def known(self, sample: LiveSample, name: str) -> None:
        """Take a sample for one of the project that is on the disk as it is."""
        self._names[sample.key] = name
        if sample.edits is not None:
            self._saved[sample.key] = _Saved.of(sample, sample.edits)

    def forget(self, key: str) -> None:
        """Let go of what was remembered of a sample that is no longer in memory."""
        self._saved.pop(key, None)

    def written(self, key: str) -> bool:
        """Whether a sample is on the disk as it is."""
        if self.autosave is None or self.autosave.pending == 0:
            self._waiting.clear()
        return key not in self._waiting

    def flush(self) -> None:
        """Write everything now; not in the GUI thread.

        Raises
        ------
        OSError
            If something cannot be written.
        """
        if self.autosave is not None and not self.autosave.flush():
            raise OSError(
                f"not all work is written to {self.autosave.project.path} yet: free "
                "some space there and try again"
            )

    @property
    def scratch(self) -> Path | None:
        """The folder of the scratch project with the work of this window."""
        return None if self._scratch is None else self._scratch.path

    def change_to(
        self, project: Project | None, names: Mapping[str, str], *, read_only: bool
    ) -> None:
        """Write to another project from now on; the old one should be flushed.

        Parameters
        ----------
        project
            None for a new scratch project, once there is work.
        names
            Names of samples that are in it, by their keys.
        read_only
            Nothing can be written to it.
        """
        self.close()
        self.read_only = read_only
        self._names, self._saved = dict(names), {}
        self._waiting.clear()
        self._tokens = {
            entry.id: entry.token for entry in self.session.classes if entry.token
        }
        self._classes = [as_project_class(entry) for entry in self.session.classes]
        if project is not None and not read_only:
            self.autosave = Autosave(project, failed=self._voice.failed.emit)

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
        if self.read_only:
            if any(sample.key not in self._names for sample in self.session.samples):
                self.session.say(
                    "The open project can only be read: the new image is only in "
                    "this window.",
                    "warning",
                )
            return
        for sample in self.session.samples:
            if sample.key in self._names:
                continue
            autosave = self._started()
            self._names[sample.key] = name = autosave.add_sample(
                sample.image,
                _settings(sample),
                sample.name,
                provenance={
                    **sample.about,
                    "title": sample.name,
                    "model": sample.choice.model,
                },
            )
            self._waiting.add(sample.key)
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
            old = self._saved.get(sample.key)
            if (
                old is not None
                and old.labels is edits.now
                and (sample is not self.session.current)
            ):
                continue
            new = _Saved.of(sample, edits)
            known = None if old is None else old.labels
            if not known.same(edits.now) if known else sample.status == "new":
                self._follow(sample, "edited" if edits.count else "proposed")
                new = replace(new, status=sample.status)
            if old is not None and old.same(new):
                continue
            self._saved[sample.key] = new
            if not self.read_only:
                self._waiting.add(sample.key)
                autosave = self._started()
                write = partial(_write_labels, autosave.project, name, new)
                autosave.submit(("labels", name), write)

    def _follow(self, sample: LiveSample, status: Status) -> None:
        """Set the status that the work on the labels gives."""
        if sample.status in DECIDED:
            self.session.say(
                f"{sample.name} was {sample.status}; as its labels were changed, it is "
                f"{status} again.",
                "warning",
            )
        if sample.status != status:
            sample.status = status
            self.session.projects.status_changed.emit(sample.key)

    def save_status(self, sample: LiveSample) -> None:
        """Write the status of a sample soon, with its labels."""
        name = self._names.get(sample.key)
        if sample.edits is not None:
            self._save_labels()
        elif name is not None and not self.read_only:
            autosave = self._started()
            write = partial(autosave.project.change_sample, name, status=sample.status)
            self._waiting.add(sample.key)
            autosave.submit(("status", name), write)

    def _save_classes(self) -> None:
        autosave = self.autosave
        if autosave is None:
            return
        entries = [as_project_class(entry) for entry in self.session.classes]
        if entries != self._classes:
            self._classes = entries
            table = self.session.classes
            write = partial(
                _write_classes, autosave.project, entries, table.last_id, table.retired
            )
            autosave.submit(("classes", None), write)
        for entry in self.session.classes:
            token = entry.token
            if token is not None and self._tokens.get(entry.id) is not token:
                self._tokens[entry.id] = token
                autosave.save_token(entry.id, token)

    # -- recovery ----------------------------------------------------------------

    def recover(self, path: Path) -> None:
        """Open an unfinished scratch project beside what is there already."""
        if self.read_only:
            self.session.complain("The open project can only be read: close it first")
            return

        def run(job: Job) -> Recovered:
            return read_all(path, self.session.choice, job)

        self.session.start(
            "Opening the unsaved work",
            run,
            returned=self._recovered,
            kept=f"It is still in {path}.",
        )

    def _recovered(self, found: Recovered) -> None:
        session = self.session
        ids, kept = merged(session.classes, found)
        for sample in found.samples:
            if sample.edits is not None:
                sample.edits = renumbered(sample.edits, ids)
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


@dataclass(frozen=True, eq=False)
class _Saved:
    """What is written of a sample's labels, or will be in a moment."""

    labels: Snapshot
    absent: frozenset[int]
    status: Status

    @classmethod
    def of(cls, sample: LiveSample, edits: Edits) -> _Saved:
        return cls(edits.now, frozenset(sample.absent), sample.status)

    def same(self, other: _Saved) -> bool:
        about = (self.absent, self.status) == (other.absent, other.status)
        return about and self.labels.same(other.labels)


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


def _write_labels(project: Project, name: str, saved: _Saved) -> None:
    project.save_labels(
        name,
        saved.labels.labels,
        saved.status,
        painted=saved.labels.painted,
        absent=saved.absent,
    )


def _settings(sample: LiveSample) -> dict[str, Any] | None:
    if sample.settings is None:
        return None
    return {"model": sample.choice.model, **asdict(sample.settings)}


def _size(trace: Trace) -> int:
    tensors = [layer.queries for layer in trace.layers]
    tensors += [t for each in trace.self_layers for t in (each.queries, each.keys)]
    return sum(t.numel() * t.element_size() for t in tensors)


def _write_classes(
    project: Project,
    entries: Iterable[ProjectClass],
    last_id: int,
    retired: Mapping[int, int | None],
) -> None:
    """Take over the session's classes; what the session does not hold stays."""
    old = project.classes
    tokens = {e.id: e.token for e in old}
    # A class may have been removed since this was submitted: it does not come back.
    project.classes = ProjectClasses.of(
        (
            replace(entry, token=tokens.get(entry.id))
            for entry in entries
            if entry.id not in old.retired
        ),
        max(old.last_id, last_id),
        {**retired, **old.retired},
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
