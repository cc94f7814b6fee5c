"""The rule from maps to probabilities: what holds on every picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, zoom

from napari_ovam import class_labels, iou
from napari_ovam.segmentation.probabilities import class_probabilities

FEW = settings(max_examples=5, deadline=None)
SEEDS = st.integers(0, 2**16)
CLASSES = st.integers(1, 2)  # alone, and with another


def scene(seed: int, classes: int = 1, size: tuple[int, int] = (96, 128)):
    """A textured picture of discs, blurred maps of them and their exact masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    image = (
        rng.integers(60, 120, 3)
        + 12 * gaussian_filter(rng.standard_normal((*size, 3)), (2, 2, 0)) / 0.15
    )
    masks = []
    for place in range(classes):
        radius = rng.uniform(0.12, 0.2) * size[0]
        left, right = place * size[1] / classes, (place + 1) * size[1] / classes
        across = rng.uniform(left + radius + 2, right - radius - 2)
        down = rng.uniform(radius + 2, size[0] - radius - 2)
        mask = (y - down) ** 2 + (x - across) ** 2 < radius**2
        image[mask] = rng.integers(140, 220, 3) + 0.3 * (image[mask] - 90)
        masks.append(mask)
    maps = [
        gaussian_filter(mask.astype(float), size[0] / 20)
        + 0.02 * gaussian_filter(rng.standard_normal(size), size[0] / 40)
        for mask in masks
    ]
    maps = [(each - each.min()) / np.ptp(each) for each in maps]
    return (
        np.stack(maps).astype(np.float32),
        image.clip(0, 235).astype(np.uint8),
        np.stack(masks),
    )


def labelled(maps, image, thresholds=None, options=None):
    by_id = dict(enumerate(maps, 1))
    limits = thresholds or dict.fromkeys(by_id)
    return class_labels(by_id, limits, image, options=options)


def agreement(one, other):
    """The lowest IoU of a class, 1 where neither has it."""
    numbers = set(np.unique(one)) | set(np.unique(other))
    return min(iou(one == number, other == number) for number in numbers)


@FEW
@given(SEEDS, st.integers(1, 3))
def test_objects_are_found_whole(seed, classes):
    maps, image, masks = scene(seed, classes)
    labels = labelled(maps, image)
    for number, mask in enumerate(masks, 1):
        assert iou(labels == number, mask) > 0.8


