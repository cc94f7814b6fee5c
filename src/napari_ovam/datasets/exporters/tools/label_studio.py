"""Label Studio: one JSON of tasks, with a brush mask for each object.

    images/NAME.png   tasks.json, or tasks_train.json ... if split   label_config.xml

A mask is a run-length code of RGBA pixels, exact. Pictures are named as files that
Label Studio serves (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT is the folder). It has no
ignore label: unsure pixels belong to no mask.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_ovam.datasets.exporters.coco import json_name
from napari_ovam.datasets.exporters.dataset import (
    ExportItem,
    LabelClass,
    save_json,
    save_png,
)
from napari_ovam.datasets.mask_codes import decode_brush, encode_brush

from .cvat import save_xml
from .objects import Object, check_lines, encode_objects, hex_color

_FORM = "label-studio"


class LabelStudioWriter:
    """Writes the format "label-studio"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        check_lines(classes, _FORM, "label_config.xml")
        self.folder = folder
        self.classes = classes
        self.tasks: dict[str, list[dict[str, Any]]] = {}

    def add(self, item: ExportItem) -> None:
        """Write one image and encode its objects."""
        save_png(self.folder / "images" / item.file, item.image)
        results = encode_objects(
            self.folder / "tasks.json",
            *(item, self.classes),
            partial(encode_result, picture=item.name),
            decode_result,
        )
        address = f"/data/local-files/?d={quote(f'images/{item.file}')}"
        task = {"data": {"image": address}, "annotations": [{"result": results}]}
        self.tasks.setdefault(item.split, []).append(task)

    def finish(self) -> None:
        """Write the tasks, and the labels with their colours."""
        for split, tasks in self.tasks.items():
            save_json(self.folder / json_name("tasks", split), tasks)
        view = ElementTree.Element("View")
        about = {"name": "image", "value": "$image"}
        ElementTree.SubElement(view, "Image", about)
        about = {"name": "label", "toName": "image"}
        labels = ElementTree.SubElement(view, "BrushLabels", about)
        for entry in self.classes:
            color = {"background": hex_color(entry.color)} if entry.color else {}
            ElementTree.SubElement(labels, "Label", {"value": entry.name, **color})
        save_xml(self.folder / "label_config.xml", view)


def encode_result(each: Object, picture: str = "") -> dict[str, Any]:
    """Return an object as a result of a brush; its id is made of picture and place."""
    code = encode_brush(each.whole())
    about = f"{picture}/{each.entry.name}/{code}"
    height, width = each.size
    return {
        "id": sha256(about.encode(errors="surrogatepass")).hexdigest()[:10],
        "type": "brushlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": code, "brushlabels": [each.entry.name]},
    }


def decode_result(result: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a result of a brush, (H, W).

    It raises `ValueError` if it is broken.
    """
    value = result["value"]
    if value.get("format", "rle") != "rle":
        raise ValueError(f"its format is {value['format']!r}, and not 'rle'")
    return decode_brush(value["rle"], size)
