"""The format "as-imported": data sets as they came, with what was corrected.

    each file of the data set at its place; in NAME/ if there are several data sets

Files of which no picture was corrected are those that were imported, byte by byte. In
others the records of corrected objects are new; all others have the values they had.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.hashing import hash_file
from napari_ovam.base.ids import IGNORE
from napari_ovam.base.words import shorten
from napari_ovam.datasets.exporters.coco import connected_parts
from napari_ovam.datasets.exporters.dataset import (
    ExportError,
    ExportItem,
    LabelClass,
    check_same,
    save_text,
)
from napari_ovam.datasets.importers.voc import objects_of
from napari_ovam.images.pixels import turned

from .kept import Kept, check_files, files_of
from .mask_values import LISTS, MaskValues, correct_objects, write_values
from .reconcile import find_changes
from .record_files import RecordFile, open_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_MASK_FILES = ("indexed", "voc")
# What turns a picture back that an EXIF orientation turned.
_BACK = {6: 8, 8: 6}


@dataclass(frozen=True)
class Imported:
    """Where a sample of a project came from."""

    kept: Kept
    record: tuple[str, int]  # the file that speaks of it, and its number there
    turn: int  # the EXIF orientation by which its masks were turned
    file: str  # the place of its picture in the data set; "" where it is in none
    sha256: str  # of that file


@dataclass
class _DataSet:
    """A data set that is written."""

    kept: Kept
    out: Path
    source: Path  # its files as they were kept
    ids: NDArray[np.integer[Any]]
    opened: dict[str, RecordFile] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    values: MaskValues | None = None


class AsImportedWriter:
    """Writes data sets as they came.

    Parameters
    ----------
    folder, classes
        As for any format.
    project
        The folder in which the data sets were kept.
    samples
        Where items came from, by their names; others are left out.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[LabelClass],
        *,
        project: Path,
        samples: Mapping[str, Imported],
    ) -> None:
        self.folder = folder
        self.classes = classes
        self.project = project
        self.samples = samples
        self.sets: dict[str, _DataSet] = {}
        self.left_out: list[str] = []
        self.corrected: list[str] = []
        self.notes: list[str] = []

    def add(self, item: ExportItem) -> None:
        """Take over what was corrected of one image."""
        origin = self.samples.get(item.name)
        if origin is None:
            self.left_out.append(item.name)
            return
        data = self._data_set(origin.kept)
        back = _BACK.get(origin.turn, origin.turn)
        labels = turned(item.labels, back)
        objects = None if item.instances is None else turned(item.instances, back)
        if origin.kept.form in _MASK_FILES:
            changed = self._correct_mask(data, origin, item.name, labels, objects)
        else:
            changed = self._correct_records(data, origin, labels, objects)
        if changed:
            self.corrected.append(item.name)

    def _data_set(self, kept: Kept) -> _DataSet:
        if kept.id not in self.sets:
            check_files(self.project, kept)
            ids = np.array([0, *kept.ids, IGNORE], np.int64)
            several = {s.kept.id for s in self.samples.values()}
            out = self.folder / self._name(kept) if len(several) > 1 else self.folder
            out.mkdir(exist_ok=True)
            data = _DataSet(kept, out, files_of(self.project, kept), ids)
            if kept.form in _MASK_FILES:
                data.values = MaskValues(kept, ids)
            self.sets[kept.id] = data
        return self.sets[kept.id]

    def _name(self, kept: Kept) -> str:
        alike = [d for d in self.sets.values() if d.kept.name == kept.name]
        return f"{kept.name}-{len(alike) + 1}" if alike else kept.name

    def _entries(self, kept: Kept) -> dict[int, LabelClass]:
        """Return classes by their ids, those of the data set with the names there."""
        entries = {entry.id: entry for entry in self.classes}
        for name, number in zip(kept.classes, kept.ids, strict=True):
            if number in entries:
                known = entries[number]
                entries[number] = LabelClass(number, name, known.color, known.thing)
        unsure, background = LabelClass(IGNORE, "__ignore__"), "_background_"
        return {**entries, IGNORE: unsure, 0: LabelClass(0, background)}

    # -- annotation files --------------------------------------------------------

    def _correct_records(
        self,
        data: _DataSet,
        origin: Imported,
        labels: NDArray[Any],
        objects: NDArray[Any] | None,
    ) -> bool:
        place, index = origin.record
        if place not in data.opened:
            data.opened[place] = open_file(data.source, place, data.kept)
        file = data.opened[place]
        size = labels.shape[0], labels.shape[1]
        if not file.several:  # an annotation is all of its class
            objects = labels
        changes = find_changes(
            *(file.draw(index, size), data.ids, labels, objects, file.order),
            unsure=file.unsure,
        )
        if changes:
            file.apply(index, changes, self._entries(data.kept))
            data.changed.add(place)
        return bool(changes)

    # -- mask files --------------------------------------------------------------

    def _correct_mask(
        self,
        data: _DataSet,
        origin: Imported,
        name: str,
        labels: NDArray[Any],
        objects: NDArray[Any] | None,
    ) -> bool:
        assert data.values is not None  # noqa: S101 - of such a format
        values, (place, _) = data.values, origin.record
        before = values.read(data.source / place)
        then = values.labels(before)
        if not np.array_equal(then, labels):
            after = values.corrected(before, labels, name)
            self._write_mask(data, place, before, after)
        apart = None
        if data.kept.form == "voc":
            apart = objects_of(place, data.kept.originals)
        if objects is None and (then != labels).any():
            objects = connected_parts(labels)
        if apart is not None and objects is not None:
            before = values.read(data.source / apart)
            after = correct_objects(before, then, labels, objects, name)
            if not np.array_equal(before, after):
                self._write_mask(data, apart, before, after)
        return bool({place, apart} & data.written)

    def _write_mask(
        self,
        data: _DataSet,
        place: str,
        before: NDArray[np.int64],
        after: NDArray[np.int64],
    ) -> None:
        assert data.values is not None  # noqa: S101
        path = data.out / place
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = data.values.colours
        write_values(data.source / place, path, before, after, colours=colours)
        check_same(path, data.values.read(path), after)
        data.written.add(place)

    # -- all others --------------------------------------------------------------

    def _copy_picture(self, data: _DataSet, origin: Imported) -> None:
        """Copy a picture from where it was imported, if it is there as it was."""
        if not origin.file:
            return
        old, new = Path(data.kept.root) / origin.file, data.out / origin.file
        try:
            there = old.is_file() and hash_file(old) == origin.sha256
        except OSError:
            there = False
        if not there:
            data.missing.append(origin.file)
        elif not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old, new)

    def finish(self) -> None:
        """Write the files of all data sets, and say what was left out."""
        if not self.sets:
            raise ValueError(
                "none of these images was imported from a data set: choose another "
                "format than 'as-imported', or import the data set again"
            )
        for origin in self.samples.values():
            if origin.kept.id in self.sets:
                self._copy_picture(self.sets[origin.kept.id], origin)
        for data in self.sets.values():
            for path in sorted(data.source.rglob("*")):
                place = path.relative_to(data.source).as_posix()
                if not path.is_file() or place in data.written:
                    continue
                target = data.out / place
                target.parent.mkdir(parents=True, exist_ok=True)
                if place in data.changed:
                    save_text(target, data.opened[place].text())
                elif data.values and data.values.new and path.name in LISTS:
                    names = {entry.id: entry.name for entry in self.classes}
                    text = path.read_text("utf-8")
                    save_text(target, data.values.extend_list(place, text, names))
                else:
                    shutil.copyfile(path, target)
                    if hash_file(target) != hash_file(path):
                        raise ExportError(f"{place} was not copied as it is")
            self._say(data)
        if self.left_out:
            self.notes.append(
                f"{len(self.left_out)} images that were not imported are left out"
            )

    def _say(self, data: _DataSet) -> None:
        if data.missing:
            names = shorten((PurePosixPath(place).name for place in data.missing), 3)
            self.notes.append(
                f"{len(data.missing)} pictures are not in {data.kept.root} as they "
                f"were, and are left out ({names}): put the files beside them"
            )
        if data.values is not None and data.values.new:
            listed = ", ".join(f"{c} as {v}" for c, v in data.values.new.items())
            self.notes.append(f"classes that {data.kept.name} had not: {listed}")
