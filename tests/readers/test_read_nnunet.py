"""nnU-Net v2: the format "nnunet", by its own reader and its check of a dataset."""

import json
from pathlib import Path

import numpy as np
import pytest

from .hard_masks import IDS, NAMES, Export, Masks

pytest.importorskip("nnunetv2")


def table() -> np.ndarray:
    """Return the label of each class id: from 1 in order, ignore the highest."""
    labels = np.arange(256)
    labels[IDS] = range(1, len(IDS) + 1)
    labels[255] = len(IDS) + 1
    return labels


def test_cases(export: Export, masks: Masks, images: Masks) -> None:
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    folder = export("nnunet")
    content = json.loads((folder / "dataset.json").read_text("utf-8"))
    manager = LabelManager(content["labels"], None)
    assert manager.foreground_labels == list(range(1, len(IDS) + 1))
    assert manager.ignore_label == len(IDS) + 1
    assert list(content["labels"]) == ["background", *NAMES, "ignore"]
    cases = get_filenames_of_train_images_and_targets(str(folder))
    assert cases.keys() == masks.keys()
    assert content["numTraining"] == len(cases)
    reader = NaturalImage2DIO()
    for name, case in cases.items():
        pixels, _ = reader.read_images(case["images"])
        np.testing.assert_array_equal(
            pixels[:, 0].transpose(1, 2, 0), images[name], err_msg=name
        )
        labels, _ = reader.read_seg(case["label"])
        np.testing.assert_array_equal(labels[0, 0], table()[masks[name]], err_msg=name)


def test_its_check_passes(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import (
        verify_dataset_integrity,
    )

    folder = tmp_path / "Dataset001_ovam"  # it takes no other name
    folder.symlink_to(export("nnunet"))
    verify_dataset_integrity(str(folder), num_processes=1)
    assert "#####" in capsys.readouterr().out  # "Done", with its frame
