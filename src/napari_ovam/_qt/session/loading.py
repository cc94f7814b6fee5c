"""Reads samples in a thread of its own: what is wanted now first, then ahead."""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Callable


# So many results, and what was freed meanwhile is given back to the system.
_TRIM_AFTER = 20


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
