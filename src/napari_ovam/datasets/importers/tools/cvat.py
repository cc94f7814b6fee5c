"""CVAT for images 1.1: `annotations.xml`."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.datasets.class_lists import ListedClass, plain, whole
from napari_ovam.datasets.exporters.tools.cvat import decode_mask
from napari_ovam.datasets.importers.coco import path_of
from napari_ovam.datasets.importers.shapes import (
    Shape,
    Size,
    exact,
)
from napari_ovam.datasets.importers.source import (
    ImportSourceError,
    Source,
)
from napari_ovam.datasets.importers.tools.annotated import (
    Annotated,
    AnnotationFile,
    draw_outline,
    open_files,
    parse_color,
    read_xml,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree import ElementTree

    from numpy.typing import NDArray

FORM = "cvat"
_OTHERS = {
    "box": "boxes",
    "ellipse": "ellipses",
    "polyline": "lines",
    "points": "points",
    "cuboid": "cuboids",
    "skeleton": "skeletons",
}


def open_cvat(path: Path, classes: Sequence[ListedClass] | None = None) -> Source:
    """Open what CVAT exports as "CVAT for images 1.1": masks and polygons.

    It raises `ImportSourceError` if there is no such XML.

    Parameters
    ----------
    path
        An XML, or a folder with one or several; pictures beside or below it.
    classes
        Not used: the file has them.
    """
    del classes
    return open_files(FORM, path, ".xml", read_cvat)


def read_cvat(root: Path, place: str) -> AnnotationFile:
    """Read an XML of CVAT.

    It raises `ImportSourceError` if it is none of annotated pictures.
    """
    tree = read_xml(root / place)
    if tree.tag != "annotations":
        raise ImportSourceError(f"it holds <{tree.tag}>, and not <annotations>")
    file = AnnotationFile(place, tree)
    tracks, images = len(tree.findall("track")), tree.findall("image")
    if tracks and not images:
        raise ImportSourceError(
            "it is of a video: export the task as CVAT for images 1.1"
        )
    if tracks:
        file.problems.append(f"{tracks} tracks of a video are not read")
    labels: dict[str, ListedClass] = {}
    for label in tree.iterfind("meta//labels/label"):
        try:
            name = plain(label.findtext("name"))
        except ValueError:
            file.problems.append("a label has no name")
            continue
        labels.setdefault(name, ListedClass(name, color=read_color(label)))
    nameless = 0
    count = Counter(image.get("name") for image in images)
    for image in images:
        name, subset = image.get("name", ""), image.get("subset")
        if not name.strip():
            nameless += 1
            continue
        about = _read_image(image, labels)
        if subset and count[name] > 1:  # as tasks of a project may have
            about.name = f"{path_of(subset)}/{about.name}"
        file.pictures.append(about)
    if nameless:
        file.problems.append(f"{nameless} images have no name")
    file.classes = list(labels.values())
    return file


def read_color(label: ElementTree.Element) -> tuple[int, int, int] | None:
    """Return the colour of a label, "#rrggbb"; None if it has none."""
    return parse_color(label.findtext("color"))


def _read_image(
    image: ElementTree.Element, labels: dict[str, ListedClass]
) -> Annotated:
    height, width = (whole(image.get(key)) or 0 for key in ("height", "width"))
    about = Annotated(
        path_of(image.get("name", "")),
        (height, width) if height > 0 and width > 0 else None,
        record=image,
        container=image,
    )
    unnamed = 0
    for number, shape in enumerate(image, start=1):
        if not isinstance(shape.tag, str):  # a comment
            continue
        if shape.tag == "tag":
            about.whole["tags"] += 1
            continue
        if shape.tag not in ("mask", "polygon"):
            about.others[_OTHERS.get(shape.tag, f"<{shape.tag}>")] += 1
            continue
        try:
            name = plain(shape.get("label"))
        except ValueError:
            unnamed += 1
            continue
        labels.setdefault(name, ListedClass(name))
        group = whole(shape.get("group_id"))
        about.shapes.append(
            Shape(
                f"#{number} ({shape.tag})",
                name,
                partial(
                    exact(decode_mask) if shape.tag == "mask" else draw_points, shape
                ),
                group or None,  # 0 is none
                whole(shape.get("z_order")) or 0,
                shape,
            )
        )
    if unnamed:
        about.problems.append(f"{unnamed} annotations without a label are left out")
    return about


def draw_points(
    shape: ElementTree.Element, size: Size
) -> tuple[NDArray[np.bool_], Sequence[str]]:
    """Return the mask of a <polygon>, and what is to be said of it.

    It raises `ValueError` if it is broken.
    """
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    points = np.array(pairs, float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError("its points are not x,y;x,y …")
    return draw_outline(points, size)
