"""CVAT for images 1.1: an XML or several, pictures beside or below them.

Masks and polygons are read.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from napari_ovam.datasets.class_lists import ListedClass, plain, whole
from napari_ovam.datasets.exporters.tools.cvat import decode_mask
from napari_ovam.datasets.importers.annotated import (
    Annotated,
    AnnotationFile,
    draw_outline,
    parse_color,
    read_xml,
)
from napari_ovam.datasets.importers.named_pictures import path_of, read_size
from napari_ovam.datasets.importers.shapes import Size, exact
from napari_ovam.datasets.importers.source import ImportSourceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree import ElementTree

    import numpy as np
    from numpy.typing import NDArray

_OTHERS = {
    "box": "boxes",
    "ellipse": "ellipses",
    "polyline": "lines",
    "points": "points",
    "cuboid": "cuboids",
    "skeleton": "skeletons",
}


def read(root: Path, place: str) -> AnnotationFile:
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
        labels.setdefault(
            name, ListedClass(name, color=parse_color(label.findtext("color")))
        )
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


def _read_image(
    image: ElementTree.Element, labels: dict[str, ListedClass]
) -> Annotated:
    about = Annotated(
        path_of(image.get("name", "")),
        read_size(image.get("height"), image.get("width")),
        record=image,
        container=image,
    )
    for number, shape in enumerate(image, start=1):
        if not isinstance(shape.tag, str):  # a comment
            continue
        if shape.tag == "tag":
            about.whole["tags"] += 1
            continue
        if shape.tag not in ("mask", "polygon"):
            about.others[_OTHERS.get(shape.tag, f"<{shape.tag}>")] += 1
            continue
        about.add(
            shape.get("label"),
            f"#{number} ({shape.tag})",
            partial(exact(decode_mask) if shape.tag == "mask" else draw_points, shape),
            labels=labels,
            group=whole(shape.get("group_id")) or None,  # 0 is none
            order=whole(shape.get("z_order")) or 0,
            record=shape,
        )
    return about


def draw_points(
    shape: ElementTree.Element, size: Size
) -> tuple[NDArray[np.bool_], Sequence[str]]:
    """Return the mask of a <polygon>, and what is to be said of it."""
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    return draw_outline(pairs, size, "x,y;x,y …")
