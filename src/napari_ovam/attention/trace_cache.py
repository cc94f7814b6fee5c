"""Files of traces that can be made again, kept while there is room."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ovam.attention.trace_files import (
    TraceFileError,
    load_trace,
    save_trace,
    trace_tensors,
)
from napari_ovam.base.atomic import replacing
from napari_ovam.base.user_folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ovam.attention.trace import Trace

DEFAULT_LIMIT = 5_000_000_000  # bytes
_LIMIT = "limit.json"
_STALE = 3600  # seconds after which what a killed process left is taken away


@dataclass(frozen=True)
class CacheUsage:
    """What a cache holds: how many traces, of how many bytes, and how many it may."""

    traces: int
    size: int
    limit: int


class TraceCache:
    """Traces in a folder, the ones used longest ago given up first.

    Several processes may use one folder. Nothing that a person made is in it.

    Parameters
    ----------
    folder
        By default `cache_folder()`.
    limit
        Bytes; by default what `set_limit` wrote, or 5 GB.
    """

    def __init__(
        self, folder: str | Path | None = None, limit: int | None = None
    ) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder()
        self._limit = limit

    @property
    def limit(self) -> int:
        """Bytes that the cache may take."""
        if self._limit is not None:
            return self._limit
        try:
            stored = json.loads((self.folder / _LIMIT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return DEFAULT_LIMIT
        return stored if isinstance(stored, int) and stored >= 0 else DEFAULT_LIMIT

    def set_limit(self, limit: int) -> None:
        """Set the limit for this and later sessions; what is above it goes.

        It raises `ValueError` if it is less than 0, which keeps nothing.
        """
        if limit < 0:
            raise ValueError(f"the limit is {limit}: give bytes, 0 to keep nothing")
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / _LIMIT) as temporary:
            temporary.write_text(json.dumps(limit), encoding="utf-8")
        self._limit = None
        self._trim()

    def usage(self) -> CacheUsage:
        """Return what it holds now."""
        sizes = [size for _, size, _ in self._entries()]
        return CacheUsage(len(sizes), sum(sizes), self.limit)

    def clear(self) -> int:
        """Delete all traces in it; return the bytes that became free.

        A trace that is in use is read to its end, except on Windows, where it stays.
        """
        return sum(size for _, size, path in self._entries() if _delete(path))

    def get(self, key: str) -> Trace | None:
        """Return a trace, read layer by layer when used; None if it is not there.

        A file that is damaged is deleted.
        """
        path = self._path(key)
        try:
            trace = load_trace(path)
        except TraceFileError:
            _delete(path)
            return None
        except OSError:
            return None
        with suppress(OSError):  # such as on a disk that can only be read
            os.utime(path)
        return trace

    def put(self, key: str, trace: Trace) -> Path | None:
        """Keep a trace, and give up others for it; None if it is above the limit."""
        if trace_bytes(trace) > self.limit:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        path = save_trace(trace, self._path(key))
        self._trim(spare=path)
        return path

    def get_or_make(self, key: str, make: Callable[[], Trace]) -> Trace:
        """Return a trace, made and kept if it is not there.

        What is kept is read again when it is used, which leaves the memory free. What
        cannot be written is not kept, and the trace is returned all the same.
        """
        found = self.get(key)
        if found is not None:
            return found
        made = make()
        with suppress(OSError):
            self.put(key, made)
        return self.get(key) or made

    def _path(self, key: str) -> Path:
        if not key.isalnum():
            raise ValueError(f"{key!r} is no key: use letters and digits")
        return self.folder / f"{key}.safetensors"

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Return (last used, size, path) of all traces, the oldest first."""
        found = []
        for path in self.folder.glob("*.safetensors"):
            with suppress(OSError):  # another process took it away
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        return sorted(found)

    def _trim(self, spare: Path | None = None) -> None:
        entries = self._entries()
        above = sum(size for _, size, _ in entries) - self.limit
        for _, size, path in entries:
            if above <= 0:
                break
            if path != spare and _delete(path):
                above -= size
        for path in self.folder.glob(".*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()


def trace_bytes(trace: Trace) -> int:
    """Return the bytes of a trace's tensors, in memory or on the disk."""
    return sum(tensor.nbytes for tensor in trace_tensors(trace).values())


def _delete(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # gone already, or in use (Windows)
        return not path.exists()
    return True