@FEW
@given(SEEDS)
def test_a_tiny_object_is_found_on_a_ground_that_its_map_is_uneven_on(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    mask = np.hypot(y - rng.integers(20, 108), x - rng.integers(20, 108)) < 5
    ground = gaussian_filter(rng.standard_normal((128, 128)), 12, mode="wrap")
    ground = (ground - ground.min()) / np.ptp(ground)
    seen = 0.3 * ground + 0.8 * gaussian_filter(mask.astype(float), 2)
    image = np.where(mask[..., None], 180, rng.integers(60, 120, (128, 128, 3)))
    found = labelled(seen[None].astype(np.float32), image.astype(np.uint8))
    assert iou(found == 1, mask) > 0.5


@FEW
@given(SEEDS)
def test_a_small_object_on_a_large_one_leaves_it_the_rest(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    large = (np.abs(y - 64) < 30) & (np.abs(x - 64) < 50)
    small = np.hypot(y - rng.integers(46, 82), x - rng.integers(30, 98)) < 6
    maps = np.stack(
        [
            gaussian_filter(large.astype(float), 4),
            # as high on all of the large one as a halo
            0.3 * gaussian_filter(large.astype(float), 4)
            + 0.7 * gaussian_filter(small.astype(float), 2),
        ]
    )
    maps += 0.02 * gaussian_filter(rng.standard_normal(maps.shape), (0, 4, 4)) / 0.07
    image = rng.integers(90, 110, (128, 128, 3))
    image[large] += 60
    image[small, 0] += 30
    found = labelled(maps.astype(np.float32), image.astype(np.uint8))
    assert iou(found == 1, large & ~small) > 0.9


@FEW
@given(SEEDS)
def test_a_map_that_is_not_flat_is_never_empty(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(1, 40, 2))
    maps = rng.random((1, *size)).astype(np.float32) ** rng.integers(1, 9)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    if np.ptp(maps):
        assert labelled(maps, image).any()
    assert not labelled(np.full_like(maps, 0.3), image).any()


@FEW
@given(SEEDS, CLASSES)
def test_equal_maps_have_equal_labels_in_any_order_and_of_any_range(seed, classes):
    maps, image, _ = scene(seed, classes)
    labels = labelled(maps, image)
    assert np.array_equal(labels, labelled(maps.copy(), image))
    swapped = labelled(maps[::-1], image)
    assert np.array_equal(np.array([0, *range(classes, 0, -1)])[swapped], labels)
    assert agreement(labelled(0.2 + 0.05 * maps, image), labels) > 0.98


@FEW
@given(SEEDS, CLASSES, st.integers(1, 3), st.booleans())
def test_turning_and_mirroring_the_picture_turns_the_labels(
    seed, classes, turns, mirrored
):
    maps, image, _ = scene(seed, classes)
    labels = labelled(maps, image)

    def turned(values, axes=(0, 1)):
        values = np.rot90(values, turns, axes)
        return np.ascontiguousarray(np.flip(values, axes[1]) if mirrored else values)

    found = labelled(turned(maps, (1, 2)), turned(image))
    assert agreement(found, turned(labels)) > 0.98


@FEW
@given(SEEDS, CLASSES, st.sampled_from([2, 3, 5]))
def test_scaling_the_picture_scales_the_labels(seed, classes, factor):
    maps, image, _ = scene(seed, classes)
    large = labelled(
        zoom(maps, (1, factor, factor), order=1, grid_mode=True, mode="nearest"),
        image.repeat(factor, 0).repeat(factor, 1),
    )
    small = labelled(maps, image).repeat(factor, 0).repeat(factor, 1)
    assert agreement(large, small) > 0.9


@FEW
@given(SEEDS, CLASSES, st.integers(1, 20))
def test_a_constant_added_to_the_brightness_changes_little(seed, classes, more):
    maps, image, _ = scene(seed, classes)
    brighter = image + np.uint8(more)
    assert agreement(labelled(maps, brighter), labelled(maps, image)) > 0.95


@FEW
@given(SEEDS)
def test_a_higher_threshold_of_a_class_never_adds_to_it(seed):
    maps, image, _ = scene(seed, 2)
    before = np.ones(image.shape[:2], bool)
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        inside = labelled(maps, image, {1: level, 2: None}) == 1
        assert not (inside & ~before).any()
        before = inside


@FEW
@given(SEEDS)
def test_several_objects_of_a_class_are_found(seed):
    maps, image, masks = scene(seed, 3)
    labels = labelled(maps.max(0)[None], image)
    assert iou(labels == 1, masks.any(0)) > 0.8


@FEW
@given(SEEDS)
def test_grey_pictures_do_as_well(seed):
    maps, image, masks = scene(seed, 1)
    grey = image.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2)
    assert iou(labelled(maps, grey) == 1, masks[0]) > 0.6


def test_an_object_of_a_thousandth_of_the_picture_stays_small():
    y, x = np.mgrid[:512, :512]
    mask = (y - 200) ** 2 + (x - 300) ** 2 < 9.2**2
    image = np.full((512, 512, 3), 90, np.uint8)
    image[mask] = (200, 60, 60)
    cells = mask.reshape(64, 8, 64, 8).mean((1, 3))
    found = gaussian_filter(cells, 0.8)
    large = zoom(found, 8, order=1, grid_mode=True, mode="nearest")[None]
    labels = labelled(large.astype(np.float32), image)
    assert iou(labels == 1, mask) > 0.5


def test_of_two_classes_that_see_both_objects_each_gets_its_own():
    _, image, masks = scene(3, 2)
    sees = np.array([[1.0, 0.8], [0.75, 0.9]])
    blurred = np.stack([gaussian_filter(mask.astype(float), 4) for mask in masks])
    labels = labelled(np.tensordot(sees, blurred, 1).astype(np.float32), image)
    assert iou(labels == 1, masks[0]) > 0.8
    assert iou(labels == 2, masks[1]) > 0.8


@FEW
@given(SEEDS)
def test_of_three_classes_that_see_all_objects_none_is_left_with_nothing(seed):
    _, image, masks = scene(seed, 3)
    sees = np.array([[1.0, 0.8, 0.9], [0.8, 1.0, 0.9], [0.9, 0.9, 0.85]])
    blurred = np.stack([gaussian_filter(mask.astype(float), 4) for mask in masks])
    blurred /= blurred.max((1, 2), keepdims=True)
    labels = labelled(np.tensordot(sees, blurred, 1).astype(np.float32), image)
    for number, mask in enumerate(masks, 1):
        assert iou(labels == number, mask) > 0.8


@pytest.mark.parametrize(
    ("maps", "image", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3, 3), np.uint8), r"\(2, 3\)"),
        (np.zeros((1, 2, 3)), np.zeros((2, 3, 3)), "float64"),
        (np.zeros((1, 2, 3)), np.zeros((3, 3, 3), np.uint8), r"\(2, 3, 3\)"),
        (np.full((1, 2, 3), np.nan), np.zeros((2, 3, 3), np.uint8), "NaN"),
    ],
)
def test_what_does_not_fit_is_named(maps, image, message):
    with pytest.raises(ValueError, match=message):
        class_probabilities(maps, image)
