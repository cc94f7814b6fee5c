"""A project folder that a window holds open."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from napari_ovam.base.folder_lock import FolderLock, describe_holder, lock_folder
from napari_ovam.project import Project, ProjectError
from napari_ovam.project.index import BACKUP, INDEX

from .reading import Recovered, read_tokens

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(eq=False)
class Opened:
    """A project that this window has open.

    Attributes
    ----------
    lock
        Held as long as it is; None where nothing can be written.
    keys
        Of the samples, by their names in the project.
    found
        Classes, tokens and notes.
    """

    project: Project
    lock: FolderLock | None
    found: Recovered
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mark = uuid4().hex
        for sample in self.project.samples:
            self.keys[sample.name] = f"{mark}/{sample.name}"

    @property
    def path(self) -> Path:
        """The folder."""
        return self.project.path

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written to it."""
        return self.lock is None


def is_project(path: Path) -> bool:
    """Whether a folder, or the index in it, is a project."""
    folder = path.parent if path.name == INDEX else path
    return (folder / INDEX).is_file() or (folder / BACKUP).is_file()


def open_project(path: Path) -> Opened:
    """Hold and read a project; in a job's thread."""
    folder = path.parent if path.name == INDEX else path
    if not is_project(folder):
        raise ProjectError(f"{folder} is no project: there is no {INDEX} in it")
    lock: FolderLock | None = None
    with suppress(OSError):  # where nothing can be written, it is opened to be read
        lock = lock_folder(folder)
        if lock is None:
            raise ProjectError(
                f"{folder} is open in another window{describe_holder(folder)}: close "
                "it there first"
            )
    try:
        project = Project.open(folder)
        tokens, wrong = read_tokens(project)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    notes = [*project.notes, *wrong, *([lock.note] if lock and lock.note else [])]
    found = Recovered(folder, list(project.classes), tokens, [], notes)
    return Opened(project, lock, found)
