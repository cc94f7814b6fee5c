"""What a project knows of its samples and classes, and keeps in its index."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

from napari_ovam.base.names import check_name
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.datasets.classes import ClassTable
from napari_ovam.project.classes import absent_after, rewrite_labels
from napari_ovam.project.files import ProjectFiles, now, program_version
from napari_ovam.project.index import (
    BACKUP,
    INDEX,
    ProjectError,
    Sample,
    Status,
    read_index,
    write_index,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike


class ProjectStore:
    """Samples and classes of a project folder, without their pixels.

    Attributes
    ----------
    path
        The folder.
    classes
        The class table. `save` writes its changes.
    files
        Where its files are.
    notes
        What opening found and mended, in sentences for a person.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = ProjectFiles(path)
        self.classes = ClassTable()
        self.notes: list[str] = []
        self._samples: dict[str, Sample] = {}
        self._reserved: set[str] = set()
        self._coming: dict[str, Sample] = {}  # their images are not written yet
        self._pending = False  # labels are to be rewritten for removed classes
        self._lock = threading.RLock()  # held while files are written
        self._memory = (
            threading.RLock()
        )  # never held for long: the GUI asks and changes
        self._there = False  # whether the folder was ever written or read

    @classmethod
    def create(cls, path: str | PathLike[str]) -> Self:
        """Make a project in a new or empty folder.

        Raises
        ------
        ProjectError
            If the folder holds something, or is a file.
        OSError
            If it cannot be written.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ProjectError(f"{path} is a file: choose a folder for the project")
        if path.is_dir() and any(path.iterdir()):
            raise ProjectError(
                f"{path} is not empty: open it if it is a project, or choose another "
                "folder"
            )
        project = cls(path)
        project.save()
        return project

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Open a project folder, or the `project.json` in it.

        A damaged `project.json` is replaced by its last good copy, and images that it
        does not know are taken in; `notes` says so.

        Raises
        ------
        ProjectError
            If it is no project, cannot be recovered, or is of a newer version.
        """
        path = Path(path)
        project = cls(path.parent if path.name == INDEX else path)
        found = read_index(project.path)
        project.classes, project._samples = found.classes, found.samples
        project._there = True
        project._pending = found.pending
        try:
            if found.note:
                project.notes.append(found.note)
                project.save()
            if found.pending:
                project._rewrite(no_progress)
        except OSError as error:  # such as on a disk that can only be read
            project.notes.append(f"It could not be written anew: {error}.")
        project._look_around()
        return project

    # -- samples -----------------------------------------------------------------

    @property
    def samples(self) -> list[Sample]:
        """The samples in the order in which they came."""
        with self._memory:
            return [*self._samples.values(), *self._coming.values()]

    @property
    def lock(self) -> threading.RLock:
        """Held while files are written: hold it to look and write in one go."""
        return self._lock

    def sample(self, name: str) -> Sample:
        """Return a sample.

        Raises
        ------
        ProjectError
            If there is none of that name.
        """
        with self._memory:
            found = self._samples.get(name) or self._coming.get(name)
        if found is None:
            raise ProjectError(f"{self.path} has no image {name!r}")
        return found

    def announce(
        self, wanted: str, provenance: Mapping[str, Any] | None = None
    ) -> Sample:
        """Add a sample whose image `add_sample` writes later; return it.

        Its name is like `wanted`, and no other sample has it or gets it. Until its
        image is written it is known to this object alone.
        """
        name = self.reserve(wanted)
        sample = Sample(name, provenance=provenance or {})
        with self._memory:
            self._coming[name] = sample
        return sample

    def reserve(self, wanted: str) -> str:
        """Return a file name like `wanted` that no sample has or gets."""
        plain = plain_name(wanted)
        with self._memory:
            taken = {name.casefold() for name in (*self._samples, *self._reserved)}
            name, number = plain, 1
            while name.casefold() in taken or self.files.image(name).exists():
                number += 1
                name = f"{plain}-{number}"
            self._reserved.add(name)
        return name

    def change_sample(
        self,
        name: str,
        *,
        status: Status | None = None,
        absent: Iterable[int] | None = None,
        provenance: Mapping[str, Any] | None = None,
        write: bool = True,
    ) -> Sample:
        """Set the status or absent classes of a sample, or add to its provenance.

        Without `write` it returns at once, and `save` writes it.
        """
        if status is not None and status not in get_args(Status):
            raise ProjectError(
                f"{name}: the status {status!r} is none of {get_args(Status)}"
            )
        with self._memory:
            old = self.sample(name)
            added = dict(provenance or {})
            if status is not None and status != old.status:
                became = {"status": status, "at": now(), "version": program_version()}
                added["history"] = [*old.provenance.get("history", ()), became]
            new = replace(
                old,
                status=status or old.status,
                absent=old.absent if absent is None else tuple(sorted(set(absent))),
                provenance={**old.provenance, **added},
            )
            (self._samples if name in self._samples else self._coming)[name] = new
        if write and new != old:
            self.save()
        return new

    # -- classes -----------------------------------------------------------------

    def merge_classes(
        self, number: int, into: int, *, progress: Progress = no_progress
    ) -> list[str]:
        """Make a class part of another: its pixels get the other's id in all labels.

        Its own id is not given again. A run that is cancelled or killed is ended when
        the project is opened again; until then labels are read as if it was.

        Parameters
        ----------
        number, into
            Ids of classes.
        progress
            Called with (samples done, all samples); may raise `Cancelled`.

        Returns
        -------
        list of str
            The samples whose labels changed.

        Raises
        ------
        ClassError
            If there is no such class, or both are the same.
        OSError
            If a file cannot be written.
        """
        return self._remove_classes([number], into, progress)

    def delete_class(
        self,
        number: int,
        *,
        keep_pixels: bool = False,
        progress: Progress = no_progress,
    ) -> list[str]:
        """Remove a class: its pixels become background in all labels.

        Parameters
        ----------
        number
            Its id, which is not given again.
        keep_pixels
            Leave its pixels as they are: ids without a class, which exports refuse.
        progress
            As for `merge_classes`, with which it has all else in common.
        """
        return self._remove_classes([number], None if keep_pixels else 0, progress)

    def delete_classes(
        self, numbers: Iterable[int], *, progress: Progress = no_progress
    ) -> list[str]:
        """Remove several classes at once; all else as for `delete_class`."""
        return self._remove_classes(list(numbers), 0, progress)

    def _remove_classes(
        self, numbers: Iterable[int], into: int | None, progress: Progress
    ) -> list[str]:
        with self._lock:
            before = self.classes, dict(self._samples), self._pending
            self.classes = ClassTable.of(
                self.classes, self.classes.last_id, self.classes.retired
            )
            try:
                for number in numbers:
                    if into:
                        self.classes.merge(number, into)
                    else:
                        self.classes.remove(number, into)
                    for s in self.samples:
                        gone = absent_after(s.absent, number, into or 0)
                        self.change_sample(s.name, absent=gone, write=False)
                self._pending = self._pending or into is not None
                self.save()
            except BaseException:
                self.classes, self._samples, self._pending = before
                raise
        return self._rewrite(progress)

    def _rewrite(self, progress: Progress) -> list[str]:
        if not self._pending:
            return []
        changed = rewrite_labels(self, progress)
        self._pending = False
        self.save()
        return changed

    # -- the index ---------------------------------------------------------------

    def save(self) -> None:
        """Write `project.json` and its copy."""
        with self._lock:
            self.make_folders()
            program = f"napari-ovam {program_version()}"
            with self._memory:
                written = list(self._samples.values())
            write_index(
                self.path, self.classes, written, program, pending=self._pending
            )
            self._there = True

    def move(self, folder: Path) -> None:
        """Go on in another folder, into which everything was copied; see `lock`."""
        self.path, self.files = folder, ProjectFiles(folder)

    def make_folders(self) -> None:
        """Make the folder and those in it, where they are missing.

        Raises
        ------
        OSError
            If they cannot be made; or if the project was there and is not any more,
            such as on a disk that was taken away: then no other one is begun there.
        """
        if self._there and not any(
            (self.path / name).is_file() for name in (INDEX, BACKUP)
        ):
            raise FileNotFoundError(
                f"{self.path} is gone: connect its disk again or put the folder back"
            )
        self.files.make_folders()

    def _look_around(self) -> None:
        """Notice images that are gone, and take in those that nobody knows."""
        found = {path.stem for path in self.path.joinpath("images").glob("*.png")}
        if gone := [name for name in self._samples if name not in found]:
            self.notes.append(
                f"{len(gone)} images are missing from {self.path / 'images'}: "
                f"{', '.join(gone[:3])}{' …' if len(gone) > 3 else ''}"
            )
        new = sorted(name for name in found - set(self._samples) if _is_name(name))
        for name in new:
            labelled = self.files.labels(name).is_file()
            self._samples[name] = Sample(name, "edited" if labelled else "new")
        if new:
            self.notes.append(f"{len(new)} images were found and added.")


def plain_name(wanted: str) -> str:
    """Return a short file name, without an ending, for any text."""
    plain = re.sub(r"[^\w-]+", "-", wanted).strip("-_")
    plain = plain.encode(errors="ignore")[:80].decode(errors="ignore") or "image"
    return plain if _is_name(plain) else f"{plain}-image"  # such as "aux"


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return False
    return True
