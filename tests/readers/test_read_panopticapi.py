"""panopticapi: the format "coco-panoptic", by its rule of ids and its score."""

import json

import numpy as np
import pytest
from PIL import Image

from .hard_masks import IDS, NAMES, Export, Masks, visible

pytest.importorskip("panopticapi")
from panopticapi.evaluation import pq_compute
from panopticapi.utils import rgb2id


def test_segments(export: Export, masks: Masks) -> None:
    folder = export("coco-panoptic")
    content = json.loads((folder / "panoptic.json").read_text("utf-8"))
    assert [c["id"] for c in content["categories"]] == IDS
    assert [c["name"] for c in content["categories"]] == NAMES
    assert [c["isthing"] for c in content["categories"]] == [1, 1, 1, 1, 0]
    found = {}
    for annotation in content["annotations"]:
        with Image.open(folder / "panoptic" / annotation["file_name"]) as png:
            ids = rgb2id(np.array(png, np.uint32))
        labels = np.zeros(ids.shape, np.uint8)
        for segment in annotation["segments_info"]:
            assert segment["area"] == (ids == segment["id"]).sum()
            labels[ids == segment["id"]] = segment["category_id"]
        found[annotation["file_name"].removesuffix(".png")] = labels
    assert found.keys() == masks.keys()
    for name, labels in masks.items():
        np.testing.assert_array_equal(found[name], visible(labels), err_msg=name)


@pytest.mark.parametrize("split", [False, True])
def test_an_export_scored_against_itself_is_perfect(
    export: Export, split: bool
) -> None:
    """The score also checks that the ids of PNG and JSON are the same."""
    folder = export("coco-panoptic", split=split)
    for end in ("_train", "_val", "_test") if split else ("",):
        path = str(folder / f"panoptic{end}.json")
        score = pq_compute(path, path)
        assert score["All"]["pq"] == 1
        assert score["All"]["n"] > 0
        if not split:
            used = [i for i in IDS if score["per_class"][i]["pq"] == 1]
            assert used == [2, 9, 254]
            assert (score["Things"]["n"], score["Stuff"]["n"]) == (2, 1)
