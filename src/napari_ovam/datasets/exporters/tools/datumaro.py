"""Datumaro: a JSON for each subset, with a run-length mask for each object.

    images/default/NAME.png   annotations/default.json
    (if split: train, val and test in the place of default)

Labels count from 0 in the order of class ids. There is no ignore label: unsure pixels
belong to no mask, and `ignore_pixels` of an item counts them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from napari_ovam.datasets.exporters.dataset import (
    ExportItem,
    LabelClass,
    save_json,
    save_png,
)

from .objects import Object, encode_objects


class DatumaroWriter:
    """Writes the format "datumaro"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        self.folder = folder
        self.classes = classes
        self.numbers = {entry.id: number for number, entry in enumerate(classes)}
        self.items: dict[str, list[dict[str, Any]]] = {}
        self.count = 0

    def add(self, item: ExportItem) -> None:
        """Write one image and encode its objects."""
        subset = item.split or "default"
        save_png(self.folder / "images" / subset / item.file, item.image)
        path = self.folder / "annotations" / f"{subset}.json"
        records = encode_objects(path, item, self.classes, self._encode, decode_each)
        about = {
            "id": item.name,
            "annotations": records,
            "attr": {"ignore_pixels": item.ignored} if item.ignored else {},
            "image": {"path": item.file, "size": list(item.labels.shape)},
        }
        self.items.setdefault(subset, []).append(about)

    def _encode(self, each: Object) -> dict[str, Any]:
        record = {"id": self.count, "type": "mask", "attributes": {}, "group": 0}
        self.count += 1
        record |= {"label_id": self.numbers[each.entry.id], "z_order": 0}
        set_mask(record, each)
        return record

    def finish(self) -> None:
        """Write the JSON of each subset."""
        for subset, items in self.items.items():
            content = {
                "dm_format_version": "1.0",
                "media_type": 2,  # an image
                "infos": {},
                "categories": self._categories(),
                "items": items,
            }
            save_json(self.folder / "annotations" / f"{subset}.json", content)

    def _categories(self) -> dict[str, Any]:
        colors = [
            {"label_id": number, "r": c.color[0], "g": c.color[1], "b": c.color[2]}
            for number, c in enumerate(self.classes)
            if c.color is not None
        ]
        labels = [
            {"name": c.name, "parent": "", "attributes": []} for c in self.classes
        ]
        about: dict[str, Any] = {"label": {"labels": labels, "attributes": []}}
        return about | ({"mask": {"colormap": colors}} if colors else {})


def set_mask(record: dict[str, Any], each: Object) -> None:
    """Give a record the pixels of an object; its other fields stay."""
    code = rle.encode(np.asfortranarray(each.whole(), dtype=np.uint8))
    counts = code["counts"].decode("ascii")
    record |= {"type": "mask", "rle": {"counts": counts, "size": list(each.size)}}


def decode_each(record: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a record, (H, W)."""
    code = record["rle"]
    if tuple(code["size"]) != size:
        raise ValueError(f"its mask is of {code['size']} pixels and not of {size}")
    return np.asarray(rle.decode(code), bool)
