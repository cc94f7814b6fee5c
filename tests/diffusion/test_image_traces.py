"""Tracing images that exist, of any size: mapped back exactly, tiled without seams."""

from __future__ import annotations

import dataclasses
import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from napari_ovam import (
    attention_maps,
    load_trace,
    optimize_token,
    phrase_map,
    save_trace,
)
from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.base.generation_settings import GenerationSettings
from napari_ovam.base.progress import Cancelled
from napari_ovam.diffusion import image_traces as tracing
from napari_ovam.diffusion.generation import GenerationError, generate
from napari_ovam.diffusion.image_traces import trace_image
from napari_ovam.diffusion.phrases import encode_phrase
from napari_ovam.diffusion.pipelines import model_defaults, pipeline_architecture
from napari_ovam.diffusion.tiling import TILE_FROM, plan_tiles
from napari_ovam.segmentation.refine import propagate

SETTINGS = GenerationSettings("a cat", seed=3, steps=3, guidance_scale=4.0)
KEEP_ALL = TraceSettings(layers=None, calls=None, dtype=torch.float32)


def hooks(pipe) -> int:
    modules = (*pipe.unet.modules(), *pipe.vae.modules(), *pipe.text_encoder.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def same_trace(a, b) -> bool:
    return len(a.layers) == len(b.layers) and all(
        torch.equal(x.queries, y.queries)
        for x, y in zip(a.layers, b.layers, strict=True)
    )


@pytest.fixture
def own_pipe(make_pipe):
    """Return a pipeline that a test may break."""
    return make_pipe()


def cancel_at(count):
    """Return a progress callback that cancels when it has been called `count` times."""
    calls = []

    def progress(done, total):
        calls.append((done, total))
        if len(calls) == count:
            raise Cancelled

    return progress, calls


@pytest.fixture
def picture() -> np.ndarray:
    """Return a photo-like image of an odd size, wider than high."""
    return np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)


def test_tracing_an_image_of_any_size(pipe, picture):
    before = hooks(pipe)
    made = trace_image(pipe, picture, trace=KEEP_ALL, noise_seeds=2)
    assert made.image is picture
    assert made.trace.image_size == (37, 61)
    assert made.trace.branch == "cond"
    assert made.trace.calls == (0, 1)
    assert hooks(pipe) == before
    for layer in made.trace.layers:
        height, width = layer.grid
        assert layer.queries.shape[0] == 2
        assert layer.queries.shape[2] == height * width
        assert width > height
        assert layer.queries.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (300, 2, 3), (200, 200, 3)])
def test_tracing_extreme_shapes_keeps_to_the_models_area(pipe, shape):
    image = np.full(shape, 128, np.uint8)
    made = trace_image(pipe, image, trace=KEEP_ALL, noise_seeds=1, max_tiles=1)
    defaults = model_defaults(pipe)
    cells = defaults.height * defaults.width / pipe.vae_scale_factor**2
    assert made.trace.image_size == shape[:2]
    assert max(h * w for h, w in (x.grid for x in made.trace.layers)) <= 1.5 * cells


def test_tracing_is_the_same_by_seed_and_after_generating(own_pipe, picture):
    first = trace_image(own_pipe, picture, seed=5, trace=KEEP_ALL)
    generate(own_pipe, SETTINGS, trace=KEEP_ALL)
    again = trace_image(own_pipe, picture, seed=5, trace=KEEP_ALL)
    other = trace_image(own_pipe, picture, seed=6, trace=KEEP_ALL)
    assert same_trace(first.trace, again.trace)
    assert not same_trace(first.trace, other.trace)
    # Draws count up from the seed: the second of 5 is the first of 6.
    assert torch.equal(
        first.trace.layers[0].queries[1], other.trace.layers[0].queries[0]
    )
    # It is the image that the trace is of, not the scheduler that samples.
    own_pipe.scheduler = EulerDiscreteScheduler.from_config(own_pipe.scheduler.config)
    euler = trace_image(own_pipe, picture, seed=5, trace=KEEP_ALL)
    assert same_trace(first.trace, euler.trace)


