"""Check a project or an export: nothing is missing, damaged or of another kind.

Nothing is written. An image's file is compared with the SHA-256 in `project.json`,
labels with the one in their own PNG (of the pixels, so that it changes with them), and
every file of an export with the one in its `ovam.json`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from napari_ovam.base.hashing import hash_file
from napari_ovam.base.ids import BACKGROUND, IGNORE
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.base.words import shorten
from napari_ovam.datasets.exporters.report import (
    BROKEN,
    is_as_listed,
    read_listed_files,
)
from napari_ovam.datasets.exporters.report import INDEX as EXPORT_INDEX
from napari_ovam.images.files import image_size, read
from napari_ovam.images.png import read_ids
from napari_ovam.project.by_hand import read_index
from napari_ovam.project.files import (
    ProjectFiles,
    hash_ids,
    read_about_labels,
    replace_ids,
)
from napari_ovam.project.index import BACKUP, INDEX, ProjectError
from napari_ovam.project.references import Reference
from napari_ovam.project.replay import read_history
from napari_ovam.segmentation.instances.files import instances_path, load_instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ovam.datasets.classes import ClassTable
    from napari_ovam.project.index import Sample

_STRAY = ".*.tmp"
_UNLABELLED = ("new", "rejected")


class VerifyError(ValueError):
    """A folder that is neither a project nor an export."""


@dataclass(frozen=True)
class Report:
    """What was checked."""

    # What is wrong, a sentence each, with the file's place in the folder.
    problems: tuple[str, ...]
    notes: tuple[str, ...]  # what may be meant so
    checked: int  # how many files were read


def verify(path: str | Path, *, progress: Progress = no_progress) -> Report:
    """Check a project, an export, or one format of an export.

    It raises `VerifyError` if it is none of these.

    Parameters
    ----------
    path
        The folder.
    progress
        Called with (done, all); may raise `Cancelled`.
    """
    path = Path(path)
    found = _Findings()
    if any((path / name).is_file() for name in (INDEX, BACKUP)):
        _check_project(path, found, progress)
    else:
        folders = [path, *(sorted(path.iterdir()) if path.is_dir() else ())]
        exports = [folder for folder in folders if (folder / EXPORT_INDEX).is_file()]
        if not exports:
            raise VerifyError(
                f"{path} is neither a project ({INDEX}) nor an export ({EXPORT_INDEX})"
            )
        for folder in exports:
            where = "" if folder == path else f"{folder.name}/"
            _check_export(folder, where, found, progress)
    return Report(tuple(found.problems), tuple(found.notes), found.checked)


class _Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.checked = 0

    def wrong(self, place: str, what: str) -> None:
        self.problems.append(f"{place}: {what}")

    def note(self, place: str, what: str) -> None:
        self.notes.append(f"{place}: {what}")

    @contextmanager
    def reading(self, place: str, said: str = "cannot be read: ") -> Iterator[None]:
        """Count a file as read, and name what is wrong with it."""
        self.checked += 1
        try:
            yield
        except (ValueError, OSError, SafetensorError) as error:
            self.wrong(place, f"{said}{error}")


def _check_project(path: Path, found: _Findings, progress: Progress) -> None:
    try:
        index = read_index(path, mend=False)
    except ProjectError as error:
        found.wrong(INDEX, str(error))
        return
    found.checked += 1
    for note in index.notes:
        found.problems.append(f"{note} Open the project to mend it")
    if index.pending:
        found.note(INDEX, "classes were merged or deleted: opening it ends that")
    files = ProjectFiles(path)
    samples = list(index.samples.values())
    for done, sample in enumerate(samples):
        progress(done, len(samples) + 1)
        _check_sample(path, sample, index.classes, found)
    _check_strangers(path, set(index.samples), found)
    for entry in index.classes:
        if entry.token is not None:
            _check_tensors(files.token(entry.token), f"tokens/{entry.token}", found)
        elif entry.source == "token":
            found.wrong(INDEX, f"class {entry.name!r} shall use a token and has none")
    for trace in sorted((path / "traces").glob("*.safetensors")):
        _check_tensors(trace, f"traces/{trace.name}", found)
    progress(len(samples) + 1, len(samples) + 1)


def _check_sample(
    path: Path, sample: Sample, classes: ClassTable, found: _Findings
) -> None:
    files = ProjectFiles(path)
    labels, there = files.labels(sample.name), Reference.of(sample.provenance)
    image, shown = files.image(sample.name), f"images/{sample.name}.png"
    if there is not None:
        image, shown = there.place(path), str(there.place(path))
    size = _check_image(image, shown, sample.sha256, found)
    if there is not None and (size is None or there.page):
        size = there.height, there.width  # of labels whose picture is missing, too
    place = f"labels/{sample.name}.png"
    ids = None
    if labels.is_file():
        ids = _check_labels(labels, place, size, classes, found)
    elif sample.status not in _UNLABELLED:
        found.wrong(place, f"the labels are missing; the image is {sample.status}")
    painted, edits = files.painted(sample.name), f"edits/{sample.name}.png"
    if painted.is_file():
        mask = _read_ids(painted, edits, found)
        if mask is not None and size is not None and mask.shape != size:
            found.wrong(edits, f"is {mask.shape}, the image {size}")
    if ids is not None and files.history(sample.name).is_file():
        found.checked += 1
        made = read_history(files.history(sample.name), classes.replaced())
        same = made.labels((ids.shape[0], ids.shape[1]))
        if missing := int((replace_ids(ids, made.replaced) != same).sum()):
            place = f"history/{sample.name}.jsonl"
            found.note(place, f"does not know where {missing} pixels came from")
    if ids is not None and instances_path(path, sample.name).is_file():
        with found.reading(f"instances/{sample.name}.png", ""):
            load_instances(path, sample.name, ids)
    if unknown := [i for i in sample.absent if i not in classes]:
        found.note(INDEX, f"{sample.name} lacks classes that are none: {unknown}")


def _check_image(
    path: Path, place: str, digest: str, found: _Findings
) -> tuple[int, int] | None:
    """Check an image; return its (H, W), None where that is not known."""
    if not path.is_file():
        found.wrong(place, "is missing")
        return None
    with found.reading(place):
        if digest:
            # Unchanged files are whole: their pixels need not be decoded.
            if hash_file(path) == digest:
                return image_size(path)
            found.wrong(place, "was changed since it was added")
        height, width, _ = read(path).shape
        return height, width
    return None


def _check_labels(
    path: Path,
    place: str,
    size: tuple[int, int] | None,
    classes: ClassTable,
    found: _Findings,
) -> np.ndarray[Any, Any] | None:
    ids = _read_ids(path, place, found)
    if ids is None:
        return None
    if size is not None and ids.shape != size:
        found.wrong(place, f"is {ids.shape} pixels, the image {size}")
    digest = read_about_labels(path).get("sha256")
    if digest is None:
        found.note(place, "was written by another program or version")
    elif digest != hash_ids(ids):
        found.wrong(place, "does not hold what was saved in it")
    known = {BACKGROUND, IGNORE, *(entry.id for entry in classes)}
    known |= set(classes.replaced())
    if unknown := sorted(set(np.unique(ids).tolist()) - known):
        found.wrong(place, f"holds ids without a class: {shorten(unknown)}")
    return ids


def _read_ids(path: Path, place: str, found: _Findings) -> np.ndarray[Any, Any] | None:
    with found.reading(place):
        return read_ids(path)
    return None


def _check_strangers(path: Path, names: set[str], found: _Findings) -> None:
    """Name files that belong to no sample, and what killed programs left."""
    for folder in ("images", "labels", "edits", "instances", "history"):
        ending = "*.jsonl" if folder == "history" else "*.png"
        for file in sorted((path / folder).glob(ending)):
            if file.stem in names or file.name.startswith("."):
                continue
            if folder == "images":
                found.note(f"images/{file.name}", "is new: opening takes it in")
            else:
                found.wrong(f"{folder}/{file.name}", "has no image")
    for file in sorted(islice(path.rglob(_STRAY), 100)):
        place = file.relative_to(path).as_posix()
        found.note(place, "was left by a program that was stopped: delete it")


def _check_tensors(path: Path, place: str, found: _Findings) -> None:
    if not path.is_file():
        found.wrong(place, "is missing")
        return
    with found.reading(place), safe_open(path, framework="numpy") as file:
        if not list(file.keys()):
            found.wrong(place, "is empty")


def _check_export(
    folder: Path, where: str, found: _Findings, progress: Progress
) -> None:
    place = f"{where}{EXPORT_INDEX}"
    try:
        files = read_listed_files(folder)
    except BROKEN as error:
        found.wrong(place, f"is damaged: {error!r}")
        return
    found.checked += 1
    for done, (name, about) in enumerate(files.items()):
        progress(done, len(files))
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            found.wrong(place, f"names a file outside of the folder: {name}")
        elif not path.is_file():
            found.wrong(f"{where}{name}", "is missing")
        else:
            with found.reading(f"{where}{name}"):
                if not is_as_listed(path, about):
                    found.wrong(f"{where}{name}", "was changed since the export")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in files and name != EXPORT_INDEX:
            found.note(f"{where}{name}", "was not there when it was exported")
    progress(len(files), len(files))
