"""Annotation files of data sets, with corrected pictures in them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Protocol
from xml.etree import ElementTree

import numpy as np
from pycocotools import mask as rle

from napari_ovam.datasets.class_lists import ListedClass, whole
from napari_ovam.datasets.exporters.polygons import outlines
from napari_ovam.datasets.exporters.tools.cvat import HEAD
from napari_ovam.datasets.exporters.tools.objects import Object
from napari_ovam.datasets.importers import coco_masks
from napari_ovam.datasets.importers.coco import places_finder, read_coco
from napari_ovam.datasets.importers.shapes import Drawn, draw_shapes, in_order, no_wrong
from napari_ovam.datasets.mask_codes import box_of, encode_runs

from .edits import EDITS, remove

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam.datasets.exporters.dataset import LabelClass

    from .kept import Kept
    from .reconcile import Changes


class RecordFile(Protocol):
    """An annotation file that is read, and in which pictures are changed."""

    unsure: bool  # whether there is a label for unsure pixels
    several: bool  # whether an annotation is an object, and not all of its class

    def order(self, drawn: Sequence[Drawn]) -> list[Drawn]:
        """Return annotations with those that lie above later."""

    def draw(self, index: int, size: tuple[int, int]) -> list[Drawn]:
        """Return the annotations of a picture, in the order of the file."""

    def apply(
        self, index: int, changes: Changes, entries: Mapping[int, LabelClass]
    ) -> None:
        """Change the annotations of a picture; `entries` has classes by their ids."""

    def text(self) -> str:
        """Return the file as it is now."""


def open_file(root: Path, place: str, kept: Kept) -> RecordFile:
    """Read an annotation file that was kept, by its place below a folder.

    It raises `ImportSourceError` if it cannot be read any more.
    """
    if kept.form == "coco":
        return _CocoFile(root, place, kept)
    return _ToolFile(root, place, kept)


def _object_of(mask: NDArray[np.bool_], entry: LabelClass) -> Object:
    box = box_of(mask)
    return Object(entry, box, mask[box], (mask.shape[0], mask.shape[1]))


class _ToolFile:
    """A file of CVAT, LabelMe, Label Studio or Datumaro."""

    several = True
    order = staticmethod(in_order)

    def __init__(self, root: Path, place: str, kept: Kept) -> None:
        self.path = root / place
        self.edits = EDITS[kept.form]
        self.unsure = self.edits.unsure
        self.file = self.edits.read(root, place)
        self.places = {name: at for at, name in enumerate(kept.classes, start=1)}
        self.places |= self.file.special

    def draw(self, index: int, size: tuple[int, int]) -> list[Drawn]:
        about = self.file.pictures[index]
        return draw_shapes(about.shapes, size, self.places, no_wrong())

    def apply(
        self, index: int, changes: Changes, entries: Mapping[int, LabelClass]
    ) -> None:
        about, edits = self.file.pictures[index], self.edits
        if about.container is None:
            about.container = edits.make_container(about)
        for record in changes.removed:
            remove(about, record)
        for change in changes.changed:
            entry = entries[change.class_id]
            if change.mask is not None:
                each = _object_of(change.mask, entry)
                edits.set_mask(about, change.record, each)
            if change.relabelled:
                edits.set_class(self.file, change.record, entry)
        top = max((shape.order for shape in about.shapes), default=0)
        for class_id, mask in changes.new:
            each = _object_of(mask, entries[class_id])
            about.container.append(edits.make(self.file, about, each, top))

    def text(self) -> str:
        content = self.file.content
        if isinstance(content, ElementTree.Element):
            text = ElementTree.tostring(content, encoding="unicode")
            return f"{HEAD}{text}\n"
        return _as_json(content, self.path)


class _CocoFile:
    """A JSON of COCO's instances."""

    unsure = False
    order = staticmethod(coco_masks.in_order)

    def __init__(self, root: Path, place: str, kept: Kept) -> None:
        self.path = root / place
        listed: dict[str, ListedClass] = {}
        self.file = read_coco(root, place, listed)
        self.several = self.file.several
        places = {name: at for at, name in enumerate(kept.classes, start=1)}
        self.find = places_finder(self.file, places)
        there = [a for a in self.file.content["annotations"] if isinstance(a, dict)]
        rings = sum(isinstance(a.get("segmentation"), list) for a in there)
        self.polygons = 2 * rings > len(there)  # which most of its masks are
        self.last = max((whole(a.get("id")) or 0 for a in there), default=0)

    def draw(self, index: int, size: tuple[int, int]) -> list[Drawn]:
        annotations = self.file.annotations_of(index) or []
        return coco_masks.draw_annotations(annotations, size, self.find, no_wrong())

    def apply(
        self, index: int, changes: Changes, entries: Mapping[int, LabelClass]
    ) -> None:
        listed = self.file.content["annotations"]
        gone = {id(record) for record in changes.removed}
        if gone:
            listed[:] = [each for each in listed if id(each) not in gone]
        for change in changes.changed:
            if change.relabelled:
                change.record["category_id"] = self._category(entries[change.class_id])
            if change.mask is not None:
                _set_mask(change.record, change.mask)
        for class_id, mask in changes.new:
            self.last += 1
            record: dict[str, Any] = {
                "id": self.last,
                "image_id": self.file.images[index]["id"],
                "category_id": self._category(entries[class_id]),
                "iscrowd": 0,
                "area": 0,
                "bbox": [],
                "segmentation": [] if self.polygons else {},
            }
            _set_mask(record, mask)
            listed.append(record)

    def _category(self, entry: LabelClass) -> Any:
        for number, name in self.file.categories:
            if name == entry.name:
                return number
        taken = {whole(number) for number, _ in self.file.categories}
        last = max((number or 0 for number in taken), default=0)
        number = last + 1 if entry.id in taken else entry.id
        self.file.categories.append((number, entry.name))
        self.file.content["categories"].append(
            {"id": number, "name": entry.name, "supercategory": ""}
        )
        return number

    def text(self) -> str:
        return _as_json(self.file.content, self.path)


def _set_mask(record: dict[str, Any], mask: NDArray[np.bool_]) -> None:
    """Give an annotation of COCO a mask of the kind that it had: polygons, or codes."""
    was = record.get("segmentation")
    code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    size = [int(side) for side in mask.shape]
    rings = [ring.ravel().round(2).tolist() for ring in outlines(mask)]
    drawn = rle.decode(rle.merge(rle.frPyObjects(rings, *size)))
    if isinstance(was, list) and np.array_equal(drawn, mask):
        record["segmentation"] = rings
    elif isinstance(was, dict) and isinstance(was.get("counts"), list):
        record["segmentation"] = was | {"size": size, "counts": encode_runs(mask.T)}
    else:
        text = code["counts"].decode("ascii")
        record["segmentation"] = {"size": size, "counts": text}
    if "area" in record:
        record["area"] = int(rle.area(code))
    if "bbox" in record:
        record["bbox"] = [float(value) for value in rle.toBbox(code)]


def _as_json(content: Any, was: Path) -> str:
    """Return JSON as text, indented as a file was."""
    with was.open(encoding="utf-8", errors="replace") as file:
        spaces = re.match(r"[\[{]\r?\n( +)", file.read(100))
    indent = len(spaces[1]) if spaces else None
    return json.dumps(content, ensure_ascii=False, indent=indent)
