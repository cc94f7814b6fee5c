"""Ultralytics: the formats "yolo-seg" and "yolo-semantic", by its own datasets."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .hard_masks import IDS, NAMES, Export, Masks, lowest_iou, visible

# Its settings file would be written to the user's folder otherwise.
os.environ.setdefault("YOLO_CONFIG_DIR", os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
ultralytics = pytest.importorskip("ultralytics")


def load(folder: Path, task: str, split: str = "train") -> tuple[Any, dict[str, Any]]:
    """Return the dataset that a trainer would build, without augmentation."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data import utils
    from ultralytics.data.build import build_yolo_dataset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "check_font", lambda name: None)  # it downloads fonts
        data = utils.check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    cfg = get_cfg(overrides={"task": task, "imgsz": 64, "fraction": 1.0})
    return build_yolo_dataset(cfg, data[split], 1, data, mode="val"), data


def check_images(dataset: Any, names: list[str], images: Masks) -> list[str]:
    from ultralytics.utils.patches import imread

    found = [Path(file).stem for file in dataset.im_files]
    assert sorted(found) == sorted(names)
    for i, name in enumerate(found):
        pixels = imread(dataset.im_files[i])[:, :, ::-1]
        np.testing.assert_array_equal(pixels, images[name], err_msg=name)
    return found


def draw(dataset: Any, index: int, shape: tuple[int, int]) -> np.ndarray:
    """Draw an image's polygons as the trainer's loss sees them, in full size."""
    from ultralytics.data.utils import polygon2mask

    label = dataset.labels[index]
    height, width = shape
    assert label["shape"] == shape
    labels = np.zeros(shape, np.uint8)
    for number, points in zip(label["cls"].ravel(), label["segments"], strict=True):
        corners = points.reshape(-1, 2) * np.array([width, height], np.float32)
        mask = polygon2mask(shape, [corners.ravel()], color=1, downsample_ratio=1) > 0
        assert not labels[mask].any()
        labels[mask] = IDS[int(number)]
    return labels


def test_segments(export: Export, masks: Masks, images: Masks) -> None:
    dataset, data = load(export("yolo-seg"), "segment")
    assert list(data["names"].values()) == NAMES
    for i, name in enumerate(check_images(dataset, list(masks), images)):
        found = draw(dataset, i, masks[name].shape)
        assert lowest_iou(found, visible(masks[name])) == 1, name


def test_segments_of_splits(export: Export, masks: Masks, images: Masks) -> None:
    folder = export("yolo-seg", split=True)
    for start, split in enumerate(("train", "val", "test")):
        dataset, _ = load(folder, "segment", split)
        for i, name in enumerate(check_images(dataset, list(masks)[start::3], images)):
            found = draw(dataset, i, masks[name].shape)
            assert lowest_iou(found, visible(masks[name])) == 1, name


def test_semantic(export: Export, masks: Masks, images: Masks) -> None:
    dataset, data = load(export("yolo-semantic"), "semantic")
    assert list(data["names"].values()) == ["background", *NAMES]
    table = np.arange(256)
    table[IDS] = range(1, len(IDS) + 1)
    for i, name in enumerate(check_images(dataset, list(masks), images)):
        found = dataset.load_mask(i)
        np.testing.assert_array_equal(found, table[masks[name]], err_msg=name)


def test_segments_as_semantic_masks(
    export: Export, masks: Masks, images: Masks
) -> None:
    """Its semantic task draws polygons itself; the background is the last class."""
    dataset, _ = load(export("yolo-seg"), "semantic")
    table = np.full(256, len(IDS))
    table[IDS] = range(len(IDS))
    for i, name in enumerate(check_images(dataset, list(masks), images)):
        found = dataset.load_mask(i, image_shape=masks[name].shape)
        np.testing.assert_array_equal(found, table[masks[name]], err_msg=name)
