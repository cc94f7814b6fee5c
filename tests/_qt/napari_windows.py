"""Napari windows that tests use one after another: making one takes a second."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from weakref import WeakSet

from napari import Viewer
from napari._qt.qt_main_window import _QtMainWindow
from napari.settings import get_settings
from qtpy import PYSIDE6
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QDialog, QDockWidget
from superqt.utils import WorkerBase

from napari_ovam._qt.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIZE = 1400, 900
_END_OF_JOBS = 10_000  # ms


class Window:
    """A napari window, as it was when it was new before each test."""

    def __init__(self) -> None:
        self.viewer = Viewer(show=True, show_welcome_screen=False)
        self._docks = set(self._find_docks())
        self._places = self.viewer.window._qt_window.saveState()
        self._theme = self.viewer.theme
        self._title = self.viewer.title
        self._keys = dict(self.viewer.keymap)
        self._heard = self._count_callbacks()

    @property
    def is_open(self) -> bool:
        """Whether no test closed it."""
        window = getattr(self.viewer.window, "_qt_window", None)
        return window is not None and bool(window.isVisible())

    def take(self) -> Any:
        """Return the viewer for a test, in front of other windows."""
        window = self.viewer.window._qt_window
        window.resize(*_SIZE)
        window.raise_()
        windows = _QtMainWindow._instances  # the last is the one that a person uses
        windows.append(windows.pop(windows.index(window)))
        return self.viewer

    def is_clean(self) -> bool:
        """Whether nothing listens to the viewer that did not when it was new."""
        return self._count_callbacks() == self._heard

    def clear(self) -> None:
        """Make it as it was when it was new."""
        viewer, window = self.viewer, self.viewer.window
        if session := Session._sessions.get(id(viewer)):
            session.close()
        del session
        WorkerBase.await_workers(_END_OF_JOBS)
        for dock in self._find_docks():
            if dock not in self._docks:
                inner = dock.widget()
                window.remove_dock_widget(dock)
                inner.deleteLater()
                del inner
        for widget in QApplication.topLevelWidgets():  # that were never docked
            if type(widget).__module__.startswith("napari_ovam"):
                widget.deleteLater()
        for child in window._qt_window.children():
            if isinstance(child, QDialog) or type(child).__name__ == "_CloseWatcher":
                child.deleteLater()
        del child
        window._qt_window.restoreState(self._places)  # widths, corners
        viewer.layers.clear()
        viewer.title, viewer.theme = self._title, self._theme
        viewer.keymap.clear()
        viewer.keymap.update(self._keys)
        viewer.dims.ndisplay = 2
        viewer.reset_view()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        QApplication.processEvents()

    def close(self) -> None:
        """Close it for good."""
        gc.unfreeze()
        window = getattr(self.viewer.window, "_qt_window", None)
        if window is not None:
            with patch.object(window, "_save_current_window_settings"):
                self.viewer.close()
        gc.collect()

    def _find_docks(self) -> Iterator[QDockWidget]:
        return iter(self.viewer.window._qt_window.findChildren(QDockWidget))

    def _count_callbacks(self) -> dict[str, int]:
        """Count what listens to the viewer's layers, by the event."""
        events = self.viewer.layers.events.emitters
        return {name: sum(map(_lives, e.callbacks)) for name, e in events.items()}


def _lives(callback: Any) -> bool:
    """Whether napari would call it: it keeps the owners of methods weakly."""
    return not isinstance(callback, tuple) or callback[0]() is not None


class Windows:
    """All windows of a test run. A test takes as many as it needs."""

    def __init__(self) -> None:
        self._made: list[Window] = []
        self._taken: list[Window] = []
        self._left = WeakSet[Session]()
        self._failed = False
        get_settings().reset()
        self._settings = get_settings().model_dump()

    def take(self, **_: Any) -> Any:
        """Return the viewer of an empty window that is shown."""
        if not self._taken:
            self._check()
        free = [w for w in self._made if w not in self._taken]
        if free:
            window = free[0]
        else:
            window = Window()
            self._made.append(window)
            if not self._taken:  # no session is there yet
                gc.collect()
                gc.freeze()  # the libraries: looking through them takes half a second
        self._taken.append(window)
        return window.take()

    def _check(self) -> None:
        """Check that the plugin let go of what the last test showed.

        That can be seen only now: pytest held the test's fixtures until it was over.
        """
        # PySide6 keeps what its signals call, the report of a failure what it is about:
        # there the window is only made anew.
        excused = PYSIDE6 or self._failed
        # A thread that has just ended may hold something a little longer.
        for _ in range(1 if excused else 20):
            gc.collect()
            alive = {each for each in gc.get_objects() if type(each) is Session}
            left = alive - set(self._left)
            clean = not left and all(window.is_clean() for window in self._made)
            if clean:
                gc.freeze()  # the libraries that it imported: the next look is shorter
                break
            del alive, left
            gc.unfreeze()  # what was alive at the last check may hold it by a circle
            QApplication.processEvents()
            time.sleep(0.05)
        else:
            self._left.update(o for o in gc.get_objects() if type(o) is Session)
        if not clean:
            self.close()
        assert clean or excused, "what the test before this one showed is in memory"

    def give_back(self, *, failed: bool) -> None:
        """Empty the windows of a test; close those that it spoilt."""
        taken, self._taken, self._failed = self._taken, [], failed
        if get_settings().model_dump() != self._settings:
            get_settings().reset()
        for window in taken:
            well = False
            try:
                if window.is_open and not failed:
                    window.clear()
                    well = True
            finally:
                if not well:
                    self._made.remove(window)
                    window.close()

    def close(self) -> None:
        """Close all."""
        while self._made:
            self._made.pop().close()
