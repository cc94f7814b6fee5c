"""Keeps the work of a session safe: its project follows it within seconds."""

from __future__ import annotations

import weakref
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ovam.datasets.classes import ClassTable
from napari_ovam.project.autosave import Autosave
from napari_ovam.project.class_tokens import give_token
from napari_ovam.project.index import ConflictError
from napari_ovam.project.scratch import Scratch

from .edits import Edits
from .jobs import as_sentence
from .state import DECIDED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_ovam import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.datasets.project_class import ProjectClass
    from napari_ovam.project.history import Change
    from napari_ovam.project.index import Status

    from .edits import Snapshot
    from .state import LiveSample
    from .workspace import Workspace

_LARGEST_TRACE = 200_000_000  # bytes; a larger one is made anew from the settings
_CLOSING = 10.0  # seconds that closing waits for a slow disk at most


class Saving:
    """Writes samples, labels, classes and tokens soon after they change.

    Everything that takes time happens in the thread of an `Autosave`. A scratch
    project is made with the first sample. What cannot be written is tried again until
    it is, and `trouble` says so as long.

    Attributes
    ----------
    autosave
        None where there is nothing to write to yet, or nothing can be written.
    trouble
        Why something is not written; empty if all is.
    """

    def __init__(self, session: Workspace) -> None:
        self.session = session
        self.autosave: Autosave | None = None
        self.trouble = ""
        self._classes: list[ProjectClass] = []
        self._traced: tuple[Any, str] = (lambda: None, "")  # the last one, of which
        self._voice = _Voice()
        self._voice.failed.connect(self._failed)
        self._voice.merged.connect(self._merged)
        session.labels_changed.connect(self.save_labels)
        session.classes_changed.connect(self._save_classes)

    def close(self) -> None:
        """Write what is left; what cannot be becomes work that a later start offers."""
        if self.autosave is not None and not self.autosave.close(_CLOSING):
            with suppress(OSError, ValueError):  # such as on a full disk
                self._rescue(self.autosave)
        self.autosave = None
        self.session.trouble = self.trouble = ""

    def _rescue(self, autosave: Autosave) -> None:
        """Write what the last try could not into a scratch project."""
        session, unsaved = self.session, self.session.project.unsaved
        lost = [s for s in session.samples if autosave.waits(s.key) or s.key in unsaved]
        if not lost:
            return
        scratch = Scratch()
        scratch.start()
        project, old = scratch.project, session.classes
        entries = [replace(e, source="phrase", token=None) for e in old]
        project.classes.take_over(ClassTable.of(entries, old.last_id, old.retired))
        try:
            for sample in lost:
                made, key = _made(sample.settings, sample.choice.model), sample.key
                about = {**sample.about, "unsaved in": str(session.project.path)}
                project.add_sample(sample.image, made, key, provenance=about)
                status, absent = sample.status, sample.absent
                project.change_sample(key, status=status, absent=absent)
                if sample.edits is not None:
                    now = sample.edits.now
                    project.save_labels(key, now.labels, None, painted=now.painted)
            for number, view in session.views.items():
                if view.token is not None and autosave.waits(number):
                    project.save_token(number, view.token)
        finally:
            scratch.close()

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written to the project that is open."""
        return self.session.opened.read_only

    def written(self, key: str) -> bool:
        """Whether a sample is on the disk as it is."""
        sample = self.session.sample(key)
        if sample is not None and sample.unsaved and not self.read_only:
            return False
        return self.autosave is None or not self.autosave.waits(key)

    def flush(self) -> None:
        """Write everything now; not in the GUI thread.

        Raises
        ------
        OSError
            If something cannot be written.
        """
        if self.autosave is not None and not self.autosave.flush():
            raise OSError(
                f"not all work is written to {self.session.project.path} yet"
                f"{f' ({self.trouble})' if self.trouble else ''}: it is tried again "
                "every 5 seconds"
            )

    def begin(self) -> None:
        """Write to the session's project from now on."""
        opened = self.session.opened
        if self.autosave is None and not opened.read_only:
            self._classes = list(opened.project.classes)
            self.autosave = Autosave(opened.project, failed=self._voice.failed.emit)
            if opened.scratch is not None:
                self.submit("start", None, opened.scratch.start)

    def submit(self, kind: str, name: object, write: Callable[[], object]) -> None:
        """Call `write` soon in the thread, and again until it succeeds."""
        if self.autosave is not None:
            self.autosave.submit((kind, name), write)

    # -- what is written -----------------------------------------------------------

    def add(
        self,
        image: Any,
        title: str,
        about: Mapping[str, Any],
        settings: GenerationSettings | None,
        trace: Trace | None,
    ) -> str:
        """Add an image, (H, W, 3) uint8, to the project; return its name there."""
        self.begin()
        project = self.session.project
        if self.autosave is None:
            self.session.say(
                "The open project can only be read: the new image is only in this "
                "window.",
                "warning",
            )
            return project.announce(title, about).name
        made = _made(settings, about["model"])
        name = self.autosave.add_sample(image, made, title, provenance=about)
        from napari_ovam.attention.trace_cache import trace_bytes  # reads torch

        if trace is not None and trace_bytes(trace) <= _LARGEST_TRACE:
            # Frames that a model sees as one have one trace, and so one file.
            same, self._traced = self._traced, (weakref.ref(trace), name)
            as_of = same[1] if same[0]() is trace else None
            save = partial(project.save_trace, name, trace, as_of=as_of)
            self.submit("trace", name, save)
        self.save_index()
        return name

    def save_labels(self) -> None:
        """Write the labels in memory that were changed."""
        for sample in self.session.samples:
            edits, saved = sample.edits, sample.saved
            if edits is None or edits.now is saved:
                continue
            if saved is not None and saved.same(edits.now):
                sample.saved = edits.now
                continue
            if saved is not None or sample.status == "new":
                untouched: Status = "new" if edits.nothing else "proposed"
                self._follow(sample, "edited" if edits.count else untouched)
            self.write_labels(sample)

    def write_labels(self, sample: LiveSample) -> None:
        """Write the labels of a sample as they are, with its status."""
        if sample.edits is None:
            return
        now = sample.saved = sample.edits.now
        steps = sample.edits.steps
        mark, merged = steps.mark, self._voice.merged.emit

        def write() -> None:
            _write_labels(sample, now, steps.until(mark), merged)
            steps.forget(mark)

        self.submit("labels", sample.key, write)

    def _merged(
        self, sample: LiveSample, now: Snapshot, theirs: Any, mask: Any, clashes: int
    ) -> None:
        """Show what another program changed in labels that were changed here, too."""
        session = self.session
        if sample not in session.samples or sample.edits is None:
            return
        session.take_edits(sample)
        labels = sample.edits.labels
        mask = mask & (labels == now.labels)  # and not changed again since
        labels[mask] = theirs[mask]
        with sample.edits.doing({"by": "unknown"}):
            sample.edits.take(labels)
        if sample.unseen is not None and sample.unseen[0] is now:
            sample.unseen = None
        session.show_labels(sample)
        session.labels_changed.emit()
        text = f"Another program changed the labels of {sample.name}: "
        if clashes:
            text += (
                f"{clashes} pixels that were changed here as well stay as they are "
                f"here, and its labels are kept in {session.project.path / 'replaced'}."
            )
        else:
            text += "its changes and yours are both in them now."
        session.say(text, "warning")

    def save_index(self) -> None:
        """Write the class table and what is known of the samples."""
        if self.autosave is not None:
            self.autosave.save_index()

    def save_token(self, number: int, token: Token) -> None:
        """Write the token of a class; the one that it had goes into the library."""
        self.begin()
        give = partial(give_token, self.session.project, number, token, source=None)
        self.submit("token", number, give)

    def _follow(self, sample: LiveSample, status: Status) -> None:
        """Set the status that the work on the labels gives."""
        if sample.status in DECIDED:
            self.session.say(
                f"{sample.name} was {sample.status}; as its labels were changed, it is "
                f"{status} again.",
                "warning",
            )
        self.session.set_status(sample, status)

    def _save_classes(self) -> None:
        entries = list(self.session.classes)
        if entries != self._classes:
            self._classes = entries
            self.save_index()

    def _failed(self, error: Exception | None) -> None:
        session = self.session
        if error is None:
            session.trouble = self.trouble = ""
            session.say(f"Everything is saved in {session.project.path} again.")
            return
        why = as_sentence(error).rstrip(".")
        if why != self.trouble:
            self.trouble = why
            session.trouble = (
                f"Not saved yet: {why}. It could not be autosaved, is kept in this "
                "window, and is tried again every 5 seconds."
            )
            session.say("", "error")


