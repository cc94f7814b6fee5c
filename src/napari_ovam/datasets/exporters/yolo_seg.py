"""YOLO segmentation: one polygon a line.

    images/train/NAME.png   labels/train/NAME.txt   data.yaml   report.json
    (if split: val/ and test/ beside train/)

A line is a class and its points x y, as parts of the width and height. Classes count
from 0 in the order of their ids; the background is none. Each connected part of a class
is a polygon. Ignored pixels belong to no polygon: the format has no word for them.
`report.json` says how near the written polygons come to the masks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import ExportItem, LabelClass, save_json, save_png, save_text
from .polygons import LowestIou, compare, fill, outlines
from .yolo import save_data_yaml


class YoloSegWriter:
    """Writes the format "yolo-seg"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        self.folder = folder
        self.classes = classes
        self.splits: set[str] = set()
        self.polygons = 0
        self.ignored = 0
        self.worst: LowestIou | None = None

    def add(self, item: ExportItem) -> None:
        """Write one image and its polygons, draw them and compare with the masks."""
        split = item.split or "train"
        self.splits.add(split)
        save_png(self.folder / "images" / split / item.file, item.image)
        height, width = item.labels.shape
        lines = []
        present = {int(i) for i in np.unique(item.labels)}
        for index, entry in enumerate(self.classes):
            if entry.id not in present:
                continue
            for points in outlines(item.labels == entry.id):
                numbers = (points / (width, height)).ravel().tolist()
                lines.append(f"{index} {' '.join(f'{n:.6f}' for n in numbers)}\n")
        path = self.folder / "labels" / split / f"{item.name}.txt"
        text = save_text(path, "".join(lines))
        self.polygons += len(lines)
        self.ignored += item.ignored
        self._compare(item, text)

    def _compare(self, item: ExportItem, text: str) -> None:
        drawn = np.zeros(item.labels.shape, np.int64)
        for line in text.splitlines():
            index, *numbers = line.split()
            mask = _draw(np.array(numbers, np.float32), item.labels.shape)
            drawn[mask] = self.classes[int(index)].id
        names = {entry.id: entry.name for entry in self.classes}
        self.worst = compare(drawn, item.labels, names, item.name, self.worst)

    def finish(self) -> LowestIou | None:
        """Write `data.yaml` and `report.json`."""
        names = [entry.name for entry in self.classes]
        save_data_yaml(self.folder, names, self.splits)
        worst = self.worst
        report: dict[str, Any] = {
            "lowest_iou": worst and worst.iou,
            "image": worst and worst.image,
            "class": worst and worst.class_name,
            "polygons": self.polygons,
            "ignore_pixels": self.ignored,
        }
        save_json(self.folder / "report.json", report)
        return worst


def _draw(numbers: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    height, width = shape
    points = numbers.reshape(-1, 2) * np.array([width, height], np.float32)
    return fill(points, (height, width))
