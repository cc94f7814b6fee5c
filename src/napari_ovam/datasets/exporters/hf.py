"""Hugging Face `datasets`: an imagefolder with masks.

    train/images/NAME.png   train/masks/NAME.png   train/metadata.jsonl
    id2label.json   (if split: validation/ and test/ beside train/)

`load_dataset(FOLDER)` gives the columns `image` and `mask`, and `ovam`, a JSON text,
where it is known what made them. Mask pixels are class ids,
0 = background, 255 = ignore, of 16 bits where a class id passes 255.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from napari_ovam.base.ids import BACKGROUND

from .dataset import ExportItem, LabelClass, save_json, save_lines, save_png
from .indices import ids_dtype

_FOLDERS = {"": "train", "train": "train", "val": "validation", "test": "test"}


class HfWriter:
    """Writes the format "hf"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        self.folder = folder
        self.classes = classes
        self.dtype = ids_dtype(classes)
        self.rows: dict[str, list[str]] = {}

    def add(self, item: ExportItem) -> None:
        """Write one image and its mask."""
        split = _FOLDERS[item.split]
        folder = self.folder / split
        image, mask = f"images/{item.file}", f"masks/{item.file}"
        save_png(folder / image, item.image)
        save_png(folder / mask, item.labels.astype(self.dtype))
        row = {"file_name": image, "mask_file_name": mask}
        if item.provenance is not None:
            # As text: its fields differ from image to image, and columns may not.
            made = dict(item.provenance)
            row["ovam"] = json.dumps(made, ensure_ascii=False, sort_keys=True)
        self.rows.setdefault(split, []).append(json.dumps(row, ensure_ascii=False))

    def finish(self) -> None:
        """Write each `metadata.jsonl`, and `id2label.json`."""
        for split, rows in self.rows.items():
            save_lines(self.folder / split / "metadata.jsonl", rows)
        names = {str(BACKGROUND): "background"}
        names |= {str(entry.id): entry.name for entry in self.classes}
        save_json(self.folder / "id2label.json", names)
