"""COCO instances: one JSON with run-length masks.

    images/NAME.png   annotations.json, or annotations_train.json ... if split

Written for readers as they are: `iscrowd` 0 (readers skip crowds), an area, a box and
an id for each annotation, category ids equal to class ids. COCO has no ignore label:
those pixels belong to no annotation, and each image counts them in `ignore_pixels`.
What made an image and its labels is in its field `ovam`.

"coco-polygons" holds polygons for tools that read nothing else. COCO has none with
holes: a bridge joins a hole to the border.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from napari_ovam.base.ids import BACKGROUND, IGNORE

from .dataset import ExportItem, LabelClass, check_same, save_png
from .polygons import LowestIou, compare, outlines


class CocoWriter:
    """Writes the formats "coco", "coco-parts" and "coco-polygons".

    Parameters
    ----------
    folder
        An empty folder.
    classes
        Become the categories, used or not.
    parts
        Whether each instance of an item, or each connected part (diagonal neighbours
        are connected) of a class where it has none, is an annotation of its own,
        instead of one for each class and image.
    polygons
        Whether masks are polygons instead of run-length codes.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[LabelClass],
        *,
        parts: bool = False,
        polygons: bool = False,
    ) -> None:
        self.folder = folder
        self.parts = parts
        self.polygons = polygons
        self.names = {c.id: c.name for c in classes}
        self.worst: LowestIou | None = None
        self.categories = [
            {"id": c.id, "name": c.name, "supercategory": ""}
            | ({"color": list(c.color)} if c.color else {})
            for c in classes
        ]
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.splits: list[str] = []
        # Labels are not kept; what the finished file decodes to is compared with these.
        # Polygons are compared as they are made, and their file with what they drew.
        self.hashes: list[bytes] = []

    def add(self, item: ExportItem) -> None:
        """Write one image and encode its labels."""
        save_png(self.folder / "images" / item.file, item.image)
        ignored = item.labels == IGNORE
        labels = np.where(ignored, 0, item.labels).astype(np.uint16)
        image_id = len(self.images) + 1
        self.images.append(image_record(image_id, item))
        self.splits.append(item.split)
        drawn = np.zeros_like(labels)
        for class_id, mask in self._masks(labels, item.instances):
            segmentation, code = self._encode(mask)
            drawn[rle.decode(code).astype(bool)] = class_id
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image_id,
                    "category_id": class_id,
                    "iscrowd": 0,
                    "area": int(rle.area(code)),
                    "bbox": [float(value) for value in rle.toBbox(code)],
                    "segmentation": segmentation,
                }
            )
        self.hashes.append(_hash(drawn if self.polygons else labels))
        if self.polygons:
            self.worst = compare(drawn, labels, self.names, item.name, self.worst)

    def _encode(self, mask: NDArray[np.bool_]) -> tuple[Any, Any]:
        """Return a mask as it is written, and the code of what that draws."""
        height, width = mask.shape
        if not self.polygons:
            code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            counts = code["counts"].decode("ascii")
            return {"size": [height, width], "counts": counts}, code
        rings = [ring.ravel().round(2).tolist() for ring in outlines(mask)]
        return rings, rle.merge(rle.frPyObjects(rings, height, width))

    def _masks(
        self, labels: NDArray[np.uint16], instances: NDArray[np.integer[Any]] | None
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for class_id in np.unique(labels[labels > 0]):
            mask = labels == class_id
            if not self.parts:
                yield int(class_id), mask
                continue
            objects = number_objects(mask, instances)
            for number in range(1, int(objects.max()) + 1):
                yield int(class_id), objects == number

    def finish(self) -> LowestIou | None:
        """Write `annotations.json`, then decode it and compare the pixels."""
        for split in sorted(set(self.splits)):
            self._write(split, {i for i, s in enumerate(self.splits) if s == split})
        return self.worst

    def _write(self, split: str, chosen: set[int]) -> None:
        """Write and compare the images of one split, given by their positions."""
        path = self.folder / json_name("annotations", split)
        content = coco_content(
            "they belong to no annotation",
            self.categories,
            [self.images[i] for i in sorted(chosen)],
            [a for a in self.annotations if a["image_id"] - 1 in chosen],
        )
        with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(content, file, ensure_ascii=False)
        self._read_back(path, [self.hashes[i] for i in sorted(chosen)])

    def _read_back(self, path: Path, hashes: Sequence[bytes]) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        annotations = iter(content["annotations"])
        annotation = next(annotations, None)
        for image, expected in zip(content["images"], hashes, strict=True):
            labels = np.zeros((image["height"], image["width"]), np.uint16)
            while annotation is not None and annotation["image_id"] == image["id"]:
                code = annotation["segmentation"]
                if self.polygons:
                    code = rle.merge(rle.frPyObjects(code, *labels.shape))
                mask = rle.decode(code)
                labels[mask.astype(bool)] = annotation["category_id"]
                annotation = next(annotations, None)
            check_same(path, np.array(_hash(labels)), np.array(expected))


def number_objects(
    mask: NDArray[np.bool_], instances: NDArray[np.integer[Any]] | None
) -> NDArray[Any]:
    """Return the objects of a class, numbered from 1, (H, W); else its parts."""
    if instances is None:
        return connected_parts(mask)
    objects = np.zeros(mask.shape, np.int64)
    objects[mask] = np.unique(instances[mask], return_inverse=True)[1] + 1
    return objects


def connected_parts(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the connected parts of classes, (H, W) from 1; 0 and 255 are none.

    Diagonal neighbours are connected.
    """
    from skimage.measure import label as connected

    inside = np.where(labels == IGNORE, BACKGROUND, labels)
    found: NDArray[np.int64] = connected(inside, connectivity=2)
    return found


def find_objects(
    labels: NDArray[np.integer[Any]],
    instances: NDArray[np.integer[Any]] | None,
    classes: Sequence[LabelClass],
) -> tuple[NDArray[np.int64], list[tuple[LabelClass, Any]]]:
    """Return each pixel's object, (H, W) from 1, and of each its class and region.

    Each instance of a class of things is one, else each connected part; a class that is
    "stuff" is one. Regions are as those of `skimage.measure.regionprops`.
    """
    from skimage.measure import regionprops

    ids = np.zeros(labels.shape, np.int64)
    objects: list[tuple[LabelClass, Any]] = []
    present = {int(i) for i in np.unique(labels)}
    for entry in classes:
        if entry.id not in present:
            continue
        mask = labels == entry.id
        parts = number_objects(mask, instances) if entry.thing else mask
        ids[mask] = parts[mask] + len(objects)
        regions = regionprops(np.asarray(parts, np.int64))
        objects += [(entry, region) for region in regions]
    return ids, objects


def image_record(number: int, item: ExportItem) -> dict[str, Any]:
    """Return what COCO says of an image, and what made it."""
    height, width = item.labels.shape
    return {
        "id": number,
        "file_name": item.file,
        "width": width,
        "height": height,
        "ignore_pixels": item.ignored,
    } | ({} if item.provenance is None else {"ovam": dict(item.provenance)})


def coco_content(
    ignored: str,
    categories: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return a JSON of COCO; `ignored` says what became of unsure pixels."""
    what = f"ignore_pixels of an image were marked unsure; {ignored}"
    return {
        "info": {"description": "napari-ovam", "ignore": what},
        "licenses": [],
        "categories": categories,
        "images": images,
        "annotations": annotations,
    }


def json_name(stem: str, split: str) -> str:
    """Return STEM.json, or STEM_SPLIT.json in a dataset that is split."""
    return f"{stem}_{split}.json" if split else f"{stem}.json"


def _hash(labels: NDArray[np.uint16]) -> bytes:
    return sha256(labels.tobytes()).digest()
