"""CVAT for images 1.1: one XML with a mask for each object.

    images/NAME.png   annotations.xml

A mask is runs along the rows of its box, exact. Splits are the `subset` of an image,
and a task each of a project.
CVAT has no ignore label: unsure pixels belong to no mask.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_ovam.datasets.exporters.dataset import (
    ExportItem,
    LabelClass,
    save_png,
    save_text,
)
from napari_ovam.datasets.mask_codes import decode_runs, encode_runs, paste

from .objects import Object, check_lines, encode_objects, hex_color

_FORM = "cvat"
HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'


class CvatWriter:
    """Writes the format "cvat"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        check_lines(classes, _FORM, "XML")
        self.path = folder / "annotations.xml"
        self.classes = classes
        self.images: list[ElementTree.Element] = []
        self.counts: Counter[str] = Counter()  # images of each split

    def add(self, item: ExportItem) -> None:
        """Write one image and encode its objects."""
        save_png(self.path.parent / "images" / item.file, item.image)
        height, width = item.labels.shape
        about = {"id": str(len(self.images)), "name": item.file}
        about |= {"subset": item.split} if item.split else {}
        about |= {"width": str(width), "height": str(height)}
        image = ElementTree.Element("image", about)
        image.extend(
            encode_objects(self.path, item, self.classes, encode_mask, decode_mask)
        )
        self.images.append(image)
        self.counts[item.split] += 1

    def finish(self) -> None:
        """Write `annotations.xml`."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        meta = ElementTree.SubElement(root, "meta")
        if "" in self.counts:  # not split
            owner = _add_task(meta, "napari-ovam", self.counts[""])
        else:
            owner = ElementTree.SubElement(meta, "project")
            ElementTree.SubElement(owner, "name").text = "napari-ovam"
            tasks = ElementTree.SubElement(owner, "tasks")
            for split, count in self.counts.items():
                task = _add_task(tasks, split, count)
                ElementTree.SubElement(task, "subset").text = split
        labels = ElementTree.SubElement(owner, "labels")
        for entry in self.classes:
            labels.append(encode_label(entry))
        root.extend(self.images)
        save_xml(self.path, root, HEAD)


def _add_task(
    parent: ElementTree.Element, name: str, count: int
) -> ElementTree.Element:
    task = ElementTree.SubElement(parent, "task")
    about = {"name": name, "size": str(count), "mode": "annotation", "overlap": "0"}
    for key, value in about.items():
        ElementTree.SubElement(task, key).text = value
    return task


def encode_label(entry: LabelClass) -> ElementTree.Element:
    """Return what the XML says of a class."""
    label = ElementTree.Element("label")
    ElementTree.SubElement(label, "name").text = entry.name
    if entry.color is not None:
        ElementTree.SubElement(label, "color").text = hex_color(entry.color)
    ElementTree.SubElement(label, "type").text = "any"
    ElementTree.SubElement(label, "attributes")
    return label


def encode_mask(each: Object) -> ElementTree.Element:
    """Return an object as <mask>: runs along the rows of its box."""
    mask = ElementTree.Element("mask", {"label": each.entry.name, "source": "manual"})
    set_mask(mask, each)
    return mask


def set_mask(mask: ElementTree.Element, each: Object) -> None:
    """Give a <mask> the pixels of an object; its other attributes stay."""
    top, left = each.corner
    height, width = each.mask.shape
    mask.attrib |= {"occluded": mask.get("occluded", "0")}
    mask.attrib |= {
        "rle": ", ".join(map(str, encode_runs(each.mask))),
        **{"left": str(left), "top": str(top)},
        **{"width": str(width), "height": str(height)},
    }
    mask.attrib |= {"z_order": mask.get("z_order", "0")}


def decode_mask(mask: ElementTree.Element, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a <mask>, (H, W).

    It raises `ValueError` if it is broken, or larger than the picture.
    """
    numbers = {
        key: int(mask.get(key, "")) for key in ("left", "top", "width", "height")
    }
    width, height = numbers["width"], numbers["height"]
    if width * height > size[0] * size[1]:
        raise ValueError("its box is larger than the picture")
    runs = [int(run) for run in mask.get("rle", "").split(",")]
    part = decode_runs(runs, (height, width))
    return paste(part, (numbers["top"], numbers["left"]), size)


def save_xml(path: Path, root: ElementTree.Element, head: str = "") -> None:
    """Write an XML, read it back and compare."""
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    save_text(path, f"{head}{text}\n")
