"""Label Studio's SDK and converter: the format "label-studio", and what it writes."""

import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from napari_ovam.datasets.importers import open_source
from napari_ovam.datasets.mask_codes import decode_brush, encode_brush

from .hard_masks import IDS, NAMES, Export, Masks, visible

pytest.importorskip("label_studio_sdk")
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface


def read(path: Path, masks: Masks, images: Masks) -> set[str]:
    """Compare what the converter sees in a JSON; return the names of pictures."""
    found = set()
    for task in json.loads(path.read_text("utf-8")):
        address = task["data"]["image"]
        name = unquote(address.partition("?d=images/")[2]).removesuffix(".png")
        with Image.open(path.parent / "images" / f"{name}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), images[name])
        labels = np.zeros(masks[name].shape, np.uint8)
        for result in task["annotations"][0]["result"]:
            about = {**result, **result["value"]}
            layers = brush.decode_from_annotation("label", [about])
            (alpha,) = layers.values()
            assert set(np.unique(alpha)) <= {0, 255}
            assert not labels[alpha > 0].any()
            (label,) = result["value"]["brushlabels"]
            labels[alpha > 0] = IDS[NAMES.index(label)]
        np.testing.assert_array_equal(labels, visible(masks[name]), err_msg=name)
        found.add(name)
    return found


def test_label_studio(export: Export, masks: Masks, images: Masks) -> None:
    folder = export("label-studio")
    assert read(folder / "tasks.json", masks, images) == masks.keys()


def test_splits(export: Export, masks: Masks, images: Masks) -> None:
    folder = export("label-studio", split=True)
    found = [
        read(folder / f"tasks_{split}.json", masks, images)
        for split in ("train", "val", "test")
    ]
    assert sorted(name for names in found for name in names) == sorted(masks)


def test_the_label_config_is_one_and_fits_the_tasks(export: Export) -> None:
    folder = export("label-studio")
    interface = LabelInterface((folder / "label_config.xml").read_text("utf-8"))
    assert list(interface.get_control("label").labels) == NAMES
    for task in json.loads((folder / "tasks.json").read_text("utf-8")):
        assert interface.validate_task({"data": task["data"]}) in (True, [])
        for annotation in task["annotations"]:
            assert interface.validate_annotation(annotation) in (True, [])


def test_brush_codes_are_those_of_label_studio(masks: Masks) -> None:
    for labels in masks.values():
        for value in set(np.unique(labels)) - {0}:
            mask = labels == value
            theirs = brush.mask2rle(mask.astype(np.uint8) * 255)
            np.testing.assert_array_equal(decode_brush(theirs, mask.shape), mask)
            ours = encode_brush(mask)
            pixels = brush.decode_rle(ours).reshape(*mask.shape, 4)
            np.testing.assert_array_equal(pixels[..., 3] > 0, mask)
            assert theirs[: len(ours)] == ours


def test_codes_with_single_values_are_read() -> None:
    """As browsers write soft borders of a brush."""
    random = np.random.default_rng(0)
    pixels = random.choice([0, 0, 0, 7, 255], (9, 11, 4)).astype(np.uint8)
    code = brush.encode_rle(pixels.ravel())
    found = decode_brush(code, (9, 11))
    np.testing.assert_array_equal(found, pixels[..., 3] > 0)


def test_what_label_studio_writes_is_read(
    masks: Masks, images: Masks, tmp_path: Path
) -> None:
    tasks = []
    for number, (name, labels) in enumerate(masks.items()):
        Image.fromarray(images[name]).save(tmp_path / f"{name}.png")
        results = []
        for value in sorted(set(np.unique(labels)) & set(IDS)):
            mask = tmp_path / "mask.png"
            Image.fromarray(((labels == value) * 255).astype(np.uint8)).save(mask)
            label = NAMES[IDS.index(value)]
            made = brush.image2annotation(str(mask), label, "tag", "image")
            results += made["result"]
        (tmp_path / "mask.png").unlink(missing_ok=True)
        address = f"/data/upload/1/{number:08x}-{name}.png"
        tasks.append(
            {
                "id": number,
                "data": {"image": address},
                "annotations": [{"id": number, "result": results}],
            }
        )
    (tmp_path / "project-1.json").write_text(json.dumps(tasks), "utf-8")
    source = open_source(tmp_path, "label-studio")
    assert not source.problems
    table = np.array([0, *(IDS[NAMES.index(c.name)] for c in source.classes)])
    assert len(source.pictures) == len(masks)
    for picture in source.pictures:
        if picture.mask_size is None:
            continue
        name = picture.path.removesuffix(".png")
        found = picture.read_masks()
        assert not found.problems
        np.testing.assert_array_equal(table[found.places], visible(masks[name]))
