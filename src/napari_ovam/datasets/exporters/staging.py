"""Where an export is written before it takes its place: one at a time for a folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from napari_ovam.base.folder_lock import LOCK, FolderLock, lock_folder

STAGING = ".napari-ovam-export-"
_TRIES = 20


class FolderExistsError(FileExistsError, ValueError):
    """The output folder holds files, and overwriting was not asked for."""


class FolderInUseError(ValueError):
    """Another export is writing to the output folder."""


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Raise FolderExistsError where `out` is a file, or holds files that count."""
    if out.exists() and not out.is_dir():
        msg = f"{str(out)!r} is a file; choose a folder"
        raise FolderExistsError(msg)
    if overwrite or not out.is_dir():
        return
    # What a killed export left behind does not count.
    if any(not path.name.startswith(STAGING) for path in out.iterdir()):
        msg = f"{str(out)!r} is not empty; choose another folder or allow overwriting"
        raise FolderExistsError(msg)


@contextmanager
def staging_for(out: Path) -> Iterator[Path]:
    """Give an empty folder on the disk of `out`, which nobody else gets meanwhile.

    It is deleted at the end; what a killed export left in it, at the start.

    Raises
    ------
    FolderInUseError
        If another export has it.
    OSError
        If it cannot be made.
    """
    staging, lock = _lock(out)
    try:
        _clear(staging)
        yield staging
    finally:
        _clear(staging)
        _release(staging, lock)


def _lock(out: Path) -> tuple[Path, FolderLock]:
    for _ in range(_TRIES):
        existed = out.is_dir()
        if existed:
            staging = out / STAGING
        else:
            # Names may be as long as a system allows: the staging folder's is short.
            mark = sha256(out.name.encode(errors="replace")).hexdigest()[:16]
            staging = out.parent / f"{STAGING}{mark}"
        try:
            staging.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(staging)
        except (FileExistsError, FileNotFoundError):
            if staging.is_file():
                raise
            continue  # another export deleted it just now
        if lock is None:
            break
        # Nor may the lock have been deleted, or `out` have been made, meanwhile.
        if lock.in_place() and out.is_dir() == existed:
            return staging, lock
        _release(staging, lock)
    msg = (
        f"another export is writing to {str(out)!r} now; wait for it, or choose "
        "another folder"
    )
    raise FolderInUseError(msg)


def _release(staging: Path, lock: FolderLock) -> None:
    """Delete a staging folder and its lock; a folder that holds files stays."""
    mine = lock.in_place()
    if mine:
        with suppress(OSError):  # Windows keeps a file that is open
            (staging / LOCK).unlink()
    lock.close()
    if mine:
        with suppress(OSError):
            staging.rmdir()


def replace_folder(target: Path, new: Path, old: Path) -> None:
    """Move `new` to `target`; put what was there back where that fails."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def _clear(staging: Path) -> None:
    for path in staging.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path, ignore_errors=True)
