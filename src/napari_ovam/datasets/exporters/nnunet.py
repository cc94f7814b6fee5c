"""nnU-Net v2: consecutive ids and one JSON.

    imagesTr/NAME_0000.png   labelsTr/NAME.png   dataset.json
    (if split: imagesTs, labelsTs, and splits_final.json for the preprocessed folder)

The background is 0, classes count from 1 in the order of their ids, and the ignore
label, where any pixel has it, is the highest. `_0000` is the only file of an RGB image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_ovam.base.ids import BACKGROUND

from .dataset import ExportItem, LabelClass, save_json, save_png
from .indices import check_reserved, index_table

_FORM = "nnunet"


class NnunetWriter:
    """Writes the format "nnunet"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        check_reserved(classes, _FORM, ("background", "ignore"))
        self.folder = folder
        self.classes = classes
        self.ignore = len(classes) + 1
        self.table = index_table(classes, _FORM, ignore=self.ignore)
        self.ignored = False
        self.names: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for name in ("imagesTr", "labelsTr"):
            (folder / name).mkdir()

    def add(self, item: ExportItem) -> None:
        """Write one image and its labels."""
        part = "Ts" if item.split == "test" else "Tr"
        images, labels = (
            self.folder / f"{kind}{part}" for kind in ("images", "labels")
        )
        save_png(images / f"{item.name}_0000.png", item.image)
        save_png(labels / item.file, self.table[item.labels])
        self.ignored |= item.ignored > 0
        self.names[item.split or "train"].append(item.name)

    def finish(self) -> None:
        """Write `dataset.json`, and `splits_final.json` where images validate."""
        labels = {"background": BACKGROUND}
        labels |= {c.name: index for index, c in enumerate(self.classes, start=1)}
        if self.ignored:
            labels["ignore"] = self.ignore
        train, val = self.names["train"], self.names["val"]
        content: dict[str, Any] = {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": labels,
            "numTraining": len(train) + len(val),
            "file_ending": ".png",
            "description": "napari-ovam",
            "class_ids": {c.name: c.id for c in self.classes},
        }
        save_json(self.folder / "dataset.json", content)
        if val:
            folds = [{"train": train, "val": val}]
            save_json(self.folder / "splits_final.json", folds)
