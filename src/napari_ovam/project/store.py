"""What a project knows of its samples and classes, and keeps in its index.

Others may write to the folder at the same time: each write looks first at what is on
the disk, and brings both together or refuses.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from napari_ovam import __version__
from napari_ovam.base.folder_lock import write_lock
from napari_ovam.base.known_files import KnownFiles
from napari_ovam.base.names import check_name, safe_name
from napari_ovam.base.words import shorten
from napari_ovam.datasets.classes import ClassTable
from napari_ovam.project.by_hand import keep_copy, read_index
from napari_ovam.project.files import ProjectFiles, find_left_out, now
from napari_ovam.project.index import (
    BACKUP,
    INDEX,
    ConflictError,
    Index,
    NewerProjectError,
    ProjectError,
    Sample,
    Status,
    mark_of,
    write_index,
)
from napari_ovam.project.merging import merge_indices
from napari_ovam.project.references import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


class ProjectStore:
    """Samples and classes of a project folder, without their pixels."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = ProjectFiles(path)
        self.classes = ClassTable()
        self.notes: list[str] = []
        self._samples: dict[str, Sample] = {}
        self._reserved: set[str] = set()
        self._coming: dict[str, Sample] = {}  # their images are not written yet
        self._pending = False  # labels are to be rewritten for removed classes
        self._seen = KnownFiles()
        self._base: Index | None = None  # as last read or written; None before
        self._mark = ""  # of the index's file at that time
        self._lock = threading.RLock()  # held while files are written
        self._depth = 0  # of `writing` within `writing`
        self._memory = threading.RLock()  # never held for long: the GUI asks, changes

    # -- samples -----------------------------------------------------------------

    @property
    def samples(self) -> list[Sample]:
        """The samples in the order in which they came."""
        with self._memory:
            return [*self._samples.values(), *self._coming.values()]

    @property
    def unsaved(self) -> set[str]:
        """The names of samples of which the index on the disk says something else."""
        known = (self._base or Index()).samples
        return {s.name for s in self.samples if known.get(s.name) != s}

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

    def has_sample(self, name: str) -> bool:
        """Whether there is a sample of that name."""
        with self._memory:
            return name in self._samples or name in self._coming

    def add_samples(self, samples: Iterable[Sample]) -> None:
        """Add many samples at once, whose files are put into their places after this.

        In this order, as a file that no sample has would be taken in as a person's.

        It raises `ConflictError` if one is there already.
        """
        with self.writing():
            for sample in samples:
                if self.has_sample(sample.name):
                    raise ConflictError(f"{self.path} has an image {sample.name!r}")
                with self._memory:
                    self._samples[sample.name] = sample
            self.save()

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
        plain = safe_name(wanted)
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
        with self.writing() if write else nullcontext():
            new = self._change(name, status, absent, provenance or {})
            # What a save that failed left is not on the disk either.
            if write and (self._base or Index()).samples.get(name) != new:
                self.save()
        return new

    def _change(
        self,
        name: str,
        status: Status | None,
        absent: Iterable[int] | None,
        provenance: Mapping[str, Any],
    ) -> Sample:
        """Change a sample in memory; return it as it is."""
        with self._memory:
            old = self.sample(name)
            added = dict(provenance)
            if status is not None and status != old.status:
                became = {"status": status, "at": now(), "version": __version__}
                added["history"] = [*old.provenance.get("history", ()), became]
            new = replace(
                old,
                status=status or old.status,
                absent=old.absent if absent is None else tuple(sorted(set(absent))),
                provenance={**old.provenance, **added},
            )
            self._put(new)
        return new

    def _put(self, sample: Sample) -> None:
        with self._memory:
            known = sample.name in self._samples
            (self._samples if known else self._coming)[sample.name] = sample

    # -- the index ---------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off all other writers, with what they wrote before taken in.

        What is looked at and written inside goes together.

        Raises
        ------
        ConflictError
            If what another program wrote cannot be brought together with this.
        OSError
            If the folder is away or cannot be written.
        """
        with self._lock:
            if self._depth:
                yield
                return
            self._check_there()
            self.files.make_folders(anew=self._base is None)
            with write_lock(self.path):
                self._take_in()
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1

    def refresh(self) -> bool:
        """Take in what another program wrote to the index; return whether it did.

        What changed here and is not saved yet stays, as in `save`.
        """
        with self._lock:
            self._check_there()
            return self._take_in()

    def save(self) -> None:
        """Write `project.json` and its copy, with what others saved meanwhile.

        Raises
        ------
        ConflictError
            If both cannot be brought together; nothing is written then.
        OSError
            If the folder is away or cannot be written.
        """
        with self.writing():
            index = self._index()
            self._mark = write_index(self.path, index)
            self._base = index

    def move(self, folder: Path) -> None:
        """Go on in another folder, into which everything was copied; in `writing`."""
        self._seen.move(self.path, folder)
        self.path, self.files = folder, ProjectFiles(folder)

    def _index(self) -> Index:
        """Return what this program knows, to compare with or to write."""
        with self._memory:
            return Index(
                _copy(self.classes),
                dict(self._samples),
                self._pending,
                f"napari-ovam {__version__}",
            )

    def _read(self) -> None:
        """Take what is on the disk, for a project that is opened."""
        mark = mark_of(self.path)
        for folder in ("labels", "tokens"):
            self._seen.scan(self.path / folder)
        found = read_index(self.path)
        self._hold(found)
        self._base, self._mark = replace(found, classes=_copy(found.classes)), mark

    def _hold(self, index: Index) -> None:
        self.classes.take_over(index.classes)
        self._samples, self._pending = dict(index.samples), index.pending
        self.notes += index.notes

    def _take_in(self) -> bool:
        mark = mark_of(self.path)
        if mark == self._mark:
            return False
        try:
            theirs = read_index(self.path)
        except NewerProjectError as error:
            raise ConflictError(f"{error}. Nothing was written") from error
        except ProjectError as error:
            if self._base is None:
                raise
            # What this program knows is whole, and takes the place of both copies
            kept = keep_copy(self.path / INDEX, "damaged")
            self.notes.append(f"{error}. It is written anew{kept and f'; see {kept}'}.")
            self._mark = mark
            return True
        with self._memory, self.classes.changing:
            self._hold(merge_indices(self._base or Index(), self._index(), theirs))
        self._base, self._mark = replace(theirs, classes=_copy(theirs.classes)), mark
        return True

    def _check_there(self) -> None:
        """Never make a folder anew that was there: its disk may be away."""
        if self._base is not None and not any(
            (self.path / name).is_file() for name in (INDEX, BACKUP)
        ):
            raise FileNotFoundError(
                f"{self.path} is not there any more (its disk is away, or the folder "
                "was moved): bring it back. Nothing was written"
            )

    def _look_around(self) -> None:
        """Notice images that are gone, and take in those that nobody knows."""
        found = {path.stem for path in self.path.joinpath("images").glob("*.png")}
        if gone := [
            name
            for name, sample in self._samples.items()
            if name not in found and Reference.of(sample.provenance) is None
        ]:
            self.notes.append(
                f"{len(gone)} images are missing from {self.path / 'images'}: "
                f"{shorten(gone, 3)}"
            )
        left_out = find_left_out(self.path / "images", self._samples)
        found -= {name for name in found if f"{name}.png" in left_out}
        if left_out:
            reasons = [f"{file}: {reason}" for file, reason in left_out.items()]
            self.notes.append(
                f"{len(reasons)} pictures in {self.path / 'images'} are left out: "
                f"{shorten(reasons, 3, '; ')}"
            )
        new = []
        for name in sorted(found - set(self._samples)):
            try:
                check_name(name)
            except ValueError as error:
                if name[0] != ".":  # what a program that was killed left
                    self.notes.append(f"images/{name}.png is left out: {error}.")
                continue
            new.append(name)
            labelled = self.files.labels(name).is_file()
            self._samples[name] = Sample(name, "edited" if labelled else "new")
        if new:
            self.notes.append(f"{len(new)} images were found and added.")


def _copy(table: ClassTable) -> ClassTable:
    return ClassTable.of(table, table.last_id, table.retired)
