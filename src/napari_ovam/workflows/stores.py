"""Labels of a project go into the OME-Zarr stores that its pictures came from."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.datasets.exporters.dataset import check_classes, check_item
from napari_ovam.datasets.exporters.indices import ids_dtype
from napari_ovam.datasets.exporters.ome_zarr.label_groups import (
    check_label_group,
    label_frame,
    label_place,
    remove_label_group,
    write_label_group,
)
from napari_ovam.datasets.exporters.ome_zarr.meaning import (
    describe_classes,
    describe_objects,
)
from napari_ovam.images.ome_zarr import open_images
from napari_ovam.images.zarr_stores import StoreError
from napari_ovam.project.index import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_ovam.datasets.exporters import ExportItem
    from napari_ovam.project import Project, Sample
    from napari_ovam.project.items import ProjectItems

OBJECTS = "-objects"
"""Behind the name of the labels, where objects are told apart."""


class _Image(NamedTuple):
    """An image in a store, at the level that was looked at."""

    place: str
    path: str
    level: int


@dataclass(frozen=True)
class StoreReport:
    """What was written into stores."""

    written: Mapping[str, int]  # places of label groups, and how many planes are in
    failed: Mapping[str, str]  # places of images that could not be, and why
    others: tuple[str, ...]  # names of samples that came from no store


def write_into_stores(
    project: Project,
    items: ProjectItems,
    *,
    name: str = "ovam",
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> StoreReport:
    """Write labels into the stores that their pictures were imported from.

    All planes of an image become one label image, `labels/NAME`, with the levels of the
    picture; planes without labels are background in it.

    Parameters
    ----------
    project
        Of the items.
    items
        Of `Project.items`.
    name
        Of the label images; that of objects has "-objects" behind it.
    overwrite
        Replace those that were written here before.
    progress
        Called with (images done, all images); may raise `Cancelled`.
    """
    by_image: dict[_Image, dict[str, tuple[int, ...]]] = defaultdict(dict)
    others = []
    for sample in map(project.sample, items.names):
        came = _origin(sample)
        if came is None:
            others.append(sample.name)
        else:
            by_image[came[0]][sample.name] = came[1]
    written: dict[str, int] = {}
    failed: dict[str, str] = {}
    levels = Counter(image[:2] for image in by_image)
    for done, (image, planes) in enumerate(by_image.items()):
        progress(done, len(by_image))
        try:
            if levels[image[:2]] > 1:
                raise StoreError(
                    "its planes were imported at several levels: choose those of one "
                    f"(--image), such as {next(iter(planes))}"
                )
            for place in _write(project, image, planes, name, overwrite):
                written[place] = len(planes)
        except ValueError as error:  # a full disk ends the run
            failed["/".join(filter(None, image[:2]))] = str(error)
    progress(len(by_image), len(by_image))
    return StoreReport(written, failed, tuple(others))


def _origin(sample: Sample) -> tuple[_Image, tuple[int, ...]] | None:
    """Return the image in a store that a sample came from, and its plane."""
    about = sample.told("store")
    try:
        return (
            _Image(str(about["place"]), str(about["image"]), int(about["level"])),
            tuple(int(each) for each in about["plane"]),
        )
    except (TypeError, KeyError, ValueError):  # no store, or not as we write it
        return None


def _write(
    project: Project,
    came: _Image,
    planes: Mapping[str, tuple[int, ...]],
    name: str,
    overwrite: bool,
) -> list[str]:
    image = next((i for i in open_images(came.place) if i.path == came.path), None)
    if image is None or not 0 <= came.level < len(image.levels):
        raise StoreError(
            f"{came.place} has no image {came.path!r} of that size any more"
        )
    for each in (name, name + OBJECTS):  # before anything is read
        check_label_group(label_place(image, each), overwrite=overwrite)
    classes = check_classes(project.label_classes())
    shape = label_frame(image).levels[came.level].shape
    labels = np.zeros(shape, ids_dtype(classes))
    objects = np.zeros(shape, np.uint32)
    count = 0
    known = frozenset(entry.id for entry in classes)
    for item in project.items(planes, get_args(Status)):
        check_item(item, known)
        count = _fill(labels, objects, planes[item.name], item, count)
    places = []
    meanings: list[tuple[str, Any, dict[str, Any] | None]] = [
        (name, labels, describe_classes(classes, image.version)),
        (
            name + OBJECTS,
            objects,
            describe_objects(labels, objects, classes, image.version),
        ),
    ]
    for each, pixels, meaning in meanings:
        if meaning is None:  # no objects are told apart any more
            remove_label_group(image, each)
            continue
        place = write_label_group(image, each, pixels, meaning, overwrite=overwrite)
        places.append(str(place))
    return places


def _fill(
    labels: np.ndarray[Any, Any],
    objects: np.ndarray[Any, Any],
    plane: Sequence[int],
    item: ExportItem,
    count: int,
) -> int:
    """Put a plane into a stack; return how many objects there are by now."""
    at, before = tuple(plane), labels.shape[:-2]
    inside = len(at) == len(before) and all(
        0 <= place < count for place, count in zip(at, before, strict=True)
    )
    if not inside or labels[at].shape != item.labels.shape:
        raise StoreError(
            f"{item.name} is plane {at} of {item.labels.shape} pixels, and the picture "
            f"in the store is {labels.shape}: import it again"
        )
    labels[at] = item.labels
    if item.instances is None:
        return count
    there = item.instances > 0
    objects[at][there] = item.instances[there] + count
    return count + int(item.instances.max(initial=0))
