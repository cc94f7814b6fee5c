"""One session a viewer: it owns the state of the annotator and starts its jobs.

Sections show this state and ask for changes; they own none. Everything here runs in
the GUI thread; what takes long is handed to a `Job`.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from napari.utils.task_status import Status
from psygnal import Signal
from qtpy.QtCore import QEvent, QObject, QTimer

from napari_ovam._qt.classes.class_changes import ClassChanges
from napari_ovam._qt.export.exporting import Exports
from napari_ovam._qt.image.generating import Images
from napari_ovam._qt.instances.instancing import InstanceEdits
from napari_ovam._qt.labels.doubts import Doubts
from napari_ovam._qt.labels.labelling import Labelling
from napari_ovam._qt.layers.keys import bind_keys
from napari_ovam._qt.layers.label_png import label_png, read_label_png
from napari_ovam._qt.layers.layers import SampleLayers, role_of
from napari_ovam._qt.maps.live import LiveMaps
from napari_ovam._qt.maps.mapping import Maps
from napari_ovam._qt.project.projects import Projects
from napari_ovam._qt.project.proposing import Proposing
from napari_ovam._qt.project.review import Review
from napari_ovam._qt.tokens.library import Library
from napari_ovam._qt.tokens.optimizing import Tokens

from . import tasks
from .jobs import JobRunner
from .saving import Saving
from .settings import preferences
from .state import ClassTable, LiveSample

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_ovam import Token


class Session(JobRunner):
    """The state of the annotator in one viewer.

    Attributes
    ----------
    samples
        Those in memory: all that were made here, or the last ones that were shown of
        a project.
    current
        The sample that is shown.
    classes
        The class table.
    choice
        The model for new images.
    images, maps, labels, tokens, exports, projects, review, proposing, library
    class_changes, instances
        What can be done, by section of the panel.
    """

    samples_changed = Signal()
    current_changed = Signal()
    classes_changed = Signal()
    labels_changed = Signal()
    optimized_step = Signal(int, float)
    optimized = Signal(object)  # class id
    asked = Signal(str)  # a key was pressed for what a section's form starts
    settings_restored = Signal(object)  # GenerationSettings of a loaded PNG
    phrases_restored = Signal(str)  # of recovered work, separated by commas
    reproduction_differs = Signal(object)  # what loads the picture in spite of that

    _sessions: ClassVar[dict[int, Session]] = {}

    @classmethod
    def of(cls, viewer: Any) -> Session:
        """Return the session of a viewer; the first call makes it."""
        viewer = getattr(viewer, "__wrapped__", viewer)
        if id(viewer) not in cls._sessions:
            cls._sessions[id(viewer)] = cls(viewer)
            weakref.finalize(viewer, cls._sessions.pop, id(viewer), None)
        return cls._sessions[id(viewer)]

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.models = tasks.Models()
        self.choice = preferences().choice
        self.samples: list[LiveSample] = []
        self.current: LiveSample | None = None
        self.classes = ClassTable()
        self._held: UUID | None = None
        self.images = Images(self)
        self.maps = Maps(self)
        self.labels = Labelling(self)
        self.tokens = Tokens(self)
        self.live = LiveMaps(self)
        self.doubts = Doubts(self)
        self.exports = Exports(self)
        self.layers = SampleLayers(viewer, self.labels, partial(bind_keys, self))
        viewer.layers.events.inserted.connect(self._layer_inserted)
        viewer.layers.events.removed.connect(self._layer_removed)
        self.saving = Saving(self)
        self.projects = Projects(self)
        self.review = Review(self)
        self.proposing = Proposing(self)
        self.library = Library(self)
        self.class_changes = ClassChanges(self)
        self.instances = InstanceEdits(self)
        self._title = viewer.title
        self._watcher = _CloseWatcher(viewer, self)
        self.hint()

    def close(self) -> None:
        """Stop what runs; called when the window has closed."""
        if self.closed:
            return
        self.guarded(lambda _: self.labels.take_all(), None)
        self.layers.close()
        super().close()
        self.live.close()
        self.labels.close()
        self.saving.close()
        self.projects.close()
        self.library.close()
        self.instances.close()
        self._sessions.pop(id(self._viewer()), None)

    def closing_waits_for(self, text: str) -> None:
        """Make napari say what it waits for when a person closes its window."""
        window = self.viewer.window
        if self._held is not None:
            window._update_task_status(self._held, Status.COMPLETED, "")
            self._held = None
        if text and self.job is not None:
            self._held = window._register_task_status(
                "napari-ovam", Status.BUSY, text, cancel_callback=self.job.quit
            )

    @property
    def viewer(self) -> Viewer:
        """The viewer."""
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer of this session is gone")
        return viewer

    def hint(self) -> None:
        """Say what can be done next."""
        self.say(self._next_step())

    def _next_step(self) -> str:
        sample = self.current
        if sample is None:
            return "Describe an image and press Generate, or load one."
        if not sample.maps and sample.edits is None:
            return "Type what to look for, and press Map."
        if sample.edits is None:
            return "Press Labels from maps to turn the maps into labels."
        if self.projects.opened is not None:
            return "Correct the labels with the brush, then accept or reject them."
        if sample.edits.are_proposal:
            return "Correct the labels with the brush, then optimize a token from them."
        if not any(entry.token for entry in self.classes):
            return "Optimize a token from your labels, or keep painting."
        return "Generate the next image, or export the labels."

    def sample(self, key: str) -> LiveSample | None:
        """Return the sample with a key."""
        return next((s for s in self.samples if s.key == key), None)

    def select(self, key: str) -> None:
        """Show a sample and hide the one that was shown.

        One that is not in memory is shown as soon as it is read.
        """
        sample = self.sample(key)
        if sample is None:
            self.projects.fetch(key)
            return
        old = self.current
        if old is not None and old is not sample:
            self.labels.take_edits(old)
        first = not self.viewer.layers
        in_project = self.projects.opened is not None
        if in_project and old is not None and old is not sample:
            if self.layers.of_sample(key):
                self.layers.forget(old.key)
                self.layers.switch("", key)
            else:
                self.layers.hand_over(old, sample)
        else:
            self.layers.switch(old.key if old else "", key)
        self.current = sample
        self.show(sample)
        same_view = in_project and old is not None and old.shape == sample.shape
        if first or (old is not sample and not same_view):
            self.viewer.reset_view()
        self.projects.selected(key)
        self.current_changed.emit()

    def step(self, by: int) -> None:
        """Show the next (1) or the previous (-1) sample."""
        self.review.step(by)

    def use_token(self, number: int, token: Token | Path | str) -> None:
        """Use a token, or a file of the token library, for the class with an id."""
        self.library.use(number, token)

    def show_title(self, name: str | None) -> None:
        """Say in the window's title which project is open."""
        title = self._title
        self.viewer.title = title if name is None else f"{title}: {name}"

    def show(self, sample: LiveSample) -> None:
        self.labels.take_edits(sample)
        self.layers.show_image(sample)
        self.layers.remove_maps(sample.key, keep=(e.id for e in self.classes.active))
        for entry in self.classes.active:
            self.layers.show_map(sample, entry, self.maps.opacity)
        labels = self.layers.show_labels(sample, self.classes)
        if labels is not None and self.saving.read_only:
            labels.editable = False

    def _layer_inserted(self, event: Any) -> None:
        if not self.closed and label_png(event.value) is not None:
            # napari is not done with the layer yet
            QTimer.singleShot(0, partial(self.guarded, self._as_labels, event.value))

    def _as_labels(self, layer: Layer) -> None:
        """Show a label PNG that napari opened as a picture as the labels that it is."""
        found = label_png(layer)
        if self.closed or found is None or layer not in self.viewer.layers:
            return
        labels = read_label_png(*found)
        index = self.viewer.layers.index(layer)
        self.viewer.layers.remove(layer)
        self.viewer.layers.insert(index, labels)
        self.say(f"{found[0].name} is shown as labels, with the classes beside it.")

    def _layer_removed(self, event: Any) -> None:
        key, role, _ = role_of(event.value)
        sample = self.sample(key)
        if sample is None or self.closed or self.layers.removing:
            return
        if role == "labels" and sample.edits is not None:
            self.guarded(partial(self.labels.take_edits, sample), event.value)
        if role in ("labels", "image"):
            are, them = ("are", "them") if role == "labels" else ("is", "it")
            self.say(
                f"The {role} of {sample.name} {are} kept: Labels from maps shows "
                f"{them} again.",
                "warning",
            )


class _CloseWatcher(QObject):
    """Ends a session when napari's window has closed.

    A closed window is hidden for good; one that is only minimised stays visible to
    Qt, and one whose closing was refused was never hidden.
    """

    def __init__(self, viewer: Viewer, session: Session) -> None:
        window = viewer.window._qt_window
        super().__init__(window)
        self._session = weakref.ref(session)
        window.installEventFilter(self)

    def eventFilter(self, _watched: QObject | None, event: QEvent | None) -> bool:
        session = self._session()
        if (
            session is not None
            and event is not None
            and event.type() == QEvent.Type.Hide
            and not event.spontaneous()
        ):
            session.close()
        return False
