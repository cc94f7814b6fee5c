"""Locks on folders: one program at a time works in one, or writes to it.

Where a disk has no locks (some network drives and sticks), a file that is there while
the lock is held stands in for one; what a killed program left of it on this computer
is seen through.
"""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = "in-use"
WRITING = ".writing"
_HELD = ".held"  # added to a lock's name where the disk has no locks
_NO_LOCKS = {
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOTTY,
}
_PATIENCE = 30.0  # seconds to wait for another program's write


class FolderLock(AbstractContextManager["FolderLock"]):
    """A lock that is held until `close`, or the end of the process.

    Attributes
    ----------
    note
        A sentence where the disk has no locks; else empty.
    """

    def __init__(self, lock: BaseFileLock, path: Path) -> None:
        self._lock, self._path = lock, path
        self._stat = path.stat()
        self.note = (
            f"The disk of {path.parent} has no locks (as some network drives): a file "
            f"{path.name} says that it is in use."
            if isinstance(lock, SoftFileLock)
            else ""
        )

    def __exit__(self, *_: object) -> None:
        self.close()

    def in_place(self) -> bool:
        """Whether the file of the lock is still the one that was locked."""
        try:
            return os.path.samestat(self._path.stat(), self._stat)
        except OSError:
            return False

    def close(self) -> None:
        """Let the folder go."""
        with suppress(OSError):  # its disk may be away
            self._lock.release(force=True)


def lock_folder(path: Path) -> FolderLock | None:
    """Hold a folder; None if another program, or another part of this one, does."""
    return _acquire(path / LOCK, 0)


def describe_holder(path: Path) -> str:
    """Return who holds a folder, in brackets, where the disk has no locks; else ""."""
    held = path / f"{LOCK}{_HELD}"
    try:
        process, host, *_ = held.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return (
        f" (process {process} on {host}; if that does not run any more, delete {held})"
    )


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Wait until no other program writes to a folder, and hold that off.

    It raises `OSError` if the folder cannot be written, or the other does not end.
    """
    lock = _acquire(path / WRITING, _PATIENCE)
    if lock is None:
        raise OSError(
            f"another program has been writing to {path} for {_PATIENCE:.0f} seconds: "
            "end it and try again"
        )
    with lock:
        yield


def _acquire(path: Path, timeout: float) -> FolderLock | None:
    there = _identity(path.parent)
    if there is None:
        raise FileNotFoundError(f"there is no folder {path.parent}")
    lock: BaseFileLock = FileLock(
        path,
        timeout=timeout,
        thread_local=False,
        poll_interval=0.01,
        fallback_to_soft=False,
    )
    try:
        try:
            lock.acquire()
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
                raise
            path = path.with_name(path.name + _HELD)
            lock = SoftFileLock(
                path, timeout=timeout, thread_local=False, poll_interval=0.01
            )
            lock.acquire()
    except Timeout:
        return None
    if _identity(path.parent) != there:  # it went away, and filelock made it anew
        lock.release()
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
        raise FileNotFoundError(f"there is no folder {path.parent}")
    return FolderLock(lock, path)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from one that takes its place; None without one."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
