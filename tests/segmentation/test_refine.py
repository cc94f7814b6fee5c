"""Refinements move borders to edges; self-attention spreads maps as the model says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.filters import gaussian

from napari_ovam import TraceSettings, iou, trace_image
from napari_ovam.attention.trace import LayerTrace, SelfTrace, Trace
from napari_ovam.segmentation.refine import GuidedFilter, PixelAdaptive, propagate


@pytest.fixture
def disc():
    """A red disc on a shaded blue ground: its image and mask."""
    y, x = np.mgrid[:96, :112]
    mask = (y - 40) ** 2 + (x - 60) ** 2 < 24**2
    image = np.zeros((96, 112, 3), np.uint8)
    image[..., 2] = 120 + x // 2
    image[mask] = (210, 60, 40)
    return image, mask


def pictured(image):
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def blurred(mask):
    """A map as a model makes it: soft, uneven and a little beside."""
    soft = gaussian(np.roll(mask, (3, -4), (0, 1)).astype(float), 6)
    noise = np.random.default_rng(0).normal(0, 0.03, mask.shape)
    return torch.from_numpy(np.clip(soft + noise, 0, 1).astype(np.float32))[None]


@pytest.mark.parametrize("refine", [PixelAdaptive, GuidedFilter])
def test_a_blurred_disc_gets_its_edge_back(disc, refine):
    image, mask = disc
    before = blurred(mask)
    after = refine(pictured(image))(torch.cat([before, torch.full_like(before, 0.25)]))
    gained = iou((after[0] >= 0.5).numpy(), mask) - iou(
        (before[0] >= 0.5).numpy(), mask
    )
    assert gained > 0.04, f"{gained:+.3f}"
    np.testing.assert_allclose(after[1], 0.25, atol=1e-3)  # flat maps stay


@pytest.mark.parametrize("strip", [1, 1_000, 10**9])
def test_what_the_small_picture_says_holds_on_the_large_one(disc, strip, monkeypatch):
    image, mask = disc
    small = image.reshape(24, 4, 28, 4, 3).mean((1, 3)).astype(np.uint8)
    cells = torch.from_numpy(mask.reshape(24, 4, 28, 4).mean((1, 3))).float()[None]
    monkeypatch.setattr("napari_ovam.segmentation.refine._STRIP", strip)
    large = GuidedFilter(pictured(small), 2).enlarge(cells, image)
    assert large.shape == (1, *mask.shape)
    assert iou(large[0] >= 0.5, mask) > 0.97


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


def test_a_recorded_trace_propagates(pipe):
    image = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    settings = TraceSettings(self_attention=True)
    trace = trace_image(pipe, image, trace=settings).trace
    maps = np.random.default_rng(1).random((2, 40, 56)).astype(np.float32)
    spread = propagate(maps, trace)
    assert spread.shape == maps.shape
    assert spread.std() < maps.std()
    sides = {max(layer.grid) for layer in trace.self_layers}
    with pytest.raises(ValueError, match=r"layers is \[99\]"):
        propagate(maps, trace, layers=[99])
    chosen = [propagate(maps, trace, layers=[side]) for side in sides]
    assert all(each.shape == maps.shape for each in chosen)
    with pytest.raises(ValueError, match="self_attention=True"):
        propagate(maps, replace(trace, self_layers=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"power": 0}, "power is 0"), ({"weight": 1.5}, "weight is 1.5")],
)
def test_bad_propagation_is_named(options, message):
    trace = attending(torch.eye(24), torch.eye(24))
    with pytest.raises(ValueError, match=message):
        propagate(np.ones((4, 6)), trace, **options)
