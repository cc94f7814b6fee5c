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
from napari_ovam.segmentation.components import Runs
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
        threshold=levels if rng.integers(4) else "otsu",
        smoothing=float(rng.choice([0, 0, 1.5])),
        min_size=int(rng.choice([0, 5, 30])),
        fill_holes=bool(rng.integers(2)),
        parts=float(rng.choice([0, 0.8, 0.95])),
        unite=bool(rng.integers(2)),
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
    maker = label_maker(maps, image, refine="guided")
    assert maker.ids == (2, 7, 300)
    for levels in ({7: 0.5, 2: None, 300: 0.6}, {7: 0.3, 2: 0.0, 300: None}):
        settings = label_settings(levels, maker.ids, {"fill_holes": True})
        labels = maker.labels(settings)
        options = {"fill_holes": True}
        expected = class_labels(maps, levels, image, refine="guided", options=options)
        assert np.array_equal(labels, expected)
        assert labels.dtype == expected.dtype == np.uint16


def test_what_depends_on_no_threshold_is_done_once(monkeypatch):
    done = []

    def counted(values):
        done.append(values)
        return 0.5

    monkeypatch.setattr("napari_ovam.segmentation.labels.automatic_threshold", counted)
    maker = LabelMaker(some_maps(np.random.default_rng(0), 3, (30, 30)))
    for level in (0.3, 0.4, 0.5):
        maker.labels(LabelSettings((level, "otsu", "otsu"), parts=0.8))
    assert len(done) == 2
    maker.labels(LabelSettings("otsu", smoothing=1.0))  # of other maps
    assert len(done) == 5


def test_a_piece_goes_to_the_class_of_its_own_region():
    # In the first region class 2 has a piece beside class 1, in the last beside 3.
    maps = np.zeros((3, 30, 30), np.float32)
    maps[0, 1:7, 1:7] = 0.7
    maps[1, 1:3, 1:7] = 0.8
    maps[1, 10:16, 10:16] = 0.9  # class 2 has its largest piece here
    maps[2, 20:28, 20:28] = 0.7
    maps[1, 20:22, 20:28] = 0.8
    labels = maps_to_labels(maps, LabelSettings(0.5, unite=True))
    assert (labels[20:28, 20:28] == 3).all()
    assert (labels[10:16, 10:16] == 2).all()
    assert (labels[1:7, 1:7] == 1).all()


def test_runs_that_end_with_a_row_meet_only_what_lies_below():
    mask = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]], bool)
    runs = Runs(mask)
    assert runs.lengths.tolist() == [1, 1, 2, 1, 1]
    assert runs.parts()[1] == 4
    assert runs.parts(diagonal=True)[1] == 2
    assert runs.sums(np.arange(12).reshape(4, 3)).tolist() == [2, 3, 15, 9, 11]
