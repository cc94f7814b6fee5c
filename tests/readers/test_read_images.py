"""OpenCV, scikit-image, imageio and Pillow: the PNGs of "indexed" and "voc"."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_ovam.datasets.exporters import export_dataset

from .hard_masks import Export, Masks, visible, wide_item

Read = Callable[[Path], np.ndarray]


def read_pillow(path: Path) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    with image.open(path) as file:
        return np.array(file)


def read_skimage(path: Path) -> np.ndarray:
    return pytest.importorskip("skimage.io").imread(path)


def read_imageio(path: Path) -> np.ndarray:
    return np.asarray(pytest.importorskip("imageio.v3").imread(path))


def read_cv2(path: Path) -> np.ndarray:
    """From bytes, as MMSegmentation does: cv2.imread knows no ä on Windows."""
    cv2 = pytest.importorskip("cv2")
    code = np.frombuffer(path.read_bytes(), np.uint8)
    return cv2.imdecode(code, cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("read", [read_pillow, read_skimage, read_imageio, read_cv2])
def test_indexed(export: Export, masks: Masks, images: Masks, read: Read) -> None:
    folder = export("indexed")
    assert {p.stem for p in (folder / "labels").iterdir()} == masks.keys()
    for name, labels in masks.items():
        found = read(folder / "labels" / f"{name}.png")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, labels, err_msg=name)
        image = read(folder / "images" / f"{name}.png")
        if read is read_cv2:
            image = image[:, :, ::-1]
        np.testing.assert_array_equal(image, images[name], err_msg=name)


@pytest.mark.parametrize("read", [read_pillow, read_skimage, read_imageio, read_cv2])
def test_ids_of_16_bits(tmp_path: Path, read: Read) -> None:
    item, classes = wide_item()
    folder = export_dataset([item], classes, tmp_path / "o", ["indexed"])
    found = read(folder / "indexed/labels/wide.png")
    np.testing.assert_array_equal(found, item.labels)


@pytest.mark.parametrize("form", ["hf", "yolo-semantic", "nnunet"])
def test_cv2_reads_the_masks_of_others_in_grey(
    export: Export, masks: Masks, form: str
) -> None:
    cv2 = pytest.importorskip("cv2")
    folder = export(form)
    places = {"hf": "train/masks", "yolo-semantic": "masks/train", "nnunet": "labelsTr"}
    table = np.arange(256)
    if form != "hf":
        table[[2, 7, 9, 11, 254]] = 1, 2, 3, 4, 5
        table[255] = 6 if form == "nnunet" else 255
    for name, labels in masks.items():
        code = np.frombuffer(
            (folder / places[form] / f"{name}.png").read_bytes(), np.uint8
        )
        for flag in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE):
            found = cv2.imdecode(code, flag)
            np.testing.assert_array_equal(found, table[labels], err_msg=name)


def test_voc_classes_with_pillow(export: Export, masks: Masks) -> None:
    folder = export("voc")
    names = (folder / "ImageSets/Segmentation/train.txt").read_text("utf-8")
    assert names.splitlines() == list(masks)
    for name, labels in masks.items():
        found = read_pillow(folder / "SegmentationClass" / f"{name}.png")
        np.testing.assert_array_equal(found, labels, err_msg=name)
        objects = read_pillow(folder / "SegmentationObject" / f"{name}.png")
        np.testing.assert_array_equal(
            (objects > 0) & (objects < 255), visible(labels) > 0
        )


@pytest.mark.parametrize("read", [read_skimage, read_cv2])
def test_voc_classes_by_colour(export: Export, masks: Masks, read: Read) -> None:
    """Readers that turn a palette into colours: `labelmap.txt` takes them back."""
    folder = export("voc")
    ids = {"background": 0, "cat": 2, "never used": 7, "also never used": 11}
    ids |= {"Hütchen, 'a \"hat\"'": 9, "sky": 254, "ignored": 255}
    table = {}
    for line in (folder / "labelmap.txt").read_text("utf-8").splitlines()[1:]:
        name, color, *_ = line.split(":")
        table[tuple(map(int, color.split(",")))] = ids.pop(name)
    assert not ids
    for name, labels in masks.items():
        colors = read(folder / "SegmentationClass" / f"{name}.png")
        if read is read_cv2:
            colors = colors[:, :, ::-1]
        found = [[table[tuple(color)] for color in row] for row in colors.tolist()]
        np.testing.assert_array_equal(found, labels, err_msg=name)
