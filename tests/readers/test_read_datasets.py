"""Hugging Face `datasets`: the imagefolder of "hf"."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_ovam.datasets.exporters import export_dataset

from .hard_masks import IDS, NAMES, Export, Masks, wide_item

# its module: tests/datasets passes for a package of that name

pytest.importorskip("datasets.load")

import datasets


def load(folder: Path, cache: Path) -> Any:
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def check(rows: Any, names: list[str], masks: Masks, images: Masks) -> None:
    assert len(rows) == len(names)
    left = set(names)
    for row in rows:
        name = next(
            n
            for n in left
            if images[n].shape[1::-1] == row["image"].size
            and np.array_equal(np.asarray(row["image"]), images[n])
        )
        left.remove(name)
        assert row["mask"].mode == "L"
        np.testing.assert_array_equal(
            np.asarray(row["mask"]), masks[name], err_msg=name
        )


def test_load_dataset(
    export: Export, masks: Masks, images: Masks, tmp_path: Path
) -> None:
    folder = export("hf")
    loaded = load(folder, tmp_path)
    assert set(loaded) == {"train"}
    assert {"image", "mask"} <= set(loaded["train"].features)
    check(loaded["train"], list(masks), masks, images)
    names = json.loads((folder / "id2label.json").read_text("utf-8"))
    assert names == {"0": "background"} | dict(zip(map(str, IDS), NAMES, strict=True))


def test_load_dataset_with_splits(
    export: Export, masks: Masks, images: Masks, tmp_path: Path
) -> None:
    loaded = load(export("hf", split=True), tmp_path)
    assert set(loaded) == {"train", "validation", "test"}
    for i, split in enumerate(("train", "validation", "test")):
        check(loaded[split], list(masks)[i::3], masks, images)


def test_ids_of_16_bits(tmp_path: Path) -> None:
    item, classes = wide_item()
    folder = export_dataset([item], classes, tmp_path / "o", ["hf"]) / "hf"
    (row,) = load(folder, tmp_path / "cache")["train"]
    np.testing.assert_array_equal(np.asarray(row["mask"]), item.labels)
