"""Kandinsky 3: a UNet of its own, T5 through a projection, no usual autoencoder."""

from __future__ import annotations

import numpy as np
import pytest
import small_transformers
import torch
from probing import check_parity
from reference import assert_close

from napari_ovam import (
    GenerationSettings,
    TraceSettings,
    attention_maps,
    encode_phrase,
    generate,
    load_trace,
    optimize_token,
    phrase_map,
    record,
    save_trace,
    trace_image,
)
from napari_ovam.attention.optimize import OptimizationSettings
from napari_ovam.diffusion.phrases import text_encoder_hash
from napari_ovam.diffusion.pipelines import load_pipeline, load_text_encoder

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
SIZE = {"height": 128, "width": 192}
EXACT = TraceSettings("cond", layers=None, calls=None, dtype=None)


@pytest.fixture(scope="module")
def pipe():
    return small_transformers.make("kandinsky")


@pytest.mark.parametrize(("branch", "row"), [("uncond", 0), ("cond", 1)])
def test_parity(pipe, branch, row):
    rows = encode_phrase(pipe, "a hat on the snow").embedding
    trace, own = check_parity(
        pipe, pipe.unet, rows, branch=branch, row=row, aspect=2 / 3, **SIZE
    )
    assert {layer.grid for layer in trace.layers} == {(8, 12), (4, 6), (2, 3)}
    assert trace.image_size == (128, 192)
    if branch == "cond":
        prompt = encode_phrase(pipe, "a cat").embedding
        assert_close(attention_maps(trace, prompt), own[: len(prompt)], tolerance=0.02)


def test_self_attention_is_refused_by_name(pipe):
    with pytest.raises(ValueError, match="self-attention of Kandinsky 3"):
        record(pipe, self_attention=True).__enter__()


def test_it_generates_optimizes_and_is_loaded_again(pipe, tmp_path):
    settings = GenerationSettings("a cat", steps=2, **SIZE)
    made = generate(pipe, settings, trace=EXACT, preview=lambda *_: None)
    assert made.image.shape == (128, 192, 3)
    again = load_trace(save_trace(made.trace, tmp_path / "a.safetensors"))
    token = encode_phrase(pipe, "cat")
    maps = [phrase_map(trace, token) for trace in (again, made.trace)]
    np.testing.assert_allclose(*maps, atol=1e-6)
    target = np.zeros((128, 192), np.uint8)
    target[:, :96] = 1
    learned = optimize_token(again, token, target, OptimizationSettings(iterations=5))
    assert min(learned.info["losses"]) < learned.info["losses"][0]
    pipe.save_pretrained(tmp_path / "model")
    whole = load_pipeline(tmp_path / "model", device="cpu")
    text = load_text_encoder(tmp_path / "model", device="cpu")
    for other in (whole, text):
        assert text_encoder_hash(other) == text_encoder_hash(pipe)
        assert torch.equal(encode_phrase(other, "cat").embedding, token.embedding)


def test_pictures_cannot_be_looked_at(pipe):
    with pytest.raises(ValueError, match="no autoencoder of the usual kind"):
        trace_image(pipe, np.zeros((64, 64, 3), np.uint8))
