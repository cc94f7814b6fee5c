"""Reads samples in a thread of its own: what is wanted now first, then ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Callable


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