class _Voice(QObject):
    """Carries errors from the autosave's thread to the GUI's."""

    failed = Signal(object)
    merged = Signal(object, object, object, object, int)


def _write_labels(
    sample: LiveSample,
    now: Snapshot,
    changes: list[Change],
    merged: Callable[..., object],
) -> None:
    """Write labels; where another program wrote some meanwhile, those of both.

    What only one of them changed since the labels were the same counts. Where both
    did, this one's count, and the other's are kept beside them.
    """
    project, key, known = sample.project, sample.key, sample.on_disk
    mine, late = now.labels, np.zeros(now.labels.shape, bool)
    if sample.unseen is not None:  # painted before the window showed what was joined
        was, place, drawn = sample.unseen
        late = place & (mine == was.labels)
        mine = np.where(late, drawn, mine)
    save = partial(
        project.save_labels,
        key,
        status=None,
        painted=now.painted | late,
        made_by=changes,
    )
    try:
        save(mine)
    except ConflictError:
        try:
            theirs = project.load_labels(key, to_edit=False)
        except ValueError:  # no labels
            theirs = None
        if theirs is None or known is None or theirs.shape != mine.shape:
            save(mine, keep_others=True)
            sample.on_disk = now
            return
        base = known.labels
        new, ours = theirs != base, mine != base
        clashes = int((new & ours & (theirs != mine)).sum())
        mask = (new & ~ours) | late
        mine = np.where(new & ~ours, theirs, mine)
        project.save_labels(
            key,
            mine,
            None,
            painted=now.painted | mask,
            keep_others=bool(clashes),
            over=None if clashes else theirs,
            made_by=changes,
        )
        sample.unseen = now, mask, mine
        merged(sample, now, mine, mask, clashes)
        sample.on_disk = Edits(mine).now
    else:
        sample.on_disk = Edits(mine).now if late.any() else now


def _made(settings: GenerationSettings | None, model: str) -> dict[str, Any] | None:
    """Return what the PNG of an image says of how it was generated."""
    return None if settings is None else {"model": model, **asdict(settings)}
