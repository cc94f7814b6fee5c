"""LabelMe: the format "labelme", and files that it writes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_ovam.datasets.importers import UNSURE, open_source

from .hard_masks import IDS, IGNORE, NAMES, Export, Masks

labelme = pytest.importorskip("labelme")


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The classes and objects that LabelMe sees in a JSON, and its picture."""
    file = labelme.LabelFile(str(path))
    pixels = labelme.utils.img_data_to_arr(file.image_data)
    values = dict(zip(NAMES, IDS, strict=True)) | {"__ignore__": IGNORE}
    labels, objects = labelme.utils.shapes_to_label(pixels.shape, file.shapes, values)
    assert file.image_path == f"{path.stem}.png"
    return labels, objects, pixels


def test_labelme(export: Export, masks: Masks, images: Masks) -> None:
    folder = export("labelme")
    for name, expected in masks.items():
        labels, objects, pixels = read(folder / f"{name}.json")
        np.testing.assert_array_equal(labels, expected, err_msg=name)
        np.testing.assert_array_equal(pixels, images[name])
        assert name != "checker" or objects.max() >= 120
    names = (folder / "labels.txt").read_text("utf-8").splitlines()
    assert names == ["__ignore__", "_background_", *NAMES]


def test_splits_are_folders(export: Export, masks: Masks) -> None:
    folder = export("labelme", split=True)
    files = {path.stem: path for path in folder.glob("*/*.json")}
    assert files.keys() == masks.keys()
    for name, path in files.items():
        np.testing.assert_array_equal(read(path)[0], masks[name])


@pytest.mark.parametrize("embedded", [False, True])
def test_what_labelme_writes_is_read(
    masks: Masks, images: Masks, tmp_path: Path, embedded: bool
) -> None:
    """Masks exactly, polygons as far as the two rules of drawing agree."""
    for name in ("rings", "discs.v2"):
        image, labels = images[name], masks[name]
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        shapes = []
        for value in sorted(set(np.unique(labels)) - {0}):
            mask = labels == value
            (top, bottom), (left, right) = (
                np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0)
            )
            box = mask[top : bottom + 1, left : right + 1]
            label = "__ignore__" if value == IGNORE else NAMES[IDS.index(value)]
            shapes.append(
                {
                    "label": label,
                    "points": [[left, top], [right, bottom]],
                    "shape_type": "mask",
                    "group_id": None,
                    "description": "",
                    "flags": {},
                    "mask": labelme.utils.img_arr_to_b64(box.astype(np.uint8)),
                }
            )
        labelme.LabelFile().save(
            str(tmp_path / f"{name}.json"),
            shapes=shapes,
            image_path=f"{name}.png",
            image_height=labels.shape[0],
            image_width=labels.shape[1],
            image_data=(tmp_path / f"{name}.png").read_bytes() if embedded else None,
        )
        if embedded:
            (tmp_path / f"{name}.png").unlink()
    source = open_source(tmp_path, "labelme")
    assert not source.problems
    table = np.array([0, *(IDS[NAMES.index(c.name)] for c in source.classes), IGNORE])
    assert len(source.pictures) == 2
    for picture in source.pictures:
        found = picture.read_masks()
        assert not found.problems
        name = Path(picture.path).name.removesuffix(".png")
        np.testing.assert_array_equal(table[found.places], masks[name])
        assert ((found.places == UNSURE) == (masks[name] == IGNORE)).all()
        np.testing.assert_array_equal(picture.read_image(), images[name])


def test_polygons_agree_but_for_their_outlines(tmp_path: Path) -> None:
    """LabelMe also fills the pixels that an outline runs through."""
    random = np.random.default_rng(0)
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "a.png")
    angles = np.sort(random.random(9)) * 2 * np.pi
    radius = random.uniform(15, 28, 9)
    points = np.stack([40 + radius * np.cos(angles), 30 + radius * np.sin(angles)], 1)
    shape = {"label": "x", "points": points.tolist(), "shape_type": "polygon"}
    labelme.LabelFile().save(
        str(tmp_path / "a.json"),
        shapes=[shape],
        image_path="a.png",
        image_height=60,
        image_width=80,
    )
    theirs = labelme.utils.shape_to_mask((60, 80), points.tolist(), "polygon")
    ours = open_source(tmp_path, "labelme").pictures[0].read_masks().places == 1
    from scipy.ndimage import binary_dilation, binary_erosion

    assert (ours & ~binary_dilation(theirs)).sum() == 0
    assert (binary_erosion(theirs, np.ones((3, 3))) & ~ours).sum() == 0