def test_tracing_leaves_the_scheduler_alone(pipe, picture):
    expected = generate(pipe, SETTINGS, trace=KEEP_ALL).image
    state = {k: str(v) for k, v in vars(pipe.scheduler).items()}
    trace_image(pipe, picture, trace=KEEP_ALL)
    assert {k: str(v) for k, v in vars(pipe.scheduler).items()} == state
    np.testing.assert_array_equal(
        generate(pipe, SETTINGS, trace=KEEP_ALL).image, expected
    )


def test_tracing_ignores_which_calls_a_generation_keeps(pipe, picture):
    keep = dataclasses.replace(KEEP_ALL, calls=(7, 9))
    made = trace_image(pipe, picture, trace=keep)
    assert made.trace.layers[0].queries.shape[0] == 3


def test_tracing_can_be_cancelled_within_a_draw(pipe, picture):
    before = hooks(pipe)
    progress, calls = cancel_at(2)
    with pytest.raises(Cancelled):
        trace_image(pipe, picture, trace=KEEP_ALL, progress=progress)
    assert calls == [(0, 3), (0, 3)]
    assert hooks(pipe) == before


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((4, 4), np.uint8), {}, r"shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), {}, r"shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), {}, r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3)), {}, "float64"),
        ([[1, 2, 3]], {}, "type None"),
        (None, {"noise_level": 1000}, "noise_level is 1000"),
        (None, {"noise_seeds": 0}, "noise_seeds is 0"),
        (None, {"seed": -1}, "seed is -1"),
        (None, {"max_tiles": 0}, "max_tiles is 0"),
    ],
)
def test_what_cannot_be_traced_is_named(pipe, picture, image, options, message):
    with pytest.raises(ValueError, match=message):
        trace_image(pipe, picture if image is None else image, **options)


def test_numbers_that_are_no_image_are_an_error(own_pipe, picture):
    with torch.no_grad():
        own_pipe.unet.conv_out.bias.fill_(torch.nan)
    with pytest.raises(GenerationError, match=r"NaNs.*conv_out\.bias of the unet"):
        trace_image(own_pipe, picture, trace=KEEP_ALL)


@pytest.fixture
def seeing(own_pipe):
    """Return a pipeline whose layers ask nothing but how bright each cell is.

    Its maps are pictures of what was shown to it, so that places can be compared.
    """
    shown = []
    encode = own_pipe.vae.encode

    def watched(pixels):
        shown[:] = [pixels]
        return encode(pixels)

    own_pipe.vae.encode = watched

    def brightness(_module, _args, output):
        pixels = shown[0].mean(1, keepdim=True)
        height, width = pixels.shape[-2:]
        rows = round(math.sqrt(output.shape[1] * height / width))
        grid = rows, output.shape[1] // rows
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels, grid)
        return cells.flatten()[None, :, None].expand(output.shape).contiguous()

    for name, module in own_pipe.unet.named_modules():
        if name.endswith("attn2.to_q"):
            module.register_forward_hook(brightness)
    return own_pipe


