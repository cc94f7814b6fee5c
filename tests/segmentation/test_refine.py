"""Refinements move borders to edges, compose, and refuse what makes no sense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.filters import gaussian

from napari_ovam import TraceSettings, iou, trace_image
from napari_ovam.attention.trace import LayerTrace, SelfTrace, Trace
from napari_ovam.segmentation.refine import REFINEMENTS, propagate, refine


@pytest.fixture
def disc():
    """A red disc on a shaded blue ground: its image and mask."""
    y, x = np.mgrid[:96, :112]
    mask = (y - 40) ** 2 + (x - 60) ** 2 < 24**2
    image = np.zeros((96, 112, 3), np.uint8)
    image[..., 2] = 120 + x // 2
    image[mask] = (210, 60, 40)
    return image, mask


def blurred(mask):
    """A map as a model makes it: soft, uneven and a little beside."""
    soft = gaussian(np.roll(mask, (3, -4), (0, 1)).astype(float), 6)
    noise = np.random.default_rng(0).normal(0, 0.03, mask.shape)
    return np.clip(soft + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize("method", sorted(REFINEMENTS))
def test_a_blurred_disc_gets_its_edge_back(disc, method):
    image, mask = disc
    before = blurred(mask)
    after = refine(before, image, method)
    assert after.shape == before.shape
    assert after.dtype == np.float32
    gained = iou(after >= 0.5, mask) - iou(before >= 0.5, mask)
    assert gained > 0.05, f"{gained:+.3f}"
    assert before.min() <= after.min()
    assert after.max() <= before.max()


def test_a_longer_reach_carries_farther(disc):
    image, mask = disc
    part = mask & (np.arange(mask.shape[1]) < 60)
    near, far = (
        refine(part.astype(np.float32), image, reach=reach) for reach in (0.001, 0.1)
    )
    other_half = mask & ~part
    assert far[other_half].mean() > 2 * near[other_half].mean()
    assert far[~mask].max() < 0.1


@pytest.mark.parametrize("method", sorted(REFINEMENTS))
def test_flat_maps_stay_and_maps_do_not_mix(disc, method):
    image, mask = disc
    maps = np.stack([np.full(mask.shape, 0.25), blurred(mask)])
    both = refine(maps, image, method)
    np.testing.assert_allclose(both[0], 0.25, atol=1e-4)
    np.testing.assert_allclose(both[1], refine(maps[1], image, method), atol=1e-3)


def attending(queries, keys, grid=(4, 6), scale=1.0):
    """A trace with one self-attention layer of one call and head."""
    cells = grid[0] * grid[1]
    cross = LayerTrace(
        "a.attn2", grid, torch.zeros(1, 1, cells, 4), torch.ones(4, 3), 1
    )
    shape = (1, 1, cells, -1)
    layer = SelfTrace("a.attn1", grid, queries.view(shape), keys.view(shape), scale)
    return Trace((cross,), (8, 12), "", "cond", self_layers=(layer,))


def test_cells_that_attend_to_themselves_alone_keep_their_map():
    own = torch.eye(24)
    trace = attending(own, own, scale=100.0)
    maps = np.random.default_rng(0).random((30, 4, 6)).astype(np.float32)
    for power in (1, 3):
        np.testing.assert_allclose(propagate(maps, trace, power=power), maps, atol=1e-6)


def test_propagation_is_the_product_with_the_softmax():
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(2, 24, 8, generator=generator)
    trace = attending(queries, keys, scale=0.7)
    maps = np.random.default_rng(1).random((3, 4, 6)).astype(np.float32)
    matrix = (0.7 * queries @ keys.T).softmax(-1).double().numpy()
    flat = maps.reshape(3, 24).T
    wanted = (matrix @ matrix @ flat).T.reshape(maps.shape)
    np.testing.assert_allclose(propagate(maps, trace, power=2), wanted, atol=1e-6)
    half = propagate(maps[0], trace, power=2, weight=0.5)
    np.testing.assert_allclose(half, (wanted[0] + maps[0]) / 2, atol=1e-6)


def test_a_recorded_trace_propagates_and_refines(pipe):
    image = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    settings = TraceSettings(self_attention=True)
    trace = trace_image(pipe, image, trace=settings).trace
    maps = np.random.default_rng(1).random((2, 40, 56)).astype(np.float32)
    spread = propagate(maps, trace)
    assert spread.shape == maps.shape
    assert spread.std() < maps.std()
    assert refine(spread, image).shape == maps.shape
    sides = {max(layer.grid) for layer in trace.self_layers}
    with pytest.raises(ValueError, match=r"layers is \[99\]"):
        propagate(maps, trace, layers=[99])
    chosen = [propagate(maps, trace, layers=[side]) for side in sides]
    assert all(each.shape == maps.shape for each in chosen)
    with pytest.raises(ValueError, match="self_attention=True"):
        propagate(maps, replace(trace, self_layers=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "crf"}, "method is 'crf'"),
        ({"reach": 0.0}, "reach is 0.0"),
        ({"method": "superpixels", "sizes": ()}, "sizes is empty"),
        ({"method": "superpixels", "sizes": (-1.0,)}, "size -1.0"),
        ({"method": "guided", "radius": 0}, "radius is 0"),
    ],
)
def test_bad_options_are_named(disc, options, message):
    image, mask = disc
    with pytest.raises(ValueError, match=message):
        refine(mask.astype(np.float32), image, **options)


def test_maps_and_images_that_do_not_fit(disc):
    image, mask = disc
    maps = mask.astype(np.float32)
    with pytest.raises(ValueError, match=r"\(96, 112, 3\)"):
        refine(maps, image[:-1])
    with pytest.raises(ValueError, match="float64"):
        refine(maps, image / 255)
    with pytest.raises(ValueError, match="NaN"):
        refine(maps * np.nan, image)
    with pytest.raises(ValueError, match=r"\(112,\)"):
        refine(maps[0], image)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"power": 0}, "power is 0"), ({"weight": 1.5}, "weight is 1.5")],
)
def test_bad_propagation_is_named(options, message):
    trace = attending(torch.eye(24), torch.eye(24))
    with pytest.raises(ValueError, match=message):
        propagate(np.ones((4, 6)), trace, **options)
