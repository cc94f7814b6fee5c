"""Maps agree with the method as written down, and refuse what makes no sense."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import torch
from reference import assert_close, random_trace

import napari_ovam
from napari_ovam import Token, attention_maps, phrase_map
from napari_ovam.attention import maps
from napari_ovam.attention.trace import ModelMismatchError

ACTIVATIONS = ["softmax", "linear", "sigmoid", "tanh", "relu"]


@pytest.fixture
def trace():
    return random_trace(napari_ovam)


def text(tokens: int, text_dim: int = 12, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(tokens, text_dim, generator=generator)


def token(embedding, span=(1, 2), model=""):
    return Token("cat", model, embedding, span)


@pytest.mark.parametrize("tokens", [1, 2, 5])
@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_maps_are_those_of_the_formula(trace, activation, aggregation, tokens):
    options = {"activation": activation, "aggregation": aggregation}
    found = attention_maps(trace, text(tokens), **options)
    assert found.dtype == torch.float32
    assert found.shape == (tokens, 8, 12)
    assert_close(found, reference.maps(trace, text(tokens), **options))


@pytest.mark.parametrize("tokens", [2, 5])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_biases_other_sizes_and_half_precision(tokens, half):
    trace = random_trace(napari_ovam, bias=True, half=half)
    found = attention_maps(trace, text(tokens), size=(30, 20))
    # The reference reads the same half-precision numbers: the sums are not half.
    assert_close(found, reference.maps(trace, text(tokens), size=(30, 20)))


def test_many_calls_in_small_chunks(monkeypatch):
    trace = random_trace(napari_ovam, calls=7)
    monkeypatch.setattr(maps, "_CHUNK", 600)
    for tokens in (2, 3):
        assert_close(
            attention_maps(trace, text(tokens)), reference.maps(trace, text(tokens))
        )


def test_maps_of_a_pixel_add_up(trace):
    total = attention_maps(trace, text(6)).sum(0)
    assert trace.maps_per_pixel == 3 * (2 + 4 + 3 + 2)
    torch.testing.assert_close(total, torch.full((8, 12), float(trace.maps_per_pixel)))


@pytest.mark.parametrize("tokens", [2, 4])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_the_formula(trace, activation, tokens):
    weights = torch.randn(tokens, 9, 9, generator=torch.Generator().manual_seed(2))
    gradients = []
    for function in (attention_maps, reference.maps):
        embedding = text(tokens).requires_grad_()
        found = function(trace, embedding, activation=activation, size=(9, 9))
        (found * weights).sum().backward()
        gradients.append(embedding.grad)
    assert_close(*gradients)


def test_selected_layers_and_calls(trace):
    part = trace.select(layers=[12, trace.layers[0].name], calls=[0, -1])
    assert [layer.grid for layer in part.layers] == [(4, 6), (8, 12), (8, 12)]
    assert part.calls == (0, 2)
    assert_close(attention_maps(part, text(3)), reference.maps(part, text(3)))
    small = trace.select(layers=[3], calls=[1])
    assert attention_maps(small, text(3)).shape == (3, 2, 3)
    only = SimpleNamespace(layers=[trace.layers[2]])
    first = trace.layers[2].queries[1:2]
    only.layers[0] = replace(only.layers[0], queries=first)
    assert_close(attention_maps(small, text(3)), reference.maps(only, text(3)))


@pytest.mark.parametrize("normalize", ["max", "probability", "minmax"])
def test_phrase_maps(trace, normalize):
    found = phrase_map(trace, token(text(5), (1, 3)), normalize=normalize)
    assert found.dtype == np.float32
    expected = reference.maps(trace, text(5), size=trace.image_size)[1:3].mean(0)
    if normalize == "max":
        expected = expected / expected.max()
    elif normalize == "minmax":
        expected = (expected - expected.min()) / (expected.max() - expected.min())
    else:
        expected = expected / trace.maps_per_pixel
    assert found.shape == (64, 96)
    assert found.min() >= 0
    assert found.max() <= 1
    assert_close(torch.from_numpy(found), expected)


def test_a_flat_map_is_no_division_by_zero(trace):
    layers = [replace(la, queries=torch.zeros_like(la.queries)) for la in trace.layers]
    flat = replace(trace, layers=tuple(layers))
    assert (phrase_map(flat, token(text(3))) == 1).all()
    assert (phrase_map(flat, token(text(3)), normalize="minmax") == 0).all()


def test_tokens_of_another_model_are_refused(trace):
    known = replace(trace, model="aaa")
    with pytest.raises(ModelMismatchError, match=r"'cat'.*bbb.*aaa"):
        phrase_map(known, token(text(3), model="bbb"))
    for ours, theirs in [("aaa", "aaa"), ("aaa", ""), ("", "bbb")]:
        phrase_map(replace(trace, model=ours), token(text(3), model=theirs))


@pytest.mark.parametrize(
    ("embedding", "options", "message"),
    [
        (text(3, 13), {}, r"\(3, 13\).*\(n, 12\)"),
        (text(3)[0], {}, r"\(12,\)"),
        (text(0), {}, r"\(0, 12\)"),
        (text(3) * float("nan"), {}, "embedding holds NaN"),
        (text(3), {"activation": "gelu"}, "activation is 'gelu'.*softmax"),
        (text(3), {"aggregation": "max"}, "aggregation is 'max'.*mean"),
        (text(3), {"size": (0, 4)}, r"size is \(0, 4\)"),
    ],
)
def test_wrong_questions_name_what_is_wrong(trace, embedding, options, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(trace, embedding, **options)


def test_wrong_phrase_maps_name_what_is_wrong(trace):
    with pytest.raises(ValueError, match="normalize is 'sum'"):
        phrase_map(trace, token(text(3)), normalize="sum")


@pytest.mark.parametrize("tokens", [2, 3])
def test_nan_in_the_queries_names_the_layer(trace, tokens):
    trace.layers[1].queries[0, 0, 5, 0] = float("nan")
    with pytest.raises(ValueError, match=r"up_blocks\.1\..*NaN"):
        attention_maps(trace, text(tokens))
