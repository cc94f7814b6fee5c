"""PNGs whose pixels are class ids, with `classes.json`.

The form that most tools read (MMSegmentation, ADE20K): grey PNGs of 8 bits; of 16 bits
where a class id passes 255. Palette PNGs would turn into RGB in cv2 and skimage.

    images/NAME.png   labels/NAME.png   classes.json
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .dataset import (
    BACKGROUND,
    IGNORE,
    ExportError,
    ExportItem,
    LabelClass,
    save_png,
)


class IndexedWriter:
    """Writes the format "indexed"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        self.folder = folder
        self.classes = classes
        wide = any(entry.id > 255 for entry in classes)
        self.dtype = np.dtype(np.uint16 if wide else np.uint8)
        for name in ("images", "labels"):
            (folder / name).mkdir()

    def add(self, item: ExportItem) -> None:
        """Write one image and its labels."""
        file = f"{item.name}.png"
        save_png(self.folder / "images" / file, item.image)
        save_png(self.folder / "labels" / file, item.labels.astype(self.dtype))

    def finish(self) -> None:
        """Write `classes.json`."""
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
                for c in self.classes
            ],
        }
        path = self.folder / "classes.json"
        path.write_text(
            json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8"
        )
        if json.loads(path.read_text(encoding="utf-8")) != content:
            msg = f"{path.name} reads back differently; export again"
            raise ExportError(msg)
