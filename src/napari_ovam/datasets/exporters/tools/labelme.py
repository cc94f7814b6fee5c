"""LabelMe: a JSON beside each picture.

    NAME.png   NAME.json   labels.txt   (if split: in train/, val/ and test/)

A mask is a PNG of its box, exact. Unsure pixels are a mask of the label `__ignore__`,
which LabelMe's own converters take for that.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ovam.base.ids import IGNORE
from napari_ovam.datasets.exporters.dataset import (
    ExportItem,
    LabelClass,
    save_json,
    save_lines,
    save_png,
)
from napari_ovam.datasets.exporters.indices import check_reserved
from napari_ovam.datasets.mask_codes import box_of, decode_png, encode_png, paste

from .objects import Object, check_lines, encode_objects

_FORM = "labelme"
_IGNORE, _BACKGROUND = "__ignore__", "_background_"
_VERSION = "5.5.0"  # of LabelMe, which has masks from 5.3 on


class LabelmeWriter:
    """Writes the format "labelme"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        check_reserved(classes, _FORM, (_IGNORE, _BACKGROUND))
        check_lines(classes, _FORM, "labels.txt")
        self.folder = folder
        self.classes = classes

    def add(self, item: ExportItem) -> None:
        """Write one image and its shapes."""
        path = self.folder / item.split / f"{item.name}.json"
        save_png(path.with_name(item.file), item.image)
        height, width = item.labels.shape
        shapes = encode_objects(path, item, self.classes, encode_shape, decode_shape)
        unsure = item.labels == IGNORE
        if unsure.any():
            box = box_of(unsure)
            entry = LabelClass(IGNORE, _IGNORE)
            shapes.append(encode_shape(Object(entry, box, unsure[box], unsure.shape)))
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": item.file,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        save_json(path, content)

    def finish(self) -> None:
        """Write `labels.txt`."""
        names = [_IGNORE, _BACKGROUND, *(entry.name for entry in self.classes)]
        save_lines(self.folder / "labels.txt", names)


def encode_shape(each: Object) -> dict[str, Any]:
    """Return an object as a shape of the kind "mask"."""
    shape: dict[str, Any] = {"label": each.entry.name, "points": [], "group_id": None}
    shape |= {"description": "", "shape_type": "mask", "flags": {}, "mask": None}
    set_mask(shape, each)
    return shape


def set_mask(shape: dict[str, Any], each: Object) -> None:
    """Give a shape the pixels of an object; its other fields stay."""
    top, left = each.corner
    height, width = each.mask.shape
    # the corners are pixels, both in the box
    points = [[float(left), float(top)], [left + width - 1.0, top + height - 1.0]]
    shape |= {"points": points, "shape_type": "mask", "mask": encode_png(each.mask)}


def decode_shape(shape: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a shape of the kind "mask", (H, W).

    It raises `ValueError` if it is broken, or larger than the picture.
    """
    if not isinstance(shape.get("mask"), str):
        raise ValueError("it has no mask")
    part = decode_png(shape["mask"], size[0] * size[1])
    left, top = np.array(shape["points"], float)[0].round().astype(int).tolist()
    return paste(part, (top, left), size)
