"""YOLO semantic segmentation: grey PNGs of consecutive indices.

    images/train/NAME.png   masks/train/NAME.png   data.yaml
    (if split: val/ and test/ beside train/)

Every pixel needs a class here: 0 is the background, listed as a class of that name,
classes count from 1 in the order of their ids, and 255 is ignored.
"""

from collections.abc import Sequence
from pathlib import Path

from napari_ovam.base.ids import IGNORE

from .dataset import ExportItem, LabelClass, save_png
from .indices import check_reserved, index_table
from .yolo import save_data_yaml

_FORM = "yolo-semantic"


class YoloSemanticWriter:
    """Writes the format "yolo-semantic"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        check_reserved(classes, _FORM, ("background",))
        self.folder = folder
        self.names = ["background", *(entry.name for entry in classes)]
        self.table = index_table(classes, _FORM, ignore=IGNORE)
        self.splits: set[str] = set()

    def add(self, item: ExportItem) -> None:
        """Write one image and its mask."""
        split = item.split or "train"
        self.splits.add(split)
        save_png(self.folder / "images" / split / item.file, item.image)
        save_png(self.folder / "masks" / split / item.file, self.table[item.labels])

    def finish(self) -> None:
        """Write `data.yaml`."""
        more = {"masks_dir": "masks"}
        save_data_yaml(self.folder, self.names, self.splits, more)
