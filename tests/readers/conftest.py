"""Exports of hard masks, to be read by programs that this project did not write.

Each module takes one family of readers and is skipped where they are not installed:
tox has an environment for each. None of them needs torch or napari.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from napari_ovam.datasets.exporters import ExportItem, export_dataset

from .hard_masks import CLASSES, Export, Masks, make_masks


@pytest.fixture(scope="session")
def masks() -> Masks:
    """Labels of several images by name, (H, W) each; 255 is ignore."""
    return make_masks()


@pytest.fixture(scope="session")
def images(masks: Masks) -> Masks:
    """Images of the masks by name, (H, W, 3) uint8 noise."""
    random = np.random.default_rng(1)
    return {
        name: random.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
        for name, labels in masks.items()
    }


@pytest.fixture(scope="session")
def export(
    masks: Masks, images: Masks, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    """Return `export(form, split=False)`: the folder of an export of all masks.

    Each is written once; the tests only read.
    """

    @cache
    def write(form: str, *, split: bool = False) -> Path:
        splits = ["train", "val", "test"] if split else [""]
        items = [
            ExportItem(name, images[name], labels, splits[i % len(splits)])
            for i, (name, labels) in enumerate(masks.items())
        ]
        folder = tmp_path_factory.mktemp(form) / "export"
        return export_dataset(items, CLASSES, folder, [form]) / form

    return write
