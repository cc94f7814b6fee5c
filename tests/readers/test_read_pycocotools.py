"""pycocotools: the masks of "coco", "coco-parts" and "coco-polygons"."""

import contextlib
import os

import numpy as np
import pytest
from PIL import Image

from .hard_masks import IDS, NAMES, Export, Masks, visible

pytest.importorskip("pycocotools")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FORMS = ["coco", "coco-parts", "coco-polygons"]


def load(path: os.PathLike[str]) -> COCO:
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):  # noqa: PTH123
        return COCO(path)


@pytest.mark.parametrize("form", FORMS)
def test_coco_masks(export: Export, masks: Masks, images: Masks, form: str) -> None:
    folder = export(form)
    coco = load(folder / "annotations.json")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == NAMES
    assert coco.getCatIds() == IDS
    found = {}
    for image in coco.loadImgs(coco.getImgIds()):
        name = image["file_name"].removesuffix(".png")
        with Image.open(folder / "images" / image["file_name"]) as png:
            np.testing.assert_array_equal(np.asarray(png), images[name])
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(
            coco.getAnnIds(imgIds=image["id"], iscrowd=False)
        ):
            mask = coco.annToMask(annotation) > 0
            assert annotation["area"] == mask.sum()
            assert not labels[mask].any()
            labels[mask] = annotation["category_id"]
        found[name] = labels
    assert found.keys() == masks.keys()
    for name, labels in masks.items():
        np.testing.assert_array_equal(found[name], visible(labels), err_msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_coco_splits(export: Export, masks: Masks, form: str) -> None:
    folder = export(form, split=True)
    names = []
    for split in ("train", "val", "test"):
        coco = load(folder / f"annotations_{split}.json")
        assert coco.getCatIds() == IDS
        for image in coco.loadImgs(coco.getImgIds()):
            name = image["file_name"].removesuffix(".png")
            names.append(name)
            found = np.zeros(masks[name].shape, np.uint8)
            for annotation in coco.imgToAnns[image["id"]]:
                found[coco.annToMask(annotation) > 0] = annotation["category_id"]
            np.testing.assert_array_equal(found, visible(masks[name]))
    assert sorted(names) == sorted(masks)


def test_an_export_scored_against_itself_is_perfect(export: Export) -> None:
    """What a benchmark makes of it: no annotation is skipped or lost."""
    truth = load(export("coco-parts") / "annotations.json")
    guesses = [
        {k: a[k] for k in ("image_id", "category_id", "segmentation")} | {"score": 1.0}
        for a in truth.dataset["annotations"]
    ]
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):  # noqa: PTH123
        score = COCOeval(truth, truth.loadRes(guesses), "segm")
        score.params.maxDets = [1, 10, 1000]
        score.evaluate()
        score.accumulate()
    recall = score.eval["recall"][:, :, 0, -1]
    used = recall[0] >= 0  # -1: no object of the class
    assert used.tolist() == [i in (2, 9, 254) for i in IDS]
    np.testing.assert_array_equal(recall[:, used], 1)
