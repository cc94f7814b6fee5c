"""Objects are carried from picture to picture of a stack, near where they were."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ovam import iou
from napari_ovam.segmentation.propagation import propagate

SIZE = 96


def frame(places: dict[int, tuple[float, float, float]]) -> tuple:
    """Return a picture with discs (row, column, radius) by ids, and its labels."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    noise = np.random.default_rng(0).normal(0, 6, (SIZE, SIZE, 3))
    image = np.full((SIZE, SIZE, 3), (120, 150, 90)) + noise
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for number, (row, column, radius) in places.items():
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        image[inside] = np.add(COLORS[number], noise[inside])
        labels[inside] = number
    return image.clip(0, 255).astype(np.uint8), labels


COLORS = {1: (200, 60, 50), 2: (50, 70, 200)}


def test_small_objects_that_move_and_grow_are_followed():
    frames = [
        frame({1: (20 + 4 * k, 20 + 5 * k, 8 + 0.3 * k), 2: (70, 75 - 4 * k, 11)})
        for k in range(9)
    ]
    images = [image for image, _ in frames]
    found = list(propagate(frames[0][1], images))
    assert len(found) == 8
    for labels, (_, exact) in zip(found, frames[1:], strict=True):
        for number in COLORS:
            assert iou(labels == number, (exact == number).astype(np.uint8)) > 0.9


def test_what_leaves_the_picture_ends_and_unsure_is_not_carried_on():
    frames = [frame({1: (40, 78 + 6 * k, 8)} if k < 5 else {}) for k in range(7)]
    labels = frames[0][1]
    labels[:5] = 255
    found = list(propagate(labels, [image for image, _ in frames]))
    assert (found[0] == 1).any()
    assert not found[-1].any()
    assert not any((each == 255).any() for each in found)


def test_labels_and_pictures_have_to_fit():
    image, labels = frame({1: (40, 40, 9)})
    with pytest.raises(ValueError, match="1 images and 2 traces"):
        list(propagate(labels, [image], [None, None]))
    with pytest.raises(ValueError, match="image 1 is"):
        list(propagate(labels, [image, image[:50]]))
    assert not next(propagate(np.zeros_like(labels), [image, image])).any()
