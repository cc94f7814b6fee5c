"""Tokens are optimized as published, or faster; what makes no sense is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference_optimize
import torch
from reference import random_trace

import napari_ovam
from napari_ovam import (
    Cancelled,
    OptimizationSettings,
    Token,
    attention_maps,
    encode_phrase,
    iou,
    optimize_token,
    phrase_map,
    record,
)
from napari_ovam.attention.optimize import OptimizationError
from napari_ovam.attention.trace import ModelMismatchError


def random_token(rows=4, text_dim=12, model="", seed=5):
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(rows, text_dim, generator=generator)
    return Token("cat", model, embedding, (1, rows - 1))


def box(height=64, width=96, unsure=True):
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : 3 * width // 4] = 1
    if unsure:
        mask[:5] = 255
    return mask


@pytest.fixture
def trace():
    return random_trace(napari_ovam)


def check_parity(traces, token, masks, **options):
    settings = OptimizationSettings(recipe="ovam", iterations=40, **options)
    found = optimize_token(traces, token, masks, settings)
    start = token.embedding[[0, token.span[1] - 1]]
    expected = reference_optimize.losses(
        traces,
        start,
        masks,
        steps=40,
        learning_rate=options.get("learning_rate", 300),
        gamma=0.7,
        every=options.get("decay_every", 80),
    )
    losses = found.info["losses"]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert max(losses) - min(losses) > 1e-3  # something was learned
    assert found.embedding.shape == (2, token.text_dim)
    assert found.span == (1, 2)
    return found


def test_ovam_is_the_method_as_written_down(trace):
    check_parity([trace], random_token(), [box()])


def test_ovam_on_several_images_of_different_sizes(trace):
    other = replace(random_trace(napari_ovam, seed=3), image_size=(32, 48))
    masks = [box(), box(32, 48, unsure=False)]
    check_parity(
        [trace, other], random_token(), masks, learning_rate=100, decay_every=12
    )


def test_ovam_on_a_real_pipeline(pipe):
    with record(pipe) as recorder:
        for seed, height in ((0, 32), (1, 64)):
            pipe(
                "a cat on the grass",
                height=height,
                width=32,
                num_inference_steps=2,
                generator=torch.Generator().manual_seed(seed),
                output_type="latent",
            )
    token = encode_phrase(pipe, "cat", context="a cat on the grass")
    check_parity(recorder.traces, token, [box(32, 32), box(64, 32)])


def test_the_best_row_is_the_one_with_the_lowest_loss(trace):
    seen = []
    settings = OptimizationSettings(recipe="ovam", iterations=12, learning_rate=2000)
    token = optimize_token(
        trace, random_token(), box(), settings, on_step=lambda *a: seen.append(a)
    )
    losses = token.info["losses"]
    assert [index for index, *_ in seen] == list(range(12))
    assert [loss for _, loss, _ in seen] == losses
    (best,) = seen[int(np.argmin(losses))][2]
    assert best.shape == (64, 96)
    maps = attention_maps(trace, token.embedding, size=(64, 96))
    scaled = (maps[1] - maps.min()) / (maps.max() - maps.min())
    torch.testing.assert_close(best, scaled)


def test_unsure_pixels_do_not_count(trace):
    settings = OptimizationSettings(recipe="ovam", iterations=3)
    mask = box(unsure=False)
    whole = optimize_token(trace, random_token(), mask, settings)
    mask[:, 60:] = 255
    left = optimize_token(trace, random_token(), mask, settings)
    assert whole.info["losses"] != left.info["losses"]


def test_what_is_under_unsure_cells_does_not_count_in_the_default(trace):
    # Whole cells of 8 pixels, of which nothing is known: as if they were not there.
    mask = box()
    mask[:8] = 255
    settings = OptimizationSettings(iterations=3)
    before = optimize_token(trace, random_token(), mask, settings).info["losses"]
    mask[8:16] = 255
    after = optimize_token(trace, random_token(), mask, settings).info["losses"]
    assert before[0] != after[0]
    maps = attention_maps(trace, random_token().embedding[[0, 2]])
    found = (maps[1] / trace.maps_per_pixel).double().numpy()[2:]
    wanted = np.zeros((6, 12))
    wanted[:2, 3:9] = 1  # rows 16 to 32 and columns 24 to 72 in pixels
    inside, outside = found[wanted == 1], found[wanted == 0]
    entropy = -(np.log(inside).mean() + np.log(1 - outside).mean()) / 2
    dice = 1 - 2 * inside.sum() / (inside.size + found.sum())
    assert after[0] == pytest.approx(entropy + dice, rel=1e-4)


def learnable(trace, seed=9):
    """Return a mask that some token of the trace does show."""
    generator = torch.Generator().manual_seed(seed)
    hidden = Token("hidden", "", 2 * torch.randn(2, 12, generator=generator))
    found = phrase_map(trace, hidden)
    return found >= np.quantile(found, 0.8)


def test_the_default_learns_a_mask_and_says_how_well(trace):
    mask, token = learnable(trace), random_token()
    found = optimize_token(trace, token, mask)
    scores, losses = found.info["scores"], found.info["losses"]
    assert scores["after"] > scores["before"] + 0.2
    assert scores["after"] == pytest.approx(
        iou(phrase_map(trace, found) >= scores["threshold_after"], mask), abs=0.02
    )
    assert min(losses) < losses[0]
    assert found.info["cancelled"] is False
    assert found.info["phrase"] == "cat"
    assert found.info["settings"]["iterations"] == 120
    assert found.info["version"] == napari_ovam.__version__
    again = optimize_token(trace, token, mask)
    torch.testing.assert_close(again.embedding, found.embedding, rtol=0, atol=0)


def test_the_default_takes_several_images_of_different_sizes(trace):
    other = replace(random_trace(napari_ovam, seed=3), image_size=(32, 48))
    settings = OptimizationSettings(iterations=5)
    shapes = []
    optimize_token(
        [trace, other],
        random_token(),
        [box(), box(32, 48)],
        settings,
        on_step=lambda i, loss, maps: shapes.append([tuple(m.shape) for m in maps]),
    )
    assert shapes == [[(8, 12), (8, 12)]] * 5


def test_a_stalled_default_ends_early(trace):
    settings = OptimizationSettings(learning_rate=1e3, patience=4)
    token = optimize_token(trace, random_token(), box(), settings)
    losses = token.info["losses"]
    assert len(losses) < 120
    assert min(losses[-4:]) >= min(losses)


@pytest.mark.parametrize("recipe", ["default", "ovam"])
def test_cancel_keeps_the_best_so_far(trace, recipe):
    calls = []

    def progress(done, total):
        calls.append((done, total))
        if done == 4:
            raise Cancelled

    settings = OptimizationSettings(recipe=recipe, iterations=50)
    token = optimize_token(trace, random_token(), box(), settings, progress=progress)
    assert token.info["cancelled"] is True
    assert len(token.info["losses"]) == 4
    assert calls == [(i, 50) for i in (1, 2, 3, 4)]
    short = OptimizationSettings(recipe="ovam", iterations=4)
    if recipe == "ovam":
        same = optimize_token(trace, random_token(), box(), short)
        torch.testing.assert_close(token.embedding, same.embedding)


def test_a_loss_that_is_no_number_keeps_the_best(trace):
    settings = OptimizationSettings(recipe="ovam", learning_rate=1e308, iterations=9)
    with np.errstate(all="ignore"), pytest.raises(OptimizationError) as caught:
        optimize_token(trace, random_token(), box(), settings)
    assert "learning rate below 1e+308" in str(caught.value)
    torch.testing.assert_close(
        caught.value.token.embedding, random_token().embedding[[0, 2]]
    )


def test_flat_maps_are_no_start(trace):
    layers = [replace(la, queries=torch.zeros_like(la.queries)) for la in trace.layers]
    settings = OptimizationSettings(recipe="ovam")
    with pytest.raises(OptimizationError, match="maps of these images are flat"):
        optimize_token(
            replace(trace, layers=tuple(layers)), random_token(), box(), settings
        )


def empty():
    return np.zeros((64, 96), bool)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (empty(), "target 0 is empty"),
        (~empty(), "target 0 is full"),
        (np.zeros((96, 64), bool), r"\(96, 64\) and its image is \(64, 96\)"),
        (np.full((64, 96), 3), "value 3"),
        ([np.zeros((64, 96, 3), bool)], r"\(64, 96, 3\)"),
        ([box(), box()], "1 traces and 2 targets"),
    ],
)
def test_targets_that_make_no_sense(trace, target, message):
    with pytest.raises(ValueError, match=message):
        optimize_token([trace], random_token(), target)


def test_other_models_are_refused(trace):
    known = replace(trace, model="a" * 32)
    with pytest.raises(ModelMismatchError, match="different text encoders"):
        optimize_token(
            [known, replace(trace, model="b" * 32)], random_token(), [box(), box()]
        )
    with pytest.raises(ModelMismatchError, match="b" * 32):
        optimize_token(known, random_token(model="b" * 32), box())
    with pytest.raises(ModelMismatchError, match="rows of 8"):
        optimize_token(trace, random_token(text_dim=8), box())


def test_queries_that_are_no_numbers_are_named(trace):
    first = trace.layers[0]
    broken = replace(first, queries=first.queries * float("nan"))
    with pytest.raises(ValueError, match=f"{first.name} holds NaN"):
        optimize_token(
            replace(trace, layers=(broken, *trace.layers[1:])), random_token(), box()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "best"}, "recipe is 'best'"),
        ({"iterations": 0}, "iterations is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"regularization": float("nan")}, "regularization is nan"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizationSettings(**options)
