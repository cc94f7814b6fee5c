"""The project of a session: opened, made, put elsewhere; its samples, shown."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_ovam.base.folder_lock import lock_folder
from napari_ovam.project import Project
from napari_ovam.project.scratch import copy_project, mark_done

from .background import Loader
from .edits import Edits
from .project_reading import MARK, new_scratch, open_project, read_sample
from .state import LiveSample, title

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import Trace
    from napari_ovam.base.folder_lock import FolderLock
    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.project.index import Status

    from .project_reading import Opened
    from .saving import Saving
    from .worker import Job
    from .workspace import Workspace

_VERSION = "version"  # of labels on the disk, in the extra of a sample
_BEFORE = "before"  # the labels on the disk when reading began
_IN_MEMORY = 6  # samples with their layers: so far back, undo works


class Projects:
    """Opens projects, and shows their samples.

    A sample is named by its key, which is its name in the project.

    Attributes
    ----------
    wanted
        What is shown as soon as it is read; empty if nothing is waited for.
    unread
        What could not be read when it was wanted last; empty once another is shown.
    """

    selected = Signal(str)  # key of the sample that is shown from now on

    def __init__(self, session: Workspace, saving: Saving) -> None:
        self.session, self.saving = session, saving
        self._title = session.viewer.title
        self._ready: dict[str, LiveSample] = {}  # read ahead
        self._versions: dict[str, int] = {}  # how often jobs wrote labels, by key
        self.wanted = self.unread = ""
        self.near: tuple[str, ...] = ()  # what is likely to be shown next
        self._loader = Loader()
        self._loader.loaded.connect(self._loaded)

    def close(self) -> None:
        """Let go of the project; called when the window has closed."""
        self._loader.close()
        self.opened.close()

    @property
    def opened(self) -> Opened:
        """The project that the work is kept in."""
        return self.session.opened

    @property
    def keys(self) -> list[str]:
        """Of all samples, in their order."""
        return [sample.name for sample in self.session.project.samples]

    # -- opening -----------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Open a project folder; what is in the window now is written before."""
        self._change("Opening the project", partial(open_project, Path(path)))

    def create(self, path: Path) -> None:
        """Make a project in a new or empty folder, and open it."""
        make = partial(Project.create, path)
        self._change("Making the project", lambda: open_project(make().path))

    def leave(self) -> None:
        """Close the project; the window is as at its start."""
        self._change("Closing the project", new_scratch)

    def save_as(self, path: Path) -> None:
        """Put the work of this window into a new folder, and go on in it."""
        session, opened, path = self.session, self.opened, Path(path)
        if opened.chosen or not self.keys:
            session.complain("There is no unsaved work: it is in a project already")
            return
        session.take_edits(session.current)

        def run(_: Job) -> FolderLock | None:
            self.saving.flush()
            scratch = opened.path
            with opened.project.writing():  # what comes meanwhile is written there
                copy_project(scratch, path)
                opened.project.move(path)
            mark_done(scratch)
            with suppress(OSError):  # such as on a disk without locks
                return lock_folder(path)
            return None

        def returned(lock: FolderLock | None) -> None:
            opened.close()
            opened.lock, opened.scratch = lock, None
            self._show_title()
            session.samples_changed.emit()
            self._say_opened()

        session.start(
            "Saving the project", run, returned=returned, kept="The work is unsaved."
        )

    def _change(self, text: str, find: Any) -> None:
        session = self.session
        if session.refused():
            return
        session.take_all()

        def run(_: Job) -> Opened:
            self.saving.flush()
            found: Opened = find()
            return found

        def returned(opened: Opened) -> None:
            session.take_all()  # painted meanwhile
            self.saving.close()
            self._clear()
            self.opened.close()
            session.opened = opened
            session.views.clear()
            for number, token in opened.tokens.items():
                session.view(number).token = token
            self._show_title()
            if opened.chosen or opened.lock is not None:
                self.saving.begin()
            session.project_changed.emit()
            session.samples_changed.emit()
            session.classes_changed.emit()
            session.labels_changed.emit()
            session.phrases.restore()
            if self.keys:
                self._fetch(self.keys[0])
            else:
                session.current_changed.emit()
            self._say_opened()

        session.start(
            text, run, returned=returned, kept="The window is as it was before."
        )

    def _clear(self) -> None:
        """Take every sample out of the window; they are on the disk."""
        session = self.session
        session.current = None
        for sample in session.samples:
            session.layers.forget(sample.key)
        session.samples.clear()
        self._ready, self._versions, self.near = {}, {}, ()
        self.wanted = self.unread = ""
        self._loader.clear()

    def _show_title(self) -> None:
        """Say in the window's title which project is open."""
        opened, title = self.opened, self._title
        if opened.chosen:
            title = f"{title}: {opened.path.name}"
        self.session.viewer.title = title

    def _say_opened(self) -> None:
        if self.opened.chosen or self.keys:
            self.session.say(*self.opened.summary())
        else:
            self.session.hint()

    # -- samples -----------------------------------------------------------------

    def title(self, key: str) -> str:
        """Return what a sample is called."""
        return title(self.session.project.sample(key))

    def status(self, key: str) -> Status:
        """Return how far a sample is."""
        return self.session.project.sample(key).status

    def image(self, key: str) -> NDArray[np.uint8]:
        """Return the image of a sample, (H, W, 3) RGB; for any thread.

        Raises
        ------
        OSError, ValueError
            If it cannot be read.
        """
        sample = self.session.sample(key)
        return self.session.project.load_image(key) if sample is None else sample.image

    def add(
        self,
        image: NDArray[np.uint8],
        title: str,
        *,
        about: Mapping[str, Any] | None = None,
        settings: GenerationSettings | None = None,
        trace: Trace | None = None,
        **known: Any,
    ) -> LiveSample:
        """Add an image to the project, and show it.

        Parameters
        ----------
        image, title
            (H, W, 3) uint8, and what a person calls it.
        about
            What else is known of it, as JSON.
        settings, trace, known
            Fields of `LiveSample`; its `choice` is needed.
        """
        session = self.session
        model = known["choice"].model
        about = {**(about or {}), "title": title, "model": model}
        key = self.saving.add(image, title, about, settings, trace)
        sample = LiveSample(
            session.project, key, image, settings=settings, trace=trace, **known
        )
        session.samples.append(sample)
        self.saving.save_labels()
        session.samples_changed.emit()
        self.select(key)
        return sample

    def select(self, key: str) -> None:
        """Show a sample and hide the one that was shown.

        One that is not in memory is shown as soon as it is read.
        """
        session = self.session
        sample = session.sample(key)
        if sample is None:
            self._fetch(key)
            return
        old = session.current
        if old is not None and old is not sample:
            session.take_edits(old)
        first = not session.viewer.layers
        hands_over = self.opened.chosen or sample.same_stack(old)
        if hands_over and old is not None and old is not sample:
            if session.layers.of_sample(key):
                session.layers.forget(old.key)
                session.layers.switch("", key)
            else:
                session.layers.hand_over(old, sample)
        else:
            session.layers.switch(old.key if old else "", key)
        session.current = sample
        session.show(sample)
        same_view = hands_over and old is not None and old.shape == sample.shape
        if first or (old is not sample and not same_view):
            session.viewer.reset_view()
        self._selected(sample)
        session.current_changed.emit()

    def _fetch(self, key: str) -> None:
        """Show a sample that is not in memory, as soon as it is read."""
        if key not in self.keys:
            return
        ready = self._ready.pop(key, None)
        if ready is not None:
            self._take(ready)
            return
        self.wanted = key
        self._read(key, now=True)

    def _selected(self, sample: LiveSample) -> None:
        """Read what comes next, and let go of what was shown long ago."""
        self.wanted = self.unread = ""
        self.selected.emit(sample.key)  # which says what is near
        chosen = self.opened.chosen
        if not (chosen or sample.plane):  # each has layers of its own
            return
        samples = self.session.samples
        samples.remove(sample)  # the last one shown is last
        samples.append(sample)
        for old in samples[:-_IN_MEMORY]:
            if (chosen or old.plane) and self.saving.written(old.key):
                self._forget(old)
        self._ready = {k: s for k, s in self._ready.items() if k in self.near}
        self._read(sample.key, only_new=not self._is_old(sample))
        for each in self.near:
            if each and each not in self._ready and self.session.sample(each) is None:
                self._read(each)

    def _forget(self, sample: LiveSample) -> None:
        self.session.samples.remove(sample)
        self.session.layers.forget(sample.key)

    def refresh(self, names: Iterable[str]) -> None:
        """Show labels that a job wrote to the project: proposals, merged classes.

        What a person did not touch in memory is read again; call it in the GUI
        thread.
        """
        for key in names:
            self._ready.pop(key, None)
            self._versions[key] = self._versions.get(key, 0) + 1
            sample = self.session.sample(key)
            if sample is not None:
                shown = sample is self.session.current
                if shown or not self.opened.chosen:
                    self._read(key)
                elif self.saving.written(key):
                    self._forget(sample)
            self.session.sample_changed.emit(key)

    def _read(self, key: str, *, now: bool = False, only_new: bool = False) -> None:
        """Have a sample read; `only_new`: if another program changed its labels."""
        project = self.session.project
        known = self.session.sample(key)
        version = {
            _VERSION: self._versions.get(key, 0),
            _BEFORE: None if known is None else known.on_disk,
        }
        choice = self.session.choice
        sample = partial(read_sample, project, key, choice, extra=version)

        def read() -> LiveSample | None:
            return sample() if not only_new or project.labels_changed(key) else None

        # What is read of a project that was closed meanwhile is told apart.
        self._loader.load(f"{project.path}\0{key}", read, now=now)

    def _is_old(self, sample: LiveSample) -> bool:
        """Whether a job wrote its labels after it was read."""
        now = self._versions.get(sample.key, 0)
        return bool(sample.extra.get(_VERSION, now) != now)

    def _loaded(self, place: str, found: object) -> None:
        path, _, key = place.partition("\0")
        if self.session.closed or path != str(self.session.project.path):
            return
        if isinstance(found, LiveSample) and found.project is self.session.project:
            sample = self.session.sample(key)
            if self._is_old(found):
                self._read(key)
            elif sample is None and key == self.wanted:
                self._take(found)
            elif sample is None:
                self._ready[key] = found
            elif found.extra[_BEFORE] is not sample.on_disk:  # written since
                self._read(key, only_new=True)
            else:
                self._renew(sample, found)
        elif key == self.wanted and isinstance(found, Exception):
            self.wanted, self.unread = "", key
            self.session.complain(found, "The other images can be worked on.")

    def _renew(self, sample: LiveSample, found: LiveSample) -> None:
        """Give a sample in memory the labels on the disk, unless it was touched."""
        session = self.session
        if session.closed or session.sample(sample.key) is not sample:
            return
        session.take_edits(sample)
        sample.extra[_VERSION] = found.extra[_VERSION]
        if not self.saving.written(sample.key):
            return  # a person's strokes win
        found.edits = found.edits or Edits(np.zeros(sample.shape, np.uint8))
        if sample.edits is not None and found.edits.now.same(sample.edits.now):
            sample.project.see_labels(sample.key, found.extra[MARK])
            return  # and what can be undone stays
        sample.edits, sample.extra[MARK] = found.edits, found.extra[MARK]
        self._is_on_disk(sample)
        session.show_labels(sample)
        session.sample_changed.emit(sample.key)
        session.labels_changed.emit()

    def _take(self, sample: LiveSample) -> None:
        if sample.edits is None:  # to paint on
            sample.edits = Edits(np.zeros(sample.shape, np.uint8))
        self._is_on_disk(sample)
        self.session.samples.append(sample)
        self.select(sample.key)

    def _is_on_disk(self, sample: LiveSample) -> None:
        sample.project.see_labels(sample.key, sample.extra[MARK])
        if sample.edits is not None:
            sample.saved = sample.on_disk = sample.edits.now
