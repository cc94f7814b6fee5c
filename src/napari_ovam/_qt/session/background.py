"""Small tasks beside the long one that a person started: some give way, some read."""

from __future__ import annotations

import ctypes
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from .worker import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from .jobs import JobRunner

    Work = tuple[Callable[[Job], Any], Callable[[Any], object]]
    Prepare = Callable[[], Work | None]

_WAIT = 0.01  # seconds between looks whether what goes first is done
# So many results, and what was freed meanwhile is given back to the system.
_TRIM_AFTER = 20


class Background:
    """Runs tasks one at a time, beside the long task that a person started.

    Of the requests for one thing that wait, the newest wins.

    Parameters
    ----------
    runner
        Shows errors; nothing is handed over once it is closed.
    title
        Of the jobs.
    failed
        Called with what a task raised, in place of showing it.

    Attributes
    ----------
    job
        What runs now.
    """

    def __init__(
        self,
        runner: JobRunner,
        title: str,
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        self.job: Job | None = None
        self._runner, self._title = runner, title
        self._failed = failed or runner.complain
        self._waiting: dict[object, Prepare] = {}

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return self.job is not None or bool(self._waiting)

    def ask(self, key: object, prepare: Prepare) -> None:
        """Do something as soon as what was asked for before is done.

        Parameters
        ----------
        key
            What is asked for: an earlier request for it that still waits is dropped.
        prepare
            Called in the GUI thread when its turn comes. Returns the task, and what
            is called in the GUI thread with its result; None where it is not wanted
            any more.
        """
        self._waiting[key] = prepare
        self._next()

    def close(self) -> None:
        """Drop what waits, and stop what runs."""
        self._waiting.clear()
        if self.job is not None:
            self.job.quit()

    def _may_run(self) -> bool:
        return not self._runner.closed

    def _next(self) -> None:
        while self.job is None and self._waiting and self._may_run():
            key = next(iter(self._waiting))
            prepare = self._waiting.pop(key)
            work = prepare()
            if work is not None:
                self._start(*work, partial(self._aborted, key, prepare))

    def _start(
        self,
        task: Callable[[Job], Any],
        done: Callable[[Any], object],
        aborted: Callable[[], None],
    ) -> None:
        def end(then: Callable[[Any], object], value: Any = None) -> None:
            self.job = None
            self._runner.quick.discard(job)
            if not self._runner.closed:
                self._runner.guarded(then, value)
                self._next()

        job = self.job = Job(task, self._title)
        job.returned.connect(lambda value: end(done, value))
        job.errored.connect(lambda error: end(self._failed, error))
        job.aborted.connect(lambda: end(lambda _: aborted()))
        self._begin(job)
        job.start()

    def _begin(self, job: Job) -> None:
        self._runner.quick.add(job)

    def _aborted(self, key: object, prepare: Prepare) -> None:
        """Forget what was stopped: it is not wanted any more."""


class IdleBackground(Background):
    """Runs what nobody waits for, only while nothing long runs.

    When a long task starts, what runs stops, and begins anew afterwards. Small tasks
    go first, where a task calls `give_way` often.
    """

    def __init__(
        self,
        runner: JobRunner,
        title: str,
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        super().__init__(runner, title, failed)
        self._gave_way = False
        runner.job_changed.connect(self._job_changed)

    def give_way(self, job: Job) -> None:
        """Wait while small tasks run; raise `Cancelled` where a long one starts."""
        job.check()
        while self._runner.quick:
            time.sleep(_WAIT)
            job.check()

    def close(self) -> None:
        """Drop what waits, and stop what runs, for good."""
        super().close()
        self._gave_way = False

    def _may_run(self) -> bool:
        return super()._may_run() and not self._runner.busy

    def _job_changed(self) -> None:
        if self._runner.busy and self.job is not None:
            self._gave_way = True
            self.job.quit()
        self._next()

    def _start(
        self,
        task: Callable[[Job], Any],
        done: Callable[[Any], object],
        aborted: Callable[[], None],
    ) -> None:
        self._gave_way = False

        def run(job: Job) -> Any:
            with self._runner.giving_way:
                job.check()
                return task(job)

        super()._start(run, done, aborted)

    def _begin(self, job: Job) -> None:
        """Nothing gives way to it."""

    def _aborted(self, key: object, prepare: Prepare) -> None:
        if self._gave_way:
            self._waiting.setdefault(key, prepare)


class Loader(QObject):
    """Calls functions in the order in which their results are wanted.

    Attributes
    ----------
    loaded
        Emitted as (key, what the function returned or raised), received in the GUI
        thread.
    """

    loaded = Signal(str, object)

    def __init__(self, threads: int = 1) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(threads, "napari-ovam loader")
        self._waiting: dict[str, Future[None]] = {}
        self._closed = False
        self._count = 0

    def load(self, key: str, read: Callable[[], Any], *, now: bool = False) -> None:
        """Call `read` in the thread; `now` drops whatever else waits."""
        if now:
            self.clear()
        self._waiting = {k: f for k, f in self._waiting.items() if not f.done()}
        if self._closed or key in self._waiting:
            return
        self._waiting[key] = self._pool.submit(self._read, key, read)

    def clear(self) -> None:
        """Drop what waits; what is being read now is still handed over."""
        for key, future in list(self._waiting.items()):
            if future.cancel() or future.done():
                del self._waiting[key]

    def close(self) -> None:
        """Drop what waits, and hand nothing over any more."""
        self._closed = True
        self.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, key: str, read: Callable[[], Any]) -> None:
        if self._closed:
            return
        try:
            found = read()
        except Exception as error:  # noqa: BLE001 (handed over)
            found = error
        if not self._closed:
            self.loaded.emit(key, found)
        self._count += 1
        if self._count % _TRIM_AFTER == 0:
            _trim()


def _trim() -> None:
    """Give freed memory back to the system.

    What one thread makes and another frees, as images here, glibc keeps in pieces: a
    walk through 1,000 images held 400 MB to 1 GB that nothing used.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)
