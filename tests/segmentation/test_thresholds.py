"""A threshold moves to where the map is steep, and not far."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from napari_ovam.segmentation.thresholds import steepest_near


def distance(side: int = 96) -> np.ndarray:
    """Return each pixel's distance from the middle."""
    rows, columns = np.mgrid[:side, :side] - side / 2
    return np.hypot(rows, columns)


def disc(radius: float) -> np.ndarray:
    return distance() <= radius


def shares(seen: np.ndarray, level: float) -> float:
    return float((seen >= level).mean())


@pytest.mark.parametrize("start", [0.15, 0.25, 0.35])
def test_a_level_on_a_slope_goes_to_the_step_near_it(start):
    # a disc of 1 on a halo that falls off slowly from 0.6
    inner = disc(20)
    halo = np.clip(0.6 - 0.012 * (distance() - 20), 0, 0.6)
    seen = np.where(inner, 1.0, halo)
    level = float(np.quantile(seen, 1 - inner.mean() * (1 + start)))
    found = steepest_near(seen, level)
    assert shares(seen, level) > 1.1 * inner.mean()
    assert shares(seen, found) == pytest.approx(inner.mean(), rel=0.06)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.02, 0.98), st.integers(2, 40))
def test_it_stays_near_and_parts_the_map_whatever_it_is(seed, share, side):
    seen = gaussian_filter(np.random.default_rng(seed).random((side, side)), 1.5)
    level = float(np.quantile(seen, 1 - share))
    found = steepest_near(seen, level)
    before, after = shares(seen, level), shares(seen, found)
    assert 0 < after <= 1
    if 0 < before < 1 and found != level:

        def odds(p: float) -> float:
            return float(np.log(p / (1 - p)))

        spread = abs(odds(after) - odds(before))
        assert spread < 0.4 + 6 / (side * side * min(before, 1 - before))


def test_a_map_turned_or_stretched_has_the_same_level():
    seen = gaussian_filter(disc(18).astype(float) + 0.5 * disc(30), 2)
    level = 0.6
    found = steepest_near(seen, level)
    assert steepest_near(seen[::-1].T, level) == pytest.approx(found)
    again = steepest_near(3 * seen + 1, 3 * level + 1)
    assert again == pytest.approx(3 * found + 1)


@pytest.mark.parametrize("level", [0.0, 2.0])
def test_a_level_that_parts_nothing_stays(level):
    assert steepest_near(disc(10).astype(float), level) == level
