"""One background job: progress, results on the way, cancel, and no lost error."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from superqt.utils import WorkerBase
from superqt.utils._qthreading import WorkerBaseSignals

from napari_ovam.base.progress import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

# Between two previews, in seconds: each costs the GUI thread a drawing.
_PERIOD = 0.1


class JobSignals(WorkerBaseSignals):
    """The signals of a `Job`, all of them received in the GUI thread."""

    progressed = Signal(int, int)
    described = Signal(str, bool)
    previewed = Signal(object)
    aborted = Signal()


class Job(WorkerBase[Any]):
    """A task that runs in a thread of its own.

    Of the signals `returned`, `aborted` and `errored` exactly one is emitted, then
    `finished`. A task that answers a cancel with a result (token optimization keeps
    its best token) ends with `returned`.

    Parameters
    ----------
    task
        Called with the job. It hands `progress` on to whatever takes long.
    title
        What the status line shows while it runs, such as "Generating".
    """

    # superqt passes these on from its signals object, typed for one argument only.
    progressed: Any
    described: Any
    previewed: Any
    aborted: Any
    returned: Any
    errored: Any

    def __init__(self, task: Callable[[Job], Any], title: str = "") -> None:
        super().__init__(SignalsClass=JobSignals)
        self.title = title
        self.holds = ""  # what runs now, where no cancel can end it early
        self._task = task
        self._cancel = threading.Event()
        self._last_progress: tuple[int, int] | None = None
        self._last_preview = 0.0
        self._shown = True  # the last preview

    @property
    def cancelled(self) -> bool:
        """Whether a cancel was asked for."""
        return self._cancel.is_set()

    def quit(self) -> None:
        """Ask the task to stop at its next progress call."""
        self._cancel.set()

    def check(self) -> None:
        """Raise `Cancelled` if a cancel was asked for."""
        if self._cancel.is_set():
            raise Cancelled

    def progress(self, done: int, total: int) -> None:
        """Report progress; a `napari_ovam.Progress` callback."""
        self.check()
        if (done, total) != self._last_progress:
            self._last_progress = (done, total)
            self.progressed.emit(done, total)

    def describe(self, text: str, *, holds: bool = False) -> None:
        """Say which part of the work begins, and whether no cancel can end it early."""
        self.check()
        self.title = text
        self.holds = text if holds else ""
        self._last_progress = None
        self.described.emit(text, holds)

    def preview(self, value: Any) -> None:
        """Show something on the way.

        Skipped when the last one was a moment ago, or was not shown yet.
        """
        now = time.monotonic()
        if self._shown and now - self._last_preview >= _PERIOD:
            self._last_preview = now
            self._shown = False
            self.previewed.emit(value)

    def preview_shown(self) -> None:
        """Let the next preview come; called in the GUI thread."""
        self._shown = True

    def post(self, value: Any) -> None:
        """Hand over a result on the way; never skipped."""
        self.previewed.emit(value)

    def run(self) -> None:
        """Run, and end in silence where the application, with the signals, is gone.

        What escapes this method ends the process (PyQt).
        """
        with suppress(RuntimeError):
            super().run()

    def work(self) -> Any:
        """Run the task; called in the job's thread."""
        try:
            return self._task(self)
        except Cancelled:
            self._abort_requested = True  # else the base class emits `returned`
            self.aborted.emit()
        return None
