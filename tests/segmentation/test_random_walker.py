"""The multigrid solver finds what a direct one finds, on any image, in few steps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve

from napari_ovam.segmentation.random_walker import Walks


def ties(rng: np.random.Generator, size: tuple[int, int], strength: float):
    """Smooth areas with hard borders, as images have them."""
    height, width = size
    right = rng.choice([1e-4, 0.2, 1.0], (height, width - 1), p=[0.1, 0.2, 0.7])
    down = rng.choice([1e-4, 0.2, 1.0], (height - 1, width), p=[0.1, 0.2, 0.7])
    return (
        (strength * right).astype(np.float32),
        (strength * down).astype(np.float32),
    )


def direct(right: np.ndarray, down: np.ndarray, map: np.ndarray) -> np.ndarray:
    index = np.arange(map.size).reshape(map.shape)
    one = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    other = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    weight = np.concatenate([right.ravel(), down.ravel()]).astype(float)
    graph = coo_matrix((weight, (one, other)), shape=(map.size, map.size))
    graph = (graph + graph.T).tocsr()
    system = diags(1 + np.asarray(graph.sum(1)).ravel()) - graph
    return spsolve(system.tocsc(), map.ravel().astype(float)).reshape(map.shape)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 1), (16, 16), (37, 70)])
@pytest.mark.parametrize("strength", [0.0, 1.0, 300.0])
def test_the_solution_is_the_direct_one(size, strength):
    rng = np.random.default_rng(3)
    right, down = ties(rng, size, strength)
    values = rng.random(size).astype(np.float32)
    walks = Walks(right, down)
    expected = direct(right, down, values)
    np.testing.assert_allclose(walks.solve(values, 1e-6), expected, atol=1e-4)
    close = walks.solve(values, 3e-3) - expected
    assert np.sqrt((close**2).mean()) <= 6e-3 * max(values.std(), 1e-9)


def test_a_large_image_wants_few_steps(monkeypatch):
    size = (300, 420)
    rng = np.random.default_rng(0)
    walks = Walks(*ties(rng, size, 0.012 * size[0] * size[1]))
    steps = []
    cycle = Walks._cycle

    def counted(self, b, level=0):
        steps.append(level)
        return cycle(self, b, level)

    monkeypatch.setattr(Walks, "_cycle", counted)
    walks.solve(rng.random(size).astype(np.float32), 3e-3)
    assert steps.count(0) < 40


def test_a_map_is_not_changed_and_a_flat_one_stays():
    rng = np.random.default_rng(0)
    walks = Walks(*ties(rng, (20, 30), 50.0))
    values = rng.random((20, 30)).astype(np.float32)
    before = values.copy()
    walks.solve(values, 1e-3)
    assert np.array_equal(values, before)
    flat = np.full((20, 30), 0.3, np.float32)
    np.testing.assert_allclose(walks.solve(flat, 1e-3), flat, rtol=1e-6)
