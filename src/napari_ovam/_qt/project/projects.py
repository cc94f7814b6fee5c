"""The project that is open in a session, and its samples, read when needed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_ovam._qt.image.images import as_settings
from napari_ovam._qt.image.loading import Loader
from napari_ovam._qt.session.edits import Edits
from napari_ovam._qt.session.merging import merged
from napari_ovam._qt.session.opened import Opened, open_project
from napari_ovam._qt.session.reading import read_sample, title
from napari_ovam._qt.session.state import ClassTable, LiveSample
from napari_ovam.project import Project, ProjectError
from napari_ovam.project.scratch import adopt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.attention.trace import Trace
    from napari_ovam.project.index import Status

_VERSION = "version"  # of labels on the disk, in the extra of a sample
_IN_MEMORY = 6  # samples with their layers: so far back, undo works


class Projects:
    """Opens projects, and knows all samples of the session.

    Without a project these are the samples that were made in this window.

    Attributes
    ----------
    opened
        The project; None while work goes to a scratch project.
    keys
        Of all samples, in their order.
    wanted
        What is shown as soon as it is read; empty if nothing is waited for.
    """

    changed = Signal()  # another project, or another list of samples
    status_changed = Signal(str)  # key

    def __init__(self, session: Session) -> None:
        self.session = session
        self.opened: Opened | None = None
        self.keys: list[str] = []
        self._names: dict[str, str] = {}  # by key
        self._ready: dict[str, LiveSample] = {}  # read ahead
        self._versions: dict[str, int] = {}  # how often jobs wrote labels, by key
        self.wanted = ""
        self._loader = Loader()
        self._loader.loaded.connect(self._loaded)
        session.samples_changed.connect(self._see_samples)

    def close(self) -> None:
        """Let go of the project; called when the window has closed."""
        self._loader.close()
        if self.opened is not None and self.opened.lock is not None:
            self.opened.lock.close()

    # -- opening -----------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Open a project folder; what is in the window now is written before."""
        self._change("Opening the project", partial(open_project, Path(path)))

    def create(self, path: Path) -> None:
        """Make a project in a new or empty folder, and open it."""

        def make() -> Opened:
            Project.create(path)
            return open_project(Path(path))

        self._change("Making the project", make)

    def save_as(self, path: Path) -> None:
        """Copy the work of this window into a new folder, and go on in it."""
        session = self.session
        scratch = session.saving.scratch
        if self.opened is not None or scratch is None:
            session.complain("There is no unsaved work: it is in a project already")
            return

        def run(_: Job) -> Opened:
            session.saving.flush()
            adopt(scratch, path)
            return open_project(Path(path))

        def returned(opened: Opened) -> None:
            # What came while it was copied is still in memory, and written again.
            for sample in session.samples:
                name = session.saving.name(sample.key)
                if name in opened.keys:
                    opened.keys[name] = sample.key
            self._use(opened)
            session.saving.change_to(opened.project, self._names, read_only=False)
            session.samples_changed.emit()
            session.labels_changed.emit()
            self._say_opened(opened)

        session.start(
            "Saving the project", run, returned=returned, kept="The work is unsaved."
        )

    def leave(self) -> None:
        """Close the project; the window is as at its start."""
        self._change("Closing the project", lambda: None)

    def _change(self, text: str, find: Any) -> None:
        session = self.session
        if session.refused():
            return
        session.labels.take_all()

        def run(_: Job) -> Opened | None:
            session.saving.flush()
            found: Opened | None = find()
            return found

        def returned(opened: Opened | None) -> None:
            session.labels.take_all()  # painted on meanwhile
            self._clear()
            self._use(opened)
            session.classes = ClassTable()
            if opened is not None:
                table = opened.project.classes
                session.classes = ClassTable(table.last_id, table.retired)
                merged(session.classes, opened.found)
            session.saving.change_to(
                None if opened is None else opened.project,
                self._names,
                read_only=opened is not None and opened.read_only,
            )
            session.samples_changed.emit()
            session.classes_changed.emit()
            session.labels_changed.emit()
            phrases = ", ".join(entry.phrase for entry in session.classes.active)
            if phrases:
                session.phrases_restored.emit(phrases)
            if self.keys:
                self.fetch(self.keys[0])
            else:
                session.current_changed.emit()
            self._say_opened(opened)

        session.start(
            text, run, returned=returned, kept="The window is as it was before."
        )

    def _clear(self) -> None:
        """Take every sample out of the window; they are on the disk."""
        session = self.session
        session.current = None
        for sample in list(session.samples):
            session.samples.remove(sample)
            session.layers.forget(sample.key)

    def _use(self, opened: Opened | None) -> None:
        """Take the list of another project; `samples_changed` shows it."""
        old, self.opened = self.opened, opened
        if old is not None and old.lock is not None and old is not opened:
            self.session.saving.close()
            old.lock.close()
        self._ready, self._versions, self.wanted = {}, {}, ""
        self._loader.clear()
        self._names, self.keys = {}, []
        self.session.review.clear_filter()
        if opened is not None:
            self._names = {key: name for name, key in opened.keys.items()}
            self.keys = list(self._names)
        self.session.show_title(None if opened is None else opened.path.name)

    def _say_opened(self, opened: Opened | None) -> None:
        if opened is None:
            self.session.hint()
            return
        notes = list(opened.found.notes)
        count = len(self.keys)
        text = f"{opened.path.name}: {count} image{'s' * (count != 1)}."
        if opened.read_only:
            notes.append("It can only be read here: strokes are not kept.")
        if not notes:
            text += " Strokes are saved in it as you paint."
        self.session.say(" ".join([text, *notes]), "warning" if notes else "info")

    # -- samples -----------------------------------------------------------------

    def title(self, key: str) -> str:
        """Return what a sample is called."""
        sample = self.session.sample(key)
        if sample is not None or self.opened is None:
            return "" if sample is None else sample.name
        return title(self.opened.project.sample(self._names[key]))

    def status(self, key: str) -> Status:
        """Return how far a sample is."""
        sample = self.session.sample(key)
        if sample is not None or self.opened is None:
            return "new" if sample is None else sample.status
        return self.opened.project.sample(self._names[key]).status

    def image(self, key: str) -> NDArray[np.uint8]:
        """Return the image of a sample, (H, W, 3) RGB; for any thread.

        Raises
        ------
        OSError, ValueError
            If it cannot be read.
        """
        sample = self.session.sample(key)
        if sample is not None:
            return sample.image
        if self.opened is None:
            raise ProjectError(f"there is no image {key!r} any more")
        return self.opened.project.load_image(self._names[key])

    def name(self, key: str) -> str | None:
        """Return the name of a sample in the project that is open."""
        return self._names.get(key)

    def fetch(self, key: str) -> None:
        """Show a sample that is not in memory, as soon as it is read."""
        if key not in self._names or self.opened is None:
            return
        ready = self._ready.pop(key, None)
        if ready is not None:
            self._take(ready)
            return
        self.wanted = key
        self._read(self.opened, key, now=True)

    def selected(self, key: str) -> None:
        """Read what comes next, and let go of what was shown long ago."""
        self.wanted = ""
        if self.opened is None:
            return
        samples = self.session.samples
        sample = self.session.sample(key)
        if sample is not None:  # the last one shown is last
            samples.remove(sample)
            samples.append(sample)
        for old in samples[:-_IN_MEMORY]:
            if old.key in self._names and self.session.saving.written(old.key):
                samples.remove(old)
                self.session.layers.forget(old.key)
                self.session.saving.forget(old.key)
        review = self.session.review
        near = [review.neighbour(1), review.neighbour(-1)]
        self._ready = {k: s for k, s in self._ready.items() if k in near}
        if sample is not None and self._is_old(sample):
            self._read(self.opened, key)
        for each in near:
            if each and each not in self._ready and self.session.sample(each) is None:
                self._read(self.opened, each)

    def refresh(self, names: Iterable[str]) -> None:
        """Show labels that a job wrote to the project: proposals, merged classes.

        What a person did not touch in memory is read again; call it in the GUI
        thread.
        """
        if self.opened is None:
            return
        for name in names:
            key = self.opened.keys.get(name)
            if key is None:
                continue
            self._ready.pop(key, None)
            self._versions[key] = self._versions.get(key, 0) + 1
            sample = self.session.sample(key)
            if sample is None:
                self.status_changed.emit(key)
            elif sample is self.session.current:
                self._read(self.opened, key)
            elif self.session.saving.written(key):
                self.session.samples.remove(sample)
                self.session.layers.forget(key)
                self.session.saving.forget(key)
                self.status_changed.emit(key)

    def _read(self, opened: Opened, key: str, *, now: bool = False) -> None:
        read = partial(
            read_sample,
            opened.project,
            self._names[key],
            self.session.choice,
            key=key,
            extra={_VERSION: self._versions.get(key, 0)},
        )
        self._loader.load(key, read, now=now)

    def _is_old(self, sample: LiveSample) -> bool:
        """Whether a job wrote its labels after it was read."""
        now = self._versions.get(sample.key, 0)
        return bool(sample.extra.get(_VERSION, now) != now)

    def _loaded(self, key: str, found: object) -> None:
        if self.session.closed or key not in self._names or self.opened is None:
            return
        if isinstance(found, LiveSample):
            sample = self.session.sample(key)
            if self._is_old(found):
                self._read(self.opened, key)
            elif sample is not None:
                self._renew(sample, found)
            elif key == self.wanted:
                self._take(found)
            else:
                self._ready[key] = found
        elif key == self.wanted and isinstance(found, Exception):
            self.wanted = ""
            self.session.complain(found, "The other images can be worked on.")

    def _renew(self, sample: LiveSample, found: LiveSample) -> None:
        """Give a sample in memory the labels on the disk, unless it was touched."""
        session = self.session
        if session.closed or session.sample(sample.key) is not sample:
            return
        session.labels.take_edits(sample)
        sample.extra[_VERSION] = found.extra[_VERSION]
        if not session.saving.written(sample.key):
            return  # a person's strokes win
        sample.edits = found.edits or Edits(np.zeros(sample.shape, np.uint8))
        sample.status, sample.absent = found.status, found.absent
        session.saving.known(sample, self._names[sample.key])
        session.labels.show(sample)
        self.status_changed.emit(sample.key)
        session.labels_changed.emit()

    def _take(self, sample: LiveSample) -> None:
        session = self.session
        if sample.edits is None:  # to paint on
            sample.edits = Edits(np.zeros(sample.shape, np.uint8))
        session.saving.known(sample, self._names[sample.key])
        session.samples.append(sample)
        session.select(sample.key)

    def _see_samples(self) -> None:
        """Take new samples of the session into the list."""
        known = set(self.keys)
        new = [s.key for s in self.session.samples if s.key not in known]
        if self.opened is None:
            self.keys = [s.key for s in self.session.samples]
        else:
            self.keys += new
            for key in new:
                name = self.session.saving.name(key)
                if name is not None:
                    self._names[key] = name
                    self.opened.keys[name] = key
        self.changed.emit()

    def trace(self, sample: LiveSample, job: Job) -> Trace:
        """Return the trace of a sample: from the project, else made now.

        Called in a job's thread.
        """
        from napari_ovam.workflows.sample_trace import sample_trace, saved_trace

        if self.opened is None:
            raise ProjectError(f"the project of {sample.name} was closed")
        project, name = self.opened.project, self._names[sample.key]
        sample.settings = as_settings(project.settings(name))
        if (found := saved_trace(project, name)) is not None:
            return found
        pipe = self.session.models.get(sample.choice, job)
        job.describe("Getting the trace of the image")
        return sample_trace(project, name, pipe, progress=job.progress)
