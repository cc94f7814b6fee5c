"""Maps become labels, labels become targets, and masks are compared, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ovam import (
    LabelSettings,
    best_threshold,
    iou,
    labels_to_target,
    maps_to_labels,
)


def test_the_highest_over_its_threshold_wins():
    maps = np.array([[[0.9, 0.6, 0.4, 0.5]], [[0.5, 0.5, 0.3, 0.2]]], np.float32)
    # Over their thresholds: 1.8 and 2, 1.2 and 2, none and 1.2, 1 and none.
    labels = maps_to_labels(maps, LabelSettings(threshold=(0.5, 0.25)))
    assert labels.tolist() == [[2, 2, 2, 1]]
    assert labels.dtype == np.uint8
    assert maps_to_labels(maps, LabelSettings(threshold=0.55)).tolist() == [
        [1, 1, 0, 0]
    ]


def test_a_map_at_its_threshold_counts_in_single_precision():
    assert maps_to_labels(np.full((1, 1, 1), 0.45, np.float32)).tolist() == [[1]]


def test_ids_choose_the_type():
    maps = np.array([[[1, 0]], [[0, 1]]], float)
    assert maps_to_labels(maps, ids=[254, 3]).tolist() == [[254, 3]]
    large = maps_to_labels(maps, ids=[300, 3])
    assert large.dtype == np.uint16
    assert large.tolist() == [[300, 3]]


def test_holes_small_parts_and_smoothing():
    mask = np.zeros((7, 14))
    mask[1:6, 1:6] = 1
    mask[3, 3] = 0  # a hole
    mask[3, 10] = 1  # a speck
    whole = maps_to_labels(mask[None], LabelSettings(fill_holes=True, min_size=2))
    expected = np.zeros((7, 14))
    expected[1:6, 1:6] = 1
    np.testing.assert_array_equal(whole, expected)
    smooth = maps_to_labels(mask[None], LabelSettings(smoothing=1))
    assert smooth[3, 3] == 1
    assert smooth[3, 10] == 0


def test_a_hole_that_holds_another_class_stays():
    maps = np.zeros((2, 5, 5))
    maps[0] = 1
    maps[0, 1:4, 1:4] = 0
    maps[1, 2, 2] = 1
    labels = maps_to_labels(maps, LabelSettings(fill_holes=True))
    assert labels[1, 1] == 0
    assert labels[2, 2] == 2


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (np.zeros((2, 3)), {}, r"\(2, 3\)"),
        (np.full((1, 2, 2), np.nan), {}, "class 1 holds NaN"),
        (np.zeros((2, 2, 2)), {"ids": [1]}, "2 maps and 1 ids"),
        (np.zeros((2, 2, 2)), {"ids": [4, 4]}, "id 4 is there more than once"),
        (np.zeros((1, 2, 2)), {"ids": [0]}, "id 0"),
        (np.zeros((1, 2, 2)), {"ids": [255]}, "255 means unsure"),
        (np.zeros((1, 2, 2)), {"ids": [70000]}, "id 70000"),
        (np.zeros((1, 2, 2)), {"image": np.zeros((3, 2, 3))}, "image has the shape"),
        (
            np.zeros((1, 2, 2)),
            {"settings": LabelSettings(threshold=(0.5, 0.6))},
            "2 values",
        ),
    ],
)
def test_what_makes_no_labels(maps, options, message):
    with pytest.raises(ValueError, match=message):
        maps_to_labels(maps, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"threshold": (0.5, 1.5)}, "threshold is 1.5"),
        ({"threshold": ("otsu",)}, "'otsu'"),
        ({"smoothing": -1}, "smoothing is -1"),
        ({"min_size": 2.5}, "min_size is 2.5"),
        ({"unsure": 1.5}, "unsure is 1.5"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LabelSettings(**options)


def test_targets():
    labels = np.array([[0, 1, 2, 255]], np.uint16)
    target = labels_to_target(labels, 2)
    assert target.tolist() == [[0, 0, 1, 255]]
    assert target.dtype == np.uint8
    assert labels_to_target(labels, 2, ignore=None).tolist() == [[0, 0, 1, 0]]
    for wrong in (0, 255, -1, 70000):
        with pytest.raises(ValueError, match=f"id {wrong}"):
            labels_to_target(labels, wrong)
    with pytest.raises(ValueError, match="float64"):
        labels_to_target(np.zeros((2, 2)), 1)


def test_iou():
    a = np.array([[1, 1, 0, 0, 1]], np.uint8)
    b = np.array([[1, 0, 1, 0, 255]], np.uint8)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a == 1, a == 1) == 1
    assert iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1
    with pytest.raises(ValueError, match="holds the value 7"):
        iou(a, np.full((1, 5), 7))
    with pytest.raises(ValueError, match="do not compare"):
        iou(a, b[:, :3])


def test_the_best_threshold_is_in_the_middle_of_the_gap():
    found = np.array([[0.1, 0.3, 0.9, 0.7, 1.0]], np.float32)
    target = np.array([[0, 0, 1, 1, 255]], np.uint8)
    threshold, score = best_threshold(found, target)
    assert threshold == pytest.approx(0.5)
    assert score == 1
    # Two images share one: 0.4 and 0.6 part the first, 0.55 is in the second.
    shared = best_threshold(
        [found, np.array([[0.55, 0.8]])], [target, np.array([[False, True]])]
    )
    assert shared == (pytest.approx(0.625), 1)


def test_the_best_threshold_of_a_noisy_map():
    rng = np.random.default_rng(0)
    target = rng.random((60, 70)) < 0.3
    found = np.clip(0.4 * target + 0.6 * rng.random((60, 70)), 0, 1)
    threshold, score = best_threshold(found, target)
    assert score == pytest.approx(iou(found >= threshold, target), abs=0.01)
    tried = [iou(found >= level, target) for level in np.linspace(0, 1, 200)]
    assert score >= max(tried) - 0.005


def test_no_threshold_for_an_empty_target():
    with pytest.raises(ValueError, match="target 0 is empty"):
        best_threshold(np.zeros((2, 2)), np.zeros((2, 2), bool))


def test_what_small_parts_leave_in_a_class_is_filled_by_it() -> None:
    maps = np.zeros((2, 20, 20), np.float32)
    maps[0, 2:18, 2:18] = 0.6
    maps[1, 8:10, 8:10] = 0.9
    found = maps_to_labels(maps, LabelSettings(0.5, min_size=10, fill_holes=True))
    assert (found[2:18, 2:18] == 1).all()


def test_what_is_undecided_is_unsure_where_that_is_asked_for():
    likely = np.array([[[0.0, 0.2, 0.49, 0.51, 0.8, 1.0]]], np.float32)
    labels = maps_to_labels(likely, LabelSettings(threshold=0.5, unsure=0.9))
    assert labels.tolist() == [[0, 0, 255, 255, 1, 1]]
    two = np.array([[[0.9, 0.9]], [[0.88, 0.1]]], np.float32)
    labels = maps_to_labels(two, LabelSettings(threshold=0.5, unsure=0.9))
    assert labels.tolist() == [[255, 1]]
