"""Scratch projects: where work is safe before anyone chose a folder.

Each session has one of its own in a folder of the user's, and holds a lock on it while
it runs, which the system releases however the process ends. Those that hold work, are
not locked and were not marked as done are offered at the next start.
"""

from __future__ import annotations

import shutil
import time
import uuid
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from napari_ovam.base.folder_lock import LOCK, WRITING, FolderLock, lock_folder
from napari_ovam.base.user_folders import scratch_folder
from napari_ovam.project import Project, ProjectError

if TYPE_CHECKING:
    from pathlib import Path

_DONE = "done"


class Scratch:
    """A scratch project of this process.

    Nothing is written before `start`, which may take a moment.

    Parameters
    ----------
    project, held
        One that is on the disk and locked already; by default a new one.

    Attributes
    ----------
    project
        The project.
    """

    def __init__(
        self, project: Project | None = None, held: FolderLock | None = None
    ) -> None:
        if project is None:
            stamp = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
            project = Project(scratch_folder() / f"{stamp}-{uuid.uuid4().hex[:6]}")
        self.project = project
        self._held = held

    def start(self) -> None:
        """Make the folder and hold it."""
        self.project.files.make_folders(anew=True)
        self._held = self._held or lock_folder(self.path)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.project.path

    def close(self) -> None:
        """Let it go; it is offered at the next start if it holds work."""
        if self._held is not None:
            self._held.close()
        if not self.project.samples:
            shutil.rmtree(self.path, ignore_errors=True)


def unfinished() -> list[Path]:
    """Return scratch projects with work in them that nobody has open, newest first."""
    folder = scratch_folder()
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir()]
    return [
        path
        for path in sorted(found, key=lambda path: path.name, reverse=True)
        if not (path / _DONE).exists() and count_images(path) and not _in_use(path)
    ]


def count_images(path: Path) -> int:
    """Return how many images a project has: in it, or elsewhere and labelled."""
    folders = [path / name for name in ("images", "labels")]
    return max(sum(1 for _ in folder.glob("*.png")) for folder in folders)


def mark_done(path: Path) -> None:
    """Do not offer a scratch project again; its files stay where they are."""
    (path / _DONE).touch()


def remove(path: Path) -> None:
    """Delete a scratch project and everything in it.

    It raises `ProjectError` if it is no scratch project, or a running program works in
    it.
    """
    if not is_scratch(path):
        raise ProjectError(f"{path} is not in {scratch_folder()}: delete it yourself")
    if path.is_dir() and _in_use(path):
        raise ProjectError(f"{path} is in use: close the window that works in it")
    mark_done(path)  # should deleting stop half-way, what is left is not offered
    shutil.rmtree(path)


def clean(days: float = 30) -> list[Path]:
    """Delete scratch projects that were marked as done long ago; return which.

    What cannot be deleted, or is in use, stays for another time.
    """
    folder, gone = scratch_folder(), []
    for mark in folder.glob(f"*/{_DONE}"):
        try:
            if time.time() - mark.stat().st_mtime > days * 86400:
                remove(mark.parent)
                gone.append(mark.parent)
        except (OSError, ProjectError):
            continue
    return gone


def is_scratch(path: Path) -> bool:
    """Whether a folder is that of a scratch project."""
    return path.resolve().parent == scratch_folder().resolve()


def copy_project(path: Path, folder: Path) -> None:
    """Copy a project into a new or empty folder, whole or not at all.

    It raises `ProjectError` if the folder holds something. An `Autosave` on the project
    should be flushed before.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProjectError(f"{folder} is not empty: choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    copy = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        shutil.copytree(
            path,
            copy,
            ignore=shutil.ignore_patterns(f"{LOCK}*", f"{WRITING}*", _DONE, ".*.tmp"),
        )
        if folder.is_dir():
            folder.rmdir()
        copy.rename(folder)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _in_use(path: Path) -> bool:
    with suppress(OSError):
        if (lock := lock_folder(path)) is not None:
            lock.close()
            return False
    return True
