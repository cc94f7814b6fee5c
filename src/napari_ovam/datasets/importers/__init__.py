"""Images and masks of other data sets become samples of a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.base.ids import IGNORE
from napari_ovam.base.names import safe_name
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.datasets.class_lists import add_classes
from napari_ovam.datasets.importers.sources import (
    UNSURE,
    Entry,
    ImportSourceError,
    Masks,
    Source,
    open_indexed,
    open_voc,
)
from napari_ovam.images.files import read
from napari_ovam.images.png import png_size
from napari_ovam.segmentation.instances import Instances
from napari_ovam.segmentation.instances.files import instances_path, save_instances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_ovam.datasets.class_lists import ListedClass
    from napari_ovam.project import Project

FORMATS = ("indexed", "coco", "voc")
"""What `open_source` opens."""

_MOST_INSTANCES = 65_535
_DECIDED = ("edited", "accepted", "rejected")


@dataclass(frozen=True)
class ImportReport:
    """What an import did, by the names of the samples.

    Attributes
    ----------
    labelled
        Those that got labels.
    added
        Those of them whose image is new.
    kept
        Those that were left as they are, and why.
    failed
        Images that could not be imported, by their names in the source, and why.
    new_classes
        Names of classes that were added.
    notes
        Sentences: classes that have another id here.
    """

    labelled: tuple[str, ...]
    added: tuple[str, ...]
    kept: Mapping[str, str]
    failed: Mapping[str, str]
    new_classes: tuple[str, ...]
    notes: tuple[str, ...]


def open_source(
    path: str | Path, form: str, classes: Sequence[ListedClass] | None = None
) -> Source:
    """Open a data set; masks are read when they are imported.

    Parameters
    ----------
    path
        See `open_indexed`, `open_voc` and `open_coco`.
    form
        In `FORMATS`.
    classes
        Where the data set says none of its own.

    Raises
    ------
    ImportSourceError
        If the form is unknown, or this is no such data set.
    """
    path = Path(path)
    if form not in FORMATS:
        raise ImportSourceError(
            f"the format is {form!r}: give one of {', '.join(FORMATS)}"
        )
    if not path.exists():
        raise ImportSourceError(f"there is no {path}")
    if form == "coco":
        from napari_ovam.datasets.importers.coco import open_coco

        return open_coco(path, classes)
    return (open_indexed if form == "indexed" else open_voc)(path, classes)


def import_masks(
    project: Project,
    source: Source,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> ImportReport:
    """Import the images and masks of a data set.

    Classes are matched by name; new ones keep their id where it is free. An image whose
    name and size a sample has is taken for that sample. Labels become "edited", as a
    person made them; proposals are replaced.

    Parameters
    ----------
    project, source
        From `Project.open` and `open_source`.
    overwrite
        Replace labels that a person edited, accepted or rejected as well.
    progress
        Called with (images done, all images); may raise `Cancelled`. What was imported
        before that stays.

    Raises
    ------
    ClassError
        If there are more classes than ids.
    OSError
        If the project cannot be written.
    """
    with project.writing():
        listed = add_classes(project.classes, source.classes)
        project.save()
    table = np.zeros(len(source.classes) + 2, np.uint16)
    for place, entry in enumerate(source.classes, start=1):
        table[place] = listed.ids[entry.name]
    table[UNSURE] = IGNORE  # the last one
    labelled: list[str] = []
    added: list[str] = []
    kept: dict[str, str] = {}
    failed: dict[str, str] = {}
    for done, item in enumerate(source.entries):
        progress(done, len(source.entries))
        name = _known(project, item)
        if name is not None and not overwrite and (why := _why_kept(project, name)):
            kept[name] = f"its labels are kept ({why})"
            continue
        try:
            name, new = _import_one(project, source, item, name, table)
        except ValueError as error:  # its own; a full disk ends the run
            failed[item.name] = str(error)
            continue
        labelled.append(name)
        if new:
            added.append(name)
    progress(len(source.entries), len(source.entries))
    return ImportReport(
        tuple(labelled), tuple(added), kept, failed, listed.added, listed.conflicts
    )


def _known(project: Project, item: Entry) -> str | None:
    names = {sample.name for sample in project.samples}
    return next((n for n in (item.name, safe_name(item.name)) if n in names), None)


def _why_kept(project: Project, name: str) -> str:
    """Return why labels of a sample are not to be replaced; empty if they are."""
    if not project.files.labels(name).is_file():
        return ""
    status = project.sample(name).status
    if status in _DECIDED:
        return status
    painted = project.load_painted(name)
    return "painted" if painted is not None and painted.any() else ""


def _import_one(
    project: Project,
    source: Source,
    item: Entry,
    name: str | None,
    table: NDArray[np.uint16],
) -> tuple[str, bool]:
    """Import an image; return its sample's name, and whether that is new."""
    masks = item.read()
    new = name is None
    image = None
    if name is not None:
        size = png_size(project.files.image(name))
    elif item.image is None:
        raise ImportSourceError("its image is neither in the data set nor here")
    else:
        image = read(item.image)
        size = image.shape[:2]
    if masks.places.shape != size:
        raise ImportSourceError(
            f"its image is {size} pixels and its masks are {masks.places.shape}"
        )
    if image is not None and item.image is not None:
        name = project.reserve(item.name)
        project.add_sample(
            image, name=name, provenance={"title": item.name, "source": item.image.name}
        )
    assert name is not None  # noqa: S101 (it was one or the other)
    ids = table[masks.places]
    # What was painted before is not what a person decided now: all of it is.
    painted = project.files.painted(name).is_file()
    project.save_labels(
        name,
        ids,
        "edited",
        painted=np.ones(ids.shape, bool) if painted else None,
        provenance={"imported": {"format": source.form, "from": source.path.name}},
    )
    _save_objects(project, name, masks, ids)
    return name, new


def _save_objects(
    project: Project, name: str, masks: Masks, ids: NDArray[np.uint16]
) -> None:
    """Write which pixels are one object; without that, connected parts are."""
    instances_path(project.path, name).unlink(missing_ok=True)
    if masks.objects is None:
        return
    inside = (ids != 0) & (ids != IGNORE)
    pairs = np.stack([masks.objects[inside].astype(np.int64), ids[inside]], axis=1)
    found, inverse = np.unique(pairs, axis=0, return_inverse=True)
    if not 0 < len(found) <= _MOST_INSTANCES:
        return
    numbers = np.zeros(ids.shape, np.int32)
    numbers[inside] = inverse.ravel() + 1
    classes = {number: int(c) for number, (_, c) in enumerate(found, start=1)}
    save_instances(project.path, name, Instances(numbers, classes))
