"""COCO panoptic: PNGs of segment ids and one JSON that says what they are.

    images/NAME.png   panoptic/NAME.png   panoptic.json
    (if split: panoptic_train/NAME.png   panoptic_train.json ...)

A pixel's segment id is red + 256 green + 65536 blue; 0 is void. Each instance of a
thing is a segment (where an image has none, each connected part, diagonal neighbours
included), and each stuff class of an image is one. Background and ignored pixels are
void, which is neither trained nor scored; each image counts the ignored ones in
`ignore_pixels`. No segment is a crowd.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .coco import coco_content, find_objects, image_record, json_name
from .dataset import ExportItem, LabelClass, save_json, save_png
from .palette import voc_palette


class CocoPanopticWriter:
    """Writes the format "coco-panoptic"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        self.folder = folder
        self.classes = classes
        palette = voc_palette().tolist()
        # The format's own tools fail where a category has no colour.
        self.categories = [
            {
                "id": c.id,
                "name": c.name,
                "supercategory": "",
                "isthing": int(c.thing),
                "color": list(c.color) if c.color else palette[c.id % 256],
            }
            for c in classes
        ]
        self.images: dict[str, list[dict[str, Any]]] = {}
        self.annotations: dict[str, list[dict[str, Any]]] = {}
        self.count = 0

    def add(self, item: ExportItem) -> None:
        """Write one image and its segments."""
        folder = self.folder / Path(json_name("panoptic", item.split)).stem
        ids, segments = self._segments(item.labels, item.instances)
        save_png(self.folder / "images" / item.file, item.image)
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
        save_png(folder / item.file, rgb.astype(np.uint8))
        self.count += 1
        record = image_record(self.count, item)
        self.images.setdefault(item.split, []).append(record)
        self.annotations.setdefault(item.split, []).append(
            {"image_id": self.count, "file_name": item.file, "segments_info": segments}
        )

    def _segments(
        self,
        labels: NDArray[np.integer[Any]],
        instances: NDArray[np.integer[Any]] | None,
    ) -> tuple[NDArray[np.int64], list[dict[str, Any]]]:
        """Return each pixel's segment id, (H, W), and what the segments are."""
        ids, objects = find_objects(labels, instances, self.classes)
        segments: list[dict[str, Any]] = []
        for number, (entry, region) in enumerate(objects, start=1):
            top, left, bottom, right = map(int, region.bbox)
            segments.append(
                {
                    "id": number,
                    "category_id": entry.id,
                    "area": int(region.area),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
        return ids, segments

    def finish(self) -> None:
        """Write `panoptic.json`."""
        for split, images in self.images.items():
            content = coco_content(
                "they and the background are void (0)",
                self.categories,
                images,
                self.annotations[split],
            )
            save_json(self.folder / json_name("panoptic", split), content)
