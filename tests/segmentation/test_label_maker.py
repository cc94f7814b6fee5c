"""Labels for a slider: as the plain way makes them, and quick."""

from __future__ import annotations

import numpy as np
import pytest
from reference_labels import plain_labels
from scipy.ndimage import gaussian_filter, zoom

from napari_ovam import LabelSettings, maps_to_labels
from napari_ovam.segmentation.class_maps import (
    class_labels,
    label_maker,
    label_settings,
)
from napari_ovam.segmentation.labels import LabelMaker


def some_maps(rng: np.random.Generator, count: int, size: tuple[int, int]):
    """Smooth maps, 0 to 1, with noise: many parts, which meet."""
    maps = []
    for _ in range(count):
        coarse = gaussian_filter(rng.random((9, 9)), 1)
        each = zoom(coarse, (size[0] / 9, size[1] / 9), order=1)
        each += 0.05 * np.ptp(each) * rng.standard_normal(each.shape)
        maps.append((each - each.min()) / np.ptp(each))
    return np.stack(maps).astype(np.float32)


def drawn(rng: np.random.Generator, count: int) -> LabelSettings:
    levels = tuple(float(x) for x in rng.uniform(0.25, 0.8, count))
    return LabelSettings(
        threshold=levels,
        smoothing=float(rng.choice([0, 0, 1.5])),
        min_size=int(rng.choice([0, 5, 30])),
        fill_holes=bool(rng.integers(2)),
    )


@pytest.mark.parametrize("seed", range(12))
def test_labels_are_those_of_the_plain_way(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    maps = some_maps(rng, count, (int(rng.integers(9, 60)), int(rng.integers(9, 60))))
    maker = LabelMaker(maps)
    for _ in range(8):
        settings = drawn(rng, count)
        expected = plain_labels(maps, settings)
        assert np.array_equal(maps_to_labels(maps, settings), expected)
        # Whatever was asked before.
        assert np.array_equal(maker.labels(settings), expected)


def test_a_maker_gives_what_class_labels_does():
    rng = np.random.default_rng(0)
    maps = dict(zip((7, 2, 300), some_maps(rng, 3, (40, 50)), strict=True))
    image = rng.integers(0, 255, (40, 50, 3), np.uint8)
    maker = label_maker(maps, image)
    assert maker.ids == (2, 7, 300)
    for levels in ({7: 0.5, 2: None, 300: 0.6}, {7: 0.3, 2: 0.0, 300: None}):
        settings = label_settings(levels, maker.ids, {"fill_holes": True})
        labels = maker.labels(settings)
        options = {"fill_holes": True}
        expected = class_labels(maps, levels, image, options=options)
        assert np.array_equal(labels, expected)
        assert labels.dtype == expected.dtype == np.uint16
