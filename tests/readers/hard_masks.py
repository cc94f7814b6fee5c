"""Labels that readers get wrong, the classes of them, and how near two maps are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_ovam.datasets.exporters import ExportItem, LabelClass

CLASSES = [
    LabelClass(2, "cat", (255, 0, 0)),
    LabelClass(7, "never used", (1, 2, 3)),
    LabelClass(9, "Hütchen, 'a \"hat\"'", (0, 255, 0)),
    LabelClass(254, "sky", (0, 0, 255), thing=False),
    LabelClass(11, "also never used"),
]
IDS = sorted(entry.id for entry in CLASSES)
NAMES = [entry.name for entry in sorted(CLASSES, key=lambda entry: entry.id)]
IGNORE = 255

Export = Callable[..., Path]
Masks = dict[str, np.ndarray]


def make_masks() -> Masks:
    """Labels of several images by name, (H, W) each; 255 is ignore."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :40]
    discs = np.zeros((48, 40), np.uint8)
    for i, (row, column, radius) in enumerate([(12, 10, 9), (30, 22, 14), (8, 33, 6)]):
        distance = np.hypot(rows - row, columns - column)
        discs[distance < radius] = (2, 9, 254)[i]
        discs[abs(distance - radius) < 1] = IGNORE  # as VOC marks borders
        discs[distance < 2] = 0
    diagonal = np.eye(14, dtype=np.uint8) * 9
    diagonal[0, 13] = 2
    checker = np.zeros((20, 24), np.uint8)
    checker[::2, ::2] = 2  # 120 objects of one pixel
    checker[1::2, 1::2][:4] = 9
    speckles = random.choice(
        np.array([0, 2, 9, 254, IGNORE], np.uint8),
        (24, 31),
        p=[0.5, 0.2, 0.1, 0.1, 0.1],
    )
    return {
        "rings": _rings(),
        "discs.v2": discs,
        "ein Kätzchen (2)": diagonal,
        "checker": checker,
        "speckles": speckles,
        "all one class": np.full((12, 17), 254, np.uint8),
        "only background": np.zeros((16, 14), np.uint8),
        "all unsure": np.full((13, 12), IGNORE, np.uint8),
    }


def _rings() -> np.ndarray:
    """Holes, islands, thin and one-pixel objects, corners that touch; not square."""
    labels = np.zeros((37, 50), np.uint8)
    labels[2:30, 2:30] = 2
    labels[4:6, 4:6] = labels[8:24, 8:24] = 0  # two holes
    labels[6, 6] = labels[7, 7] = 0  # joined by their corners only
    labels[11:21, 11:21] = 9  # an island in a hole
    labels[14:18, 14:18] = 0  # with a hole
    labels[15, 15] = 2  # and one pixel in that
    labels[0, 49] = labels[36, 0] = 254  # one pixel in a corner of the image
    labels[36, 8:40] = labels[4:25, 48] = 9  # thin, at the border
    labels[30:36, 42:46] = IGNORE
    labels[32, 43] = 2  # one pixel among ignored ones
    labels[10:12, 27:40] = IGNORE  # cuts into the ring
    return labels


def wide_item() -> tuple[ExportItem, list[LabelClass]]:
    """Return labels that need 16 bits, and their classes."""
    labels = np.zeros((19, 23), np.uint16)
    labels[2:9, 2:9] = 300
    labels[4:6, 4:6] = IGNORE
    labels[12, 12] = labels[18, 22] = 65535
    labels[14:17, :5] = 7
    classes = [LabelClass(i, f"class {i}") for i in (7, 300, 301, 65535)]
    return ExportItem("wide", np.full((19, 23, 3), 90, np.uint8), labels), classes


def visible(labels: np.ndarray) -> np.ndarray:
    """Return the labels as a format without an ignore label holds them."""
    return np.where(labels == IGNORE, 0, labels)


def lowest_iou(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the lowest IoU of any class, 1 where there is none."""
    ids = (set(np.unique(found)) | set(np.unique(expected))) - {0, IGNORE}
    return min(
        (
            ((found == i) & (expected == i)).sum()
            / ((found == i) | (expected == i)).sum()
            for i in ids
        ),
        default=1.0,
    )
