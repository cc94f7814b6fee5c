"""What is fast gives what the plain formula gives: `reference.maps`, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from reference import assert_close

import napari_ovam
from napari_ovam import (
    LayerTrace,
    OptimizationSettings,
    Token,
    Trace,
    attention_maps,
    optimize_token,
    phrase_map,
    phrase_maps,
)
from napari_ovam.attention import maps

ACTIVATIONS = ["softmax", "linear", "sigmoid", "tanh", "relu"]
TEXT_DIM = 10
# Odd grids of which none divides another, one a single row, and one cell.
GRIDS = [((5, 7), 2, 6), ((11, 13), 3, 4), ((1, 3), 1, 8), ((11, 13), 2, 5)]


def odd_trace(calls=2, half=False, bias=True, grids=GRIDS, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        tensor = 2 * torch.randn(*shape, generator=generator)
        return tensor.half() if half else tensor

    layers = tuple(
        LayerTrace(
            f"up_blocks.{i}.attentions.0.transformer_blocks.0.attn2",
            grid,
            numbers(calls, heads, grid[0] * grid[1], dim),
            numbers(heads * dim, TEXT_DIM) / TEXT_DIM**0.5,
            dim**-0.5,
            numbers(heads * dim) if bias else None,
        )
        for i, (grid, heads, dim) in enumerate(grids)
    )
    return Trace(layers, (37, 53), "", "cond")


def text(rows, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(rows, TEXT_DIM, generator=generator)


def values_and_gradient(function, trace, embedding, **options):
    embedding = embedding.clone().requires_grad_()
    found = function(trace, embedding, **options)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    (found * weights).sum().backward()
    return found, embedding.grad


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("calls", [1, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 8])
@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_maps_and_gradients(activation, aggregation, rows, calls, half):
    trace = odd_trace(calls, half)
    options = {"activation": activation, "aggregation": aggregation, "size": (9, 31)}
    found = values_and_gradient(attention_maps, trace, text(rows), **options)
    plain = values_and_gradient(reference.maps, trace, text(rows), **options)
    for ours, theirs in zip(found, plain, strict=True):
        # A softmax over one token is flat: its gradient is nought.
        if theirs.abs().max() > 1e-9:
            assert_close(ours, theirs)
        else:
            assert ours.abs().max() < 1e-4


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("chunk", [1, 300, 2**20])
def test_chunks_of_any_size_and_with_or_without_gradients(
    monkeypatch, chunk, half, bias
):
    trace = odd_trace(calls=5, half=half, bias=bias)
    monkeypatch.setattr(maps, "_CHUNK", chunk)
    for rows in (2, 5):
        expected, gradient = values_and_gradient(reference.maps, trace, text(rows))
        # Buffers are used again only where nothing is kept for gradients.
        found, ours = values_and_gradient(attention_maps, trace, text(rows))
        assert_close(found, expected)
        assert_close(ours, gradient)
        with torch.no_grad():
            assert_close(attention_maps(trace, text(rows)), expected)


def phrases():
    """Return tokens of several lengths and spans, some of one length."""
    spans = [
        (3, (1, 2)),
        (2, (1, 2)),
        (5, (1, 4)),
        (3, (0, 2)),
        (2, (0, 1)),
        (5, (4, 5)),
    ]
    return [
        Token(f"phrase {i}", "", text(rows, seed=i), span)
        for i, (rows, span) in enumerate(spans)
    ]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("normalize", ["max", "probability", "minmax"])
def test_phrases_at_once_are_the_phrases_alone(normalize, half):
    trace = odd_trace(half=half)
    together = phrase_maps(trace, phrases(), normalize=normalize)
    assert together.shape == (6, 37, 53)
    assert together.dtype == np.float32
    for token, found in zip(phrases(), together, strict=True):
        plain = reference.maps(trace, token.embedding, size=(37, 53)).numpy()
        expected = plain[slice(*token.span)].mean(0)
        if normalize == "minmax":
            expected = expected - expected.min()
        if normalize == "probability":
            expected = expected / trace.maps_per_pixel
        else:
            expected = expected / expected.max()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        alone = phrase_map(trace, token, normalize=normalize)
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_no_phrases_are_no_maps():
    assert phrase_maps(odd_trace(), []).shape == (0, 37, 53)


def test_one_wrong_phrase_among_many_is_refused():
    wrong = Token("cat", "", torch.ones(3, TEXT_DIM + 1))
    with pytest.raises(ValueError, match="rows of 11 and the model reads 10"):
        phrase_maps(odd_trace(), [*phrases(), wrong])


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_step_of_the_default_recipe_is_plain_adam(half):
    """The token after one step, and the loss after it, from the formula alone."""
    trace = odd_trace(calls=3, half=half)
    mask = np.zeros((37, 53), bool)
    mask[10:20, 10:40] = True
    start = Token("x", "", text(4), (1, 3))
    rate = 0.05
    losses = optimize_token(
        trace,
        start,
        mask,
        OptimizationSettings(iterations=2, learning_rate=rate),
    ).info["losses"]

    pooled = torch.nn.functional.adaptive_avg_pool2d(
        torch.tensor(mask, dtype=torch.float64)[None], (11, 13)
    )[0]

    def loss(rows):
        found = reference.maps(trace, rows)[1] / trace.maps_per_pixel
        entropy = -(
            (pooled * found.log()).sum() / pooled.sum()
            + ((1 - pooled) * (1 - found).log()).sum() / (1 - pooled).sum()
        )
        dice = 1 - 2 * (pooled * found).sum() / (pooled.sum() + found.sum())
        return entropy / 2 + dice

    rows = start.embedding[[0, 2]].double().requires_grad_()
    first = loss(rows)
    first.backward()
    # Adam's first step is the rate along the gradient's signs (Kingma & Ba, 2015).
    second = loss(rows.detach() - rate * rows.grad.sign())
    np.testing.assert_allclose(losses, [first.item(), second.item()], rtol=1e-3)


def test_what_is_kept_by_default_gives_the_plain_maps_of_those_calls(pipe):
    settings = napari_ovam.GenerationSettings("a cat on the grass", steps=8)
    made = napari_ovam.generate(pipe, settings)
    exact = napari_ovam.generate(
        pipe,
        settings,
        trace=napari_ovam.TraceSettings(layers=None, calls=None, dtype=None),
    )
    np.testing.assert_array_equal(made.image, exact.image)
    assert made.trace.calls == (2, 4, 6)
    part = exact.trace.fine().select(calls=made.trace.calls)
    assert [la.name for la in made.trace.layers] == [la.name for la in part.layers]
    token = napari_ovam.encode_phrase(pipe, "cat")
    rows = reference.maps(part, token.embedding, size=made.trace.image_size)
    expected = rows[slice(*token.span)].mean(0)
    found = phrase_map(made.trace, token)
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-3)
