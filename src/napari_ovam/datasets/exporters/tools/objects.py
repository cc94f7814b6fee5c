"""What the formats of annotation tools share: objects, decoded again and compared."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_ovam.base.ids import IGNORE
from napari_ovam.datasets.exporters.coco import find_objects
from napari_ovam.datasets.exporters.dataset import ExportItem, LabelClass, check_same
from napari_ovam.datasets.mask_codes import Box

_Record = TypeVar("_Record")


class Object(NamedTuple):
    """An object of a picture."""

    entry: LabelClass
    box: Box
    mask: NDArray[np.bool_]  # within the box
    size: tuple[int, int]  # (H, W) of the picture

    @property
    def corner(self) -> tuple[int, int]:
        """The row and column of its first pixel."""
        return int(self.box[0].start), int(self.box[1].start)

    def whole(self) -> NDArray[np.bool_]:
        """Return its mask as large as the picture, (H, W)."""
        mask = np.zeros(self.size, bool)
        mask[self.box] = self.mask
        return mask


def encode_objects(
    path: Path,
    item: ExportItem,
    classes: Sequence[LabelClass],
    encode: Callable[[Object], _Record],
    decode: Callable[[_Record, tuple[int, int]], NDArray[np.bool_]],
) -> list[_Record]:
    """Return the records of a picture's objects, once they decode to its labels.

    It raises `ExportError` if they do not.

    Parameters
    ----------
    path
        The file that they go to.
    item, classes
        The picture, and the classes of its labels.
    encode, decode
        Return the record of an object, and the mask of a record, (H, W).
    """
    records: list[_Record] = []
    height, width = item.labels.shape
    drawn = np.zeros((height, width), np.uint16)
    for entry, region in find_objects(item.labels, item.instances, classes)[1]:
        mask = np.asarray(region.image, bool)
        record = encode(Object(entry, region.slice, mask, (height, width)))
        drawn[decode(record, (height, width))] = entry.id
        records.append(record)
    check_same(path, drawn, np.where(item.labels == IGNORE, 0, item.labels))
    return records


def hex_color(color: tuple[int, int, int]) -> str:
    """Return a colour as "#rrggbb"."""
    return "#" + bytes(color).hex()


def check_lines(classes: Sequence[LabelClass], form: str, what: str) -> None:
    """Raise ValueError where the name of a class has signs that a text cannot hold."""
    for entry in classes:
        if any(ord(sign) < 32 or 0xD800 <= ord(sign) < 0xE000 for sign in entry.name):
            raise ValueError(
                f"class {entry.name!r} cannot be written to the {what} of {form!r}; "
                "rename it without line breaks and control characters"
            )
