"""Kolors: the UNet of XL, ChatGLM through a projection, a tokenizer without places."""

from __future__ import annotations

import kolors_model
import numpy as np
import pytest
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
    save_trace,
    trace_image,
)
from napari_ovam.attention.optimize import OptimizationSettings
from napari_ovam.diffusion.phrases import text_space

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
SIZE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield kolors_model.kolors(tmp_path_factory.mktemp("kolors"), patch)


def test_a_phrase_is_what_the_unet_reads_of_it(pipe):
    prompt = "a photo of a red catfish on the grass"
    token = encode_phrase(pipe, "red catfish", context=prompt)
    rows, *_ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
    count = len(token.embedding)
    expected = pipe.unet.encoder_hid_proj(rows)[0, -count:].detach()
    torch.testing.assert_close(token.embedding, expected, atol=1e-5, rtol=1e-4)
    assert "".join(token.pieces) == "redcatfish"
    assert token.span[0] == 2 + 4  # after the start rows and "a photo of a"
    assert text_space(pipe).text_dim == token.text_dim == 24


@pytest.mark.parametrize(("branch", "row"), [("uncond", 0), ("cond", 1)])
def test_parity(pipe, branch, row):
    rows = encode_phrase(pipe, "a hat on the snow").embedding
    trace, own = check_parity(
        pipe, pipe.unet, rows, branch=branch, row=row, negative_prompt="a dog", **SIZE
    )
    assert trace.image_size == (32, 32)
    if branch == "cond":
        prompt = encode_phrase(pipe, "a cat").embedding
        maps = attention_maps(trace, prompt)
        assert maps.shape[0] < own.shape[0]  # the pipeline pads to 256


def test_it_generates_optimizes_and_looks(pipe, tmp_path):
    exact = TraceSettings("cond", layers=None, calls=None, dtype=None)
    made = generate(pipe, GenerationSettings("a cat", steps=2, **SIZE), trace=exact)
    again = load_trace(save_trace(made.trace, tmp_path / "a.safetensors"))
    token = encode_phrase(pipe, "cat")
    assert_close(*(torch.from_numpy(phrase_map(t, token)) for t in (again, made.trace)))
    target = np.zeros((32, 32), np.uint8)
    target[:, :16] = 1
    learned = optimize_token(again, token, target, OptimizationSettings(iterations=5))
    assert min(learned.info["losses"]) < learned.info["losses"][0]
    looked = trace_image(pipe, made.image, prompt="a cat", noise_seeds=1)
    assert phrase_map(looked.trace, token).shape == (32, 32)
