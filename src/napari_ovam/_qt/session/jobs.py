"""Runs one long task at a time, and says what happens."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from psygnal import Signal
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel

from .worker import Job

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["info", "warning", "error"]
# Hooks report many times a step; each report that is shown costs a drawing.
_PERIOD = 100  # ms


class JobRunner:
    """Starts jobs, and speaks through the status line.

    Attributes
    ----------
    job
        The long task that runs now.
    message
        What the status line shows, and its kind.
    trouble
        What every message ends with until it is over; empty if all is well.
    quick
        Small tasks that run now.
    giving_way
        Held by a task that gives way as long as it runs, if it is on its way out.
    """

    said = Signal(str, str)  # text, kind
    job_changed = Signal()
    progressed = Signal(int, int)

    def __init__(self) -> None:
        self.job: Job | None = None
        self.closed = False
        self.message: tuple[str, Kind] = ("", "info")
        self.trouble = ""
        self.quick: set[Job] = set()
        self.giving_way = threading.Lock()
        self._turns: deque[Callable[[], object]] = deque()
        self.job_changed.connect(self._next_turn)
        self._progress: tuple[int, int] | None = None  # not shown yet
        self._timer = QTimer()
        self._timer.setInterval(_PERIOD)
        self._timer.timeout.connect(self._show_progress)

    def say(self, text: str, kind: Kind = "info") -> None:
        """Show a sentence in the status line."""
        if self.trouble:
            text, kind = f"{text} {self.trouble}".strip(), "error"
        self.message = (text, kind)
        self.said.emit(text, kind)

    def complain(self, error: Exception | str, kept: str = "") -> None:
        """Show an error: what happened, what was kept, what to do."""
        self.say(f"{as_sentence(error)} {kept}".strip(), "error")

    def in_turn(self, call: Callable[[], object]) -> None:
        """Call something that starts a long task, after those that run or wait."""
        self._turns.append(call)
        self._next_turn()

    def _next_turn(self) -> None:
        if self._turns and not self.busy and not self.closed:
            self._turns.popleft()()

    @property
    def busy(self) -> bool:
        """Whether a long task runs."""
        return self.job is not None

    def refused(self) -> bool:
        """Say so, and return True, where a long task runs already."""
        if self.job is None:
            return False
        self.say(
            f"{self.job.title} is still running: wait for it or press Cancel.",
            "warning",
        )
        return True

    def start(
        self,
        title: str,
        task: Callable[[Job], Any],
        *,
        returned: Callable[[Any], object],
        previewed: Callable[[Any], None] | None = None,
        ended: Callable[[], None] | None = None,
        undo: Callable[[], None] | None = None,
        kept: str = "",
    ) -> Job | None:
        """Start a long task; None, and a word about it, if one runs already.

        Parameters
        ----------
        title
            What the status line shows.
        task
            Runs in the job's thread.
        returned, previewed
            Called in the GUI thread.
        ended
            Called whatever the end was, before the status line says so.
        undo
            Called after `ended` where the task failed or was cancelled.
        kept
            What an error message says about what was kept.
        """
        if self.refused():
            return None

        job = self.job = Job(partial(self._run_alone, task), title)
        lost: list[Exception] = []

        def finish(then: Callable[[], object], *, failed: bool = True) -> None:
            if self.closed:
                return
            self.job = None
            self.closing_waits_for("")
            for call in (ended, undo if failed else None):
                if call is not None:
                    call()
            then()
            self.job_changed.emit()

        def errored(error: Exception) -> None:
            finish(lambda: self.complain(error, kept))

        def aborted() -> None:
            finish(lambda: self.say("Cancelled. Everything is as it was before."))

        def done(value: Any) -> None:
            finish(lambda: self.guarded(returned, value), failed=False)
            if lost and not self.closed:  # else a later word would cover it
                self.complain(lost[0])

        def arrived(value: Any) -> None:
            if not self.closed and previewed is not None:
                error = self.guarded(previewed, value)
                if error is not None:
                    lost.append(error)
            # After what was changed has been drawn, else previews would pile up.
            QTimer.singleShot(0, job.preview_shown)

        job.progressed.connect(self._progressed)
        job.described.connect(self._described)
        job.previewed.connect(arrived)
        job.errored.connect(errored)
        job.aborted.connect(aborted)
        job.returned.connect(done)
        self.say(f"{title}…")
        self.job_changed.emit()
        job.start()
        return job

    def _run_alone(self, task: Callable[[Job], Any], job: Job) -> Any:
        """Run a task once what gives way to it has, as that uses the models, too."""
        with self.giving_way:
            pass
        return task(job)

    def cancel(self) -> None:
        """Ask the running task to stop."""
        if self.job is not None:
            self.job.quit()
            self.say(f"Cancelling: {self.job.title.lower()}…")

    def close(self) -> None:
        """Stop what runs."""
        self.closed = True
        self._timer.stop()
        if self.job is not None:
            self.job.quit()
            if self.job.holds:
                _show_wait(self.job)

    def _progressed(self, done: int, total: int) -> None:
        self._progress = (done, total)
        if not self._timer.isActive():
            self._timer.start()
            self._show_progress()

    def _show_progress(self) -> None:
        progress, self._progress = self._progress, None
        if progress is None or self.closed or self.job is None:
            self._timer.stop()
        else:
            self.progressed.emit(*progress)

    def _described(self, text: str, holds: bool) -> None:
        if self.closed or self.job is None:
            return
        self.closing_waits_for(text if holds else "")
        if not self.job.cancelled:
            self.say(f"{text}…")
            self.progressed.emit(0, 0)

    def closing_waits_for(self, text: str) -> None:
        """Tell the window what closing would wait for; nothing where empty."""

    def guarded(self, call: Callable[[Any], object], value: Any) -> Exception | None:
        """Call a slot; an error in it is shown, and returned, not lost in Qt."""
        try:
            call(value)
        except Exception as error:  # noqa: BLE001 (shown to the person)
            self.complain(error)
            return error
        return None


def as_sentence(error: Exception | str) -> str:
    """Return what an error says, as a sentence."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = ": ".join(filter(None, (error.strerror, str(error.filename or ""))))
    if text.split()[0].isalpha():  # a file's name stays as it is
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else f"{text}."


def short(text: str, length: int = 40) -> str:
    """Return a text that is cut to a length."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _show_wait(job: Job) -> None:
    """Say what closing waits for, in a small window that goes when it is over.

    As long as it is there, Qt does not end the program: the program ends with it.
    """
    notice = QLabel(f"Closing waits for this, which cannot be stopped: {job.holds}…")
    notice.setObjectName("closing_notice")
    notice.setWindowTitle("napari-ovam")
    notice.setMargin(16)
    notice.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)

    def over(*_: Any) -> None:  # holds the notice as well
        notice.close()

    job.finished.connect(over)
    notice.show()
