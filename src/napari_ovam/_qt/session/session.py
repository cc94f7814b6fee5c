"""One session a viewer: its state, and the parts that change it.

Sections show this state and ask for changes; they own none. Everything here runs in
the GUI thread; what takes long is handed to a `Job`.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from napari.utils.task_status import Status
from qtpy.QtCore import QEvent, QObject

from .class_changes import ClassChanges
from .projects import Projects
from .saving import Saving
from .sources import Sources
from .workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from napari.viewer import Viewer

    from .worker import Job

    Feature = TypeVar("Feature")


class Session(Workspace):
    """The annotator in one viewer, without what is seen of it.

    Attributes
    ----------
    saving, projects, class_changes, sources
        What writes the work, opens projects and shows samples, changes classes, and
        chooses what makes their maps.
    actions
        What keys and buttons do, by name; features enter theirs.
    """

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
        super().__init__(viewer)
        self._held: UUID | None = None
        self._features: dict[Any, Any] = {}
        self.actions: dict[str, Callable[[], object]] = {}
        self.saving = Saving(self)
        self.projects = Projects(self, self.saving)
        self.class_changes = ClassChanges(self, self.saving, self.projects)
        self.sources = Sources(self, self.saving)
        self._watcher = _CloseWatcher(viewer, self)
        self.hint()

    def feature(self, kind: Callable[[Session], Feature]) -> Feature:
        """Return the feature of a kind that works on this session; once made, it."""
        if kind not in self._features:
            self._features[kind] = kind(self)
        made: Feature = self._features[kind]
        return made

    def do(self, action: str) -> None:
        """Do what a key or a button stands for."""
        call = self.actions.get(action)
        if call is None:
            self.asked.emit(action)
        else:
            call()

    def step(self, by: int) -> None:
        """Show the next (1) or the previous (-1) sample."""
        self.do("next" if by > 0 else "previous")

    def select(self, key: str) -> None:
        """Show a sample; see `Projects.select`."""
        self.projects.select(key)

    def close(self) -> None:
        """Stop what runs; called when the window has closed."""
        if self.closed:
            return
        self.guarded(lambda _: self.take_all(), None)
        super().close()
        for feature in self._features.values():
            end = getattr(feature, "close", None)
            if end is not None:
                end()
        self.saving.close()
        self.projects.close()
        self._sessions.pop(id(self._viewer()), None)

    def closing_waits_for(self, text: str) -> None:
        """Make napari say what it waits for when a person closes its window."""
        window = self.viewer.window
        if self._held is not None:
            window._update_task_status(self._held, Status.COMPLETED, "")
            self._held = None
        if text and self.job is not None:
            # napari keeps what is done, too: it shall not keep the job and this alive
            self._held = window._register_task_status(
                "napari-ovam",
                Status.BUSY,
                text,
                cancel_callback=partial(_quit, weakref.ref(self.job)),
            )


def _quit(job: weakref.ref[Job]) -> None:
    running = job()
    if running is not None:
        running.quit()


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
