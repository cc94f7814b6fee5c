"""PNGs whose pixels are class ids, with `classes.json`.

The form that most tools read (MMSegmentation, ADE20K): grey PNGs of 8 bits; of 16 bits
where a class id passes 255. Palette PNGs would turn into RGB in cv2 and skimage.

    images/NAME.png   labels/NAME.png   classes.json   splits/train.txt ... if split
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_ovam.base.ids import BACKGROUND, IGNORE

from .dataset import ExportItem, LabelClass, save_json, save_lines, save_png
from .indices import ids_dtype


class IndexedWriter:
    """Writes the format "indexed"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        self.folder = folder
        self.classes = classes
        self.dtype = ids_dtype(classes)
        self.splits: dict[str, list[str]] = {}

    def add(self, item: ExportItem) -> None:
        """Write one image and its labels."""
        save_png(self.folder / "images" / item.file, item.image)
        save_png(self.folder / "labels" / item.file, item.labels.astype(self.dtype))
        if item.split:
            self.splits.setdefault(item.split, []).append(item.name)

    def finish(self) -> None:
        """Write `classes.json`, and the names of each split."""
        content = {
            "background": BACKGROUND,
            "ignore": IGNORE,
            "bits": self.dtype.itemsize * 8,
            "classes": [
                {
                    "id": c.id,
                    "name": c.name,
                    "color": list(c.color) if c.color else None,
                }
                | ({} if c.thing else {"thing": False})
                for c in self.classes
            ],
        }
        save_json(self.folder / "classes.json", content)
        save_splits(self.folder, self.splits)


def save_splits(folder: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Write the names of each split, a line each, as `splits/train.txt` and so on."""
    for split, names in splits.items():
        save_lines(folder / "splits" / f"{split}.txt", names)


class HistoryWriter:
    """Writes where the labels of each item came from, where that is known.

    NAME.png is 16-bit and says which of the changes in NAME.json set a pixel; 0 is not
    known.
    """

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        del classes
        self.folder = folder

    def add(self, item: ExportItem) -> None:
        """Write which change set each pixel, and those changes."""
        if item.history is None:
            return
        sources, changes = item.history
        used, numbers = np.unique(sources, return_inverse=True)
        first = 0 if used[0] == 0 else 1
        numbers = numbers.reshape(sources.shape) + first
        save_png(self.folder / item.file, numbers.astype(np.uint16))
        kept = {
            str(number): dict(changes[int(source) - 1])
            for number, source in enumerate(used[1 - first :], start=1)
        }
        save_json(self.folder / f"{item.name}.json", kept)

    def finish(self) -> None:
        """Nothing describes all items."""
