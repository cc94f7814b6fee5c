"""datumaro: the formats of COCO, "voc", "cvat" and "datumaro"; what it writes itself.

It finds COCO's files by their usual names: links give the export's files these.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_ovam.datasets.importers import open_source

from .hard_masks import IDS, IGNORE, NAMES, Export, Masks, lowest_iou, visible

datumaro = pytest.importorskip("datumaro")


def read(dataset: Any, subset: str, masks: Masks, images: Masks | None) -> Masks:
    """Return the label maps that datumaro sees, by the names of the classes."""
    names = [c.name for c in dataset.categories()[datumaro.AnnotationType.label]]
    ids = dict(zip(NAMES, IDS, strict=True)) | {"ignored": IGNORE}
    found = {}
    for item in dataset.get_subset(subset):
        if images is not None:
            pixels = item.media.data[:, :, ::-1]
            np.testing.assert_array_equal(pixels, images[item.id])
        labels = np.zeros(masks[item.id].shape, np.uint8)
        for annotation in item.annotations:
            if annotation.type is not datumaro.AnnotationType.mask:
                continue
            assert not annotation.attributes.get("is_crowd")
            mask = np.asarray(annotation.image, bool)
            assert not labels[mask].any()
            labels[mask] = ids[names[annotation.label]]
        found[item.id] = labels
    assert found.keys() == masks.keys()
    return found


def as_coco(folder: Path, target: Path, kind: str, stem: str) -> Path:
    """Link an export's files where datumaro looks for them."""
    (target / "annotations").mkdir(parents=True)
    (target / "images").symlink_to(folder / "images")
    (target / f"annotations/{kind}_train.json").symlink_to(folder / f"{stem}.json")
    if (folder / stem).is_dir():
        (target / f"annotations/{kind}_train").symlink_to(folder / stem)
    return target


@pytest.mark.parametrize("form", ["coco", "coco-parts", "coco-polygons"])
def test_coco(
    export: Export, masks: Masks, images: Masks, tmp_path: Path, form: str
) -> None:
    folder = as_coco(export(form), tmp_path / "coco", "instances", "annotations")
    dataset = datumaro.Dataset.import_from(str(folder), "coco_instances")
    labels = dataset.categories()[datumaro.AnnotationType.label]
    assert [entry.name for entry in labels] == NAMES
    if form == "coco-polygons":
        dataset.transform("polygons_to_masks")
    found = read(dataset, "train", masks, images)
    for name, expected in masks.items():
        assert lowest_iou(found[name], visible(expected)) == 1, name


def test_panoptic(export: Export, masks: Masks, images: Masks, tmp_path: Path) -> None:
    folder = as_coco(export("coco-panoptic"), tmp_path / "coco", "panoptic", "panoptic")
    dataset = datumaro.Dataset.import_from(str(folder), "coco_panoptic")
    labels = dataset.categories()[datumaro.AnnotationType.label]
    assert [entry.name for entry in labels] == NAMES
    found = read(dataset, "train", masks, images)
    for name, expected in masks.items():
        np.testing.assert_array_equal(found[name], visible(expected), err_msg=name)


def test_voc(export: Export, masks: Masks) -> None:
    dataset = datumaro.Dataset.import_from(str(export("voc")), "voc_segmentation")
    labels = dataset.categories()[datumaro.AnnotationType.label]
    assert [entry.name for entry in labels] == ["background", *NAMES, "ignored"]
    for subset in ("train", "trainval"):
        found = read(dataset, subset, masks, None)  # its images are JPEGs
        for name, expected in masks.items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("form", ["cvat", "datumaro"])
def test_tools(
    export: Export, masks: Masks, images: Masks, form: str, split: bool
) -> None:
    dataset = datumaro.Dataset.import_from(str(export(form, split=split)), form)
    labels = dataset.categories()[datumaro.AnnotationType.label]
    assert [entry.name for entry in labels] == NAMES
    subsets = list(dataset.subsets())
    assert (sorted(subsets) == ["test", "train", "val"]) == split
    found = {}
    for subset in subsets:
        items = {item.id for item in dataset.get_subset(subset)}
        there = {name: labels for name, labels in masks.items() if name in items}
        found |= read(dataset, subset, there, images)
    assert found.keys() == masks.keys()
    for name, expected in masks.items():
        np.testing.assert_array_equal(found[name], visible(expected), err_msg=name)


@pytest.mark.parametrize("kind", ["mask", "polygon"])
@pytest.mark.parametrize("form", ["cvat", "datumaro"])
def test_what_datumaro_writes_is_read(
    masks: Masks, images: Masks, tmp_path: Path, form: str, kind: str
) -> None:
    """Masks, and polygons as datumaro draws them itself."""
    from datumaro.plugins.transforms import PolygonsToMasks

    items, expected = [], {}
    for name in ("rings", "discs.v2"):
        height, width = masks[name].shape
        annotations = []
        labels = np.zeros((height, width), np.uint8)
        for number, value in enumerate(IDS):
            mask = masks[name] == value
            if not mask.any():
                continue
            if kind == "mask":
                annotations.append(datumaro.Mask(mask, label=number, z_order=number))
            else:
                rows, columns = np.nonzero(mask)
                points = [columns.min(), rows.min(), columns.max(), rows.mean() + 0.3]
                points += [columns.mean() + 4.7, rows.max() + 1]
                each = datumaro.Polygon(
                    [round(4 * float(p)) / 4 for p in points],
                    label=number,
                    z_order=number,
                    group=7,
                )
                annotations.append(each)
                mask = PolygonsToMasks.convert_polygon(each, height, width).image > 0
            labels[mask] = value
        expected[name] = labels
        image = np.ascontiguousarray(images[name][:, :, ::-1])
        media = datumaro.Image.from_numpy(image, ext=".png")
        items.append(
            datumaro.DatasetItem(
                name,
                subset="train",
                media=media,
                annotations=annotations,
                attributes={"frame": len(items)},
            )
        )
    dataset = datumaro.Dataset.from_iterable(items, categories=NAMES)
    dataset.export(str(tmp_path / "out"), form, save_media=True, image_ext=".png")
    source = open_source(tmp_path / "out", form)
    assert not source.problems
    assert [entry.name for entry in source.classes] == NAMES
    assert len(source.pictures) == 2
    table = np.array([0, *IDS])
    for picture in source.pictures:
        name = Path(picture.path).name.removesuffix(".png")
        np.testing.assert_array_equal(picture.read_image(), images[name])
        found = table[picture.read_masks().places]
        np.testing.assert_array_equal(found, expected[name], err_msg=name)
