"""Pascal VOC: palette PNGs of class ids and of objects.

    JPEGImages/NAME.jpg   SegmentationClass/NAME.png   SegmentationObject/NAME.png
    ImageSets/Segmentation/train.txt ...   labelmap.txt

Readers open `.jpg` by name, so the images are JPEGs (quality 95, colour not halved);
the masks are exact. 0 is the background and 255 ignore, in both PNGs. An object is a
connected part (diagonal neighbours are connected) of a class.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_ovam.base.ids import BACKGROUND, IGNORE

from .coco import connected_parts
from .dataset import ExportItem, LabelClass, check_same, save_lines, save_png
from .indices import check_reserved
from .palette import voc_palette

_FORM = "voc"
_LISTS = {"": "train", "train": "train", "val": "val", "test": "test"}


class VocWriter:
    """Writes the format "voc"."""

    def __init__(self, folder: Path, classes: Sequence[LabelClass]) -> None:
        for entry in classes:
            _check_class(entry)
        check_reserved(classes, _FORM, ("background", "ignored"))
        self.folder = folder
        self.classes = classes
        self.palette = voc_palette()
        self.lists: dict[str, list[str]] = {}
        (folder / "JPEGImages").mkdir()

    def add(self, item: ExportItem) -> None:
        """Write one image, its classes and its objects."""
        if item.name != item.name.strip():
            raise ValueError(
                f"item {item.name!r} starts with a space, which readers of {_FORM!r} "
                "take off; rename it"
            )
        labels = item.labels.astype(np.uint8)
        objects = connected_parts(labels)
        if objects.max() >= IGNORE:
            raise ValueError(
                f"item {item.name!r} has {objects.max()} connected parts; {_FORM!r} "
                "holds 254 objects an image: erase specks, or choose 'indexed'"
            )
        objects[labels == IGNORE] = IGNORE
        _save_jpeg(self.folder / "JPEGImages" / f"{item.name}.jpg", item.image)
        palette = self.palette.tobytes()
        for kind, pixels in (("Class", labels), ("Object", objects.astype(np.uint8))):
            path = self.folder / f"Segmentation{kind}" / item.file
            save_png(path, pixels, palette)
        self.lists.setdefault(_LISTS[item.split], []).append(item.name)

    def finish(self) -> None:
        """Write the lists of names and `labelmap.txt`."""
        folder = self.folder / "ImageSets" / "Segmentation"
        lists = self.lists
        lists["trainval"] = lists.get("train", []) + lists.get("val", [])
        for name, items in lists.items():
            save_lines(folder / f"{name}.txt", items)
        rows = [
            (BACKGROUND, "background"),
            *((entry.id, entry.name) for entry in self.classes),
            (IGNORE, "ignored"),
        ]
        lines = ["# label:color_rgb:parts:actions"]
        for number, name in rows:
            color = ",".join(map(str, self.palette[number].tolist()))
            lines.append(f"{name}:{color}::")
        save_lines(self.folder / "labelmap.txt", lines)


def _check_class(entry: LabelClass) -> None:
    if entry.id > IGNORE:
        raise ValueError(
            f"class {entry.name!r} has the id {entry.id}; {_FORM!r} holds ids up to "
            "254 in its 8-bit PNGs: choose 'indexed', or give it a smaller id"
        )
    name = entry.name
    lines = name.splitlines()
    if ":" in name or name[0] == "#" or name != name.strip() or len(lines) > 1:
        raise ValueError(
            f"class {name!r} cannot be written to the labelmap.txt of {_FORM!r}; "
            "rename it without colons, line breaks, spaces at its ends and a # in front"
        )


def _save_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) array as JPEG; compare what decodes with and without disk."""
    code = BytesIO()
    Image.fromarray(pixels).save(code, format="JPEG", quality=95, subsampling=0)
    path.write_bytes(code.getvalue())
    with Image.open(path) as written, Image.open(code) as expected:
        check_same(path, np.asarray(written), np.asarray(expected))
        check_same(path, np.array(written.size), np.array(pixels.shape[1::-1]))
