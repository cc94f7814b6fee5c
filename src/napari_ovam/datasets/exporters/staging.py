"""Where an export is written before it takes its place: one at a time for a folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from napari_ovam.base.folder_lock import LOCK, FolderLock, lock_folder
from napari_ovam.base.words import shorten

from .report import INDEX, is_as_listed, listed_files

STAGING = ".napari-ovam-export-"
OLD = "old-"
"""In front of the name of a folder that is being replaced."""
_TRIES = 20


class FolderExistsError(FileExistsError, ValueError):
    """The output folder holds files, and overwriting was not asked for."""


class FolderInUseError(ValueError):
    """Another export is writing to the output folder."""


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Raise FolderExistsError where `out` is a file, or holds files that count."""
    if out.exists() and not out.is_dir():
        raise FolderExistsError(f"{str(out)!r} is a file; choose a folder")
    if overwrite or not out.is_dir():
        return
    # What a killed export left behind does not count.
    if any(not path.name.startswith(STAGING) for path in out.iterdir()):
        raise FolderExistsError(
            f"{str(out)!r} is not empty; choose another folder or allow overwriting"
        )


def check_ours(folder: Path) -> None:
    """Raise FolderExistsError where no export made a folder, or it changed since.

    To be called by who has the lock: another export may be at it.
    """
    if not folder.is_symlink() and not folder.exists():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise FolderExistsError(
            f"{str(folder)!r} is no folder of an export; it stays: choose another"
        )
    listed = listed_files(folder)
    if listed is None and any(folder.iterdir()):
        raise FolderExistsError(
            f"{str(folder)!r} was not made by an export: it holds files and no "
            f"{INDEX}. It stays as it is: choose another folder, or move it away"
        )
    changed = [
        place
        for place, about in (listed or {}).items()
        if (path := folder / place).is_file() and not is_as_listed(path, about)
    ]
    if changed:
        raise FolderExistsError(
            f"{shorten(changed, 3)} in {str(folder)!r} changed since the "
            "export that wrote it. It stays as it is: choose another folder, or move "
            "it away"
        )


@contextmanager
def staging_for(out: Path) -> Iterator[Path]:
    """Give an empty folder on the disk of `out`, which nobody else gets meanwhile.

    It is deleted at the end; what a killed export left in it, at the start.

    It raises `FolderInUseError` if another export has it.
    """
    staging, lock = _lock(out)
    try:
        _clear(staging, out)
        yield staging
    finally:
        _clear(staging, out)
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
    raise FolderInUseError(
        f"another export is writing to {str(out)!r} now; wait for it, or choose "
        "another folder"
    )


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
    """Move `new` to `target`, with what no export wrote there; undo where that fails.

    It raises `FolderExistsError` if something that has to stay is where a new file
    would be.
    """
    if target.exists():
        _keep_others(target, new)
        target.rename(old)
    new.rename(target)


def _keep_others(target: Path, new: Path) -> None:
    """Give a new folder all files of the old one that its export did not write."""
    listed = {INDEX, *(listed_files(target) or ())}
    names = {
        path.relative_to(new).as_posix().casefold()
        for path in new.rglob("*")
        if not path.is_dir()
    }
    for path in sorted(target.rglob("*")):
        place = path.relative_to(target).as_posix()
        if path.is_symlink() or path.is_file():
            if place in listed and not path.is_symlink():
                continue
            if place.casefold() in names:
                raise FolderExistsError(
                    f"{str(path)!r} was not written by an export, and a new file has "
                    "its name. It stays as it is: move it away, or rename the image"
                )
            (new / place).parent.mkdir(parents=True, exist_ok=True)
            # As links at first, so that a kill at any moment loses nothing.
            try:
                os.link(path, new / place, follow_symlinks=False)
            except OSError:  # such as on a disk without links
                shutil.copy2(path, new / place, follow_symlinks=False)
        elif not any(path.iterdir()):
            (new / place).mkdir(parents=True, exist_ok=True)


def _clear(staging: Path, out: Path) -> None:
    """Delete what is in a staging folder; put back what an export had not replaced."""
    for path in staging.iterdir():
        if path.name.startswith(OLD):
            target = out / path.name.removeprefix(OLD)
            if not target.exists():
                with suppress(OSError):
                    path.rename(target)
                continue  # it is the only one, even where that failed
        if path.name != LOCK:
            shutil.rmtree(path, ignore_errors=True)