def seen_by(pipe, grey: np.ndarray, **options) -> tuple[np.ndarray, np.ndarray]:
    """Return the map (H, W), 0 to 255, of a grey image (H, W), and its (h, w) cells."""

    def linear(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image = np.repeat(values[..., None], 3, -1).astype(np.uint8)
        trace = trace_image(pipe, image, trace=KEEP_ALL, noise_seeds=1, **options).trace
        trace = trace.select(layers=[max(trace.grid)])
        assert trace.image_size == values.shape
        row = torch.ones(1, trace.text_dim)
        mean = {"activation": "linear", "aggregation": "mean"}
        maps = attention_maps(trace, row, size=trace.image_size, **mean)
        return maps[0].numpy(), np.array(trace.grid)

    white, _ = linear(np.full((2, 2), 255))
    found, _ = linear(grey)
    # The cells of the look at the whole, which is a part of each trace.
    whole = plan_tiles(
        grey.shape, (32, 32), pipeline_architecture(pipe).alignment(pipe), 1
    )
    cells = np.array(whole.size) // pipe.vae_scale_factor
    return (found / white[0, 0] + 1) * 127.5, cells


SIZES = [(131, 77), (320, 214), (129, 128), (50, 500)]
WAYS = [{"max_tiles": 1}, {"max_tiles": 6}, {"max_tiles": 6, "flip": True}]
in_each_way = pytest.mark.parametrize("way", WAYS, ids=["whole", "tiles", "flip"])


@in_each_way
@pytest.mark.parametrize("size", SIZES)
def test_marked_pixels_are_mapped_back_to_where_they_were(seeing, size, way):
    for centre in ((0.3, 0.3), (0.66, 0.5), (0.45, 0.7)):
        grey = np.zeros(size, np.uint8)
        first = [int((c - 1 / 8) * side) for c, side in zip(centre, size, strict=True)]
        last = [a + side // 4 for a, side in zip(first, size, strict=True)]
        grey[first[0] : last[0], first[1] : last[1]] = 255
        found, cells = seen_by(seeing, grey, **way)
        found = found.clip(0)
        for axis, places in enumerate(np.indices(size)):
            is_at = (found * places).sum() / found.sum()
            was_at = (first[axis] + last[axis] - 1) / 2
            assert abs(is_at - was_at) < 0.15 * size[axis] / cells[axis]


@in_each_way
@pytest.mark.parametrize("size", [*SIZES, (3, 1000), (1000, 3), (1, 1)])
def test_every_pixel_of_a_ramp_is_mapped_back(seeing, size, way):
    down, along = (np.linspace(0, 1, side) for side in size)
    ramp = (63 * down[:, None] + 191 * along).round().astype(np.uint8)
    found, cells = seen_by(seeing, ramp, **way)
    assert found.shape == size
    # Beyond the centres of the outer cells their values stay.
    edge = np.ceil(np.array(size) / cells).astype(int)
    off = (found - ramp)[edge[0] : -edge[0], edge[1] : -edge[1]]
    if off.size:
        assert abs(off.mean()) < 0.5  # of 255, the rounding of the image itself
        assert np.abs(off).max() < 3


@pytest.mark.parametrize("max_tiles", [2, 5, 16])
@pytest.mark.parametrize("multiple", [16, 32, 64])
@pytest.mark.parametrize(
    "size", [(200, 200), (131, 777), (3, 100_000), (20_000, 20_000), (1024, 640)]
)
def test_tiles_cover_the_picture_and_overlap(size, multiple, max_tiles):
    tiles = plan_tiles(size, (128, 128), multiple, max_tiles)
    assert 1 <= len(tiles) <= max_tiles
    ends = zip(tiles.size, tiles.tile, (tiles.tops, tiles.lefts), strict=True)
    for whole, tile, starts in ends:
        assert 0 < tile <= 128
        assert not any(value % multiple for value in (whole, tile, *starts))
        assert (starts[0], starts[-1] + tile) == (0, whole)
        gaps = np.diff(starts)
        assert (gaps > 0).all()
        assert (gaps <= max(multiple, tile * 3 // 4)).all()


@pytest.mark.parametrize("side", [1, 100, int(128 * TILE_FROM)])
def test_small_images_are_seen_in_one_piece_at_the_models_size(side):
    tiles = plan_tiles((side, side), (128, 128), 32, 16)
    assert (tiles.size, tiles.tile, len(tiles)) == ((128, 128), (128, 128), 1)


def test_what_tiles_have_in_common_is_the_same_as_in_one(seeing):
    # Every cell of an even picture is the same, in tiles, overlaps and corners.
    found, _ = seen_by(seeing, np.full((150, 130), 77, np.uint8), max_tiles=6)
    np.testing.assert_allclose(found, 77, atol=1e-3)


def test_a_tiled_trace_is_a_trace(pipe, tmp_path):
    """It is saved, selected, refined and optimized on like any other."""
    image = np.random.default_rng(1).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    keep = dataclasses.replace(KEEP_ALL, self_attention=True)
    trace = trace_image(pipe, image, trace=keep, noise_seeds=1, flip=True).trace
    whole = trace_image(pipe, image, trace=keep, max_tiles=1).trace
    assert trace.calls == (0, 1, 2, 3)
    assert math.prod(trace.grid) > 4 * math.prod(whole.grid)
    token = encode_phrase(pipe, "a cat")
    found = phrase_map(trace, token)
    assert found.shape == (100, 150)
    again = load_trace(save_trace(trace, tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(phrase_map(again, token), found)
    assert propagate(found, trace).shape == (100, 150)
    mask = np.zeros((100, 150), bool)
    mask[20:60, 30:90] = True
    better = optimize_token(trace, token, mask)
    assert better.info["losses"][-1] < better.info["losses"][0]


def test_a_tile_is_what_the_model_sees_in_that_part(pipe, monkeypatch):
    """Away from the overlaps, the queries are those of the part alone."""
    noise = tracing._noise
    monkeypatch.setattr(tracing, "_noise", lambda *args: 0 * noise(*args))
    image = np.random.default_rng(2).integers(0, 256, (32, 128, 3), dtype=np.uint8)
    options = {"trace": KEEP_ALL, "noise_seeds": 1, "flip": True}
    tiled = trace_image(pipe, image, **options).trace.select(calls=[-2, -1])
    for column, part in ((0, image[:, :32]), (-1, image[:, -32:])):
        alone = trace_image(pipe, np.ascontiguousarray(part), **options).trace
        for whole, one in zip(tiled.layers, alone.layers, strict=True):
            assert whole.grid == (one.grid[0], 4 * one.grid[1])
            torch.testing.assert_close(
                whole.queries.unflatten(2, whole.grid)[..., column, :],
                one.queries.unflatten(2, one.grid)[..., column, :],
            )


def test_the_whole_is_looked_at_too(pipe):
    """Its calls come first: what the model sees of the image in one piece."""
    image = np.random.default_rng(3).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    options = {"trace": KEEP_ALL, "noise_seeds": 2}
    both = trace_image(pipe, image, **options).trace
    whole = trace_image(pipe, image, max_tiles=1, **options).trace
    assert both.calls == (0, 1, 2, 3)
    for large, small in zip(both.layers, whole.layers, strict=True):
        height, width = (b // a for a, b in zip(small.grid, large.grid, strict=True))
        assert min(height, width) > 1
        for corner in (0, -1):  # there bilinear resizing changes nothing
            torch.testing.assert_close(
                large.queries[:2, :, corner], small.queries[:, :, corner]
            )


def test_tiles_count_in_the_progress_and_can_be_cancelled(pipe):
    image = np.zeros((100, 100, 3), np.uint8)
    seen = []

    def progress(done, total):
        seen.append((done, total))
        if done == 3:
            raise Cancelled

    before = hooks(pipe)
    with pytest.raises(Cancelled):
        trace_image(pipe, image, trace=KEEP_ALL, noise_seeds=1, progress=progress)
    assert 3 < seen[-1][1] <= 17
    assert hooks(pipe) == before


def seam(found: np.ndarray, lines: list[float], axis: int) -> float:
    """Return the mean jump across lines over that within 16 pixels of them."""
    steps = np.abs(np.diff(found, axis=axis)).mean(1 - axis)
    places = [round(line) - 1 for line in lines]
    near = [np.delete(steps[max(0, p - 16) : p + 17], min(p, 16)) for p in places]
    return steps[places].mean() / np.mean([around.mean() for around in near])


@pytest.mark.parametrize("phrase", ["a cat", "grass"])
def test_maps_have_no_seams_where_tiles_meet(tiny, phrase):
    """The figure that docs/images-elsewhere.md states, on the embedded model."""
    from napari_ovam.scenes import load_scenes

    image = np.kron(load_scenes()[0].image, np.ones((3, 3, 1), np.uint8))
    trace = trace_image(tiny, image, noise_seeds=1).trace
    found = phrase_map(trace, encode_phrase(tiny, phrase))
    tiles = plan_tiles(image.shape[:2], (128, 128), 32, 16)
    for axis, starts in enumerate((tiles.tops, tiles.lefts)):
        scale = image.shape[axis] / tiles.size[axis]
        ends = [start + tiles.tile[axis] for start in starts[:-1]]
        borders = [scale * place for place in (*starts[1:], *ends)]
        assert seam(found, borders, axis) < 1.4


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        (diffusers.EDMEulerScheduler, {}),
        (diffusers.EDMDPMSolverMultistepScheduler, {}),
        (diffusers.FlowMatchEulerDiscreteScheduler, {}),
        (diffusers.DPMSolverMultistepScheduler, {"use_flow_sigmas": True}),
        (diffusers.EulerDiscreteScheduler, {"timestep_type": "continuous"}),
    ],
)
def test_a_scheduler_without_numbered_steps(make_pipe, scheduler, options):
    pipe = make_pipe()
    pipe.scheduler = scheduler(**options)
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=f"{scheduler.__name__}.*EDM, flow matching"):
        trace_image(pipe, image)
