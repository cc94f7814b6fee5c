"""PixArt-alpha and -Sigma: a transformer, T5 and a projection, biases in the keys."""

from __future__ import annotations

import numpy as np
import pytest
import small_models
import torch
from diffusers import LCMScheduler
from probing import check_parity, draw
from reference import assert_close

from napari_ovam import (
    GenerationSettings,
    ModelError,
    OptimizationSettings,
    TraceSettings,
    attention_maps,
    encode_phrase,
    generate,
    load_pipeline,
    load_trace,
    optimize_token,
    phrase_map,
    record,
    save_trace,
    trace_image,
)
from napari_ovam.diffusion.phrases import text_space
from napari_ovam.diffusion.pipelines import model_defaults, pipeline_architecture
from napari_ovam.diffusion.weights_hash import text_encoder_hash

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
EXACT = TraceSettings("cond", layers=None, calls=None, dtype=None)
AS_IT_STANDS = {"clean_caption": False, "use_resolution_binning": False}


@pytest.fixture(scope="module", params=["alpha", "sigma"])
def pipe(request):
    return small_models.pixart(request.param)


@pytest.fixture(scope="module")
def alpha():
    return small_models.pixart()


def projected(pipe, text):
    """Return the pipeline's own rows of a prompt as the attention reads them."""
    rows, mask, _, _ = pipe.encode_prompt(text, do_classifier_free_guidance=False)
    return pipe.transformer.caption_projection(rows)[0].detach(), mask[0].sum()


def test_a_phrase_is_what_the_transformer_reads_of_it(pipe):
    prompt = "A photo of a Red cat on the grass"
    token = encode_phrase(pipe, "red Cat", context=prompt)
    rows, count = projected(pipe, prompt)
    assert len(token.embedding) == count  # no start, one end
    torch.testing.assert_close(token.embedding, rows[:count], atol=1e-5, rtol=1e-4)
    assert token.pieces == ("red", "cat")
    assert token.span == (4, 6)
    assert token.text_dim == 24


def test_a_phrase_alone_has_its_end_as_the_background(alpha):
    token = encode_phrase(alpha, "catfish")
    assert "".join(token.pieces) == "catfish"
    assert token.span == (0, len(token.embedding) - 1)
    assert torch.equal(token.background, token.embedding[-1])
    assert text_space(alpha).start().shape == (24,)


def test_the_projection_tells_a_model_from_another(alpha):
    other = small_models.pixart()
    assert text_encoder_hash(other) == text_encoder_hash(alpha)
    with torch.no_grad():
        other.transformer.caption_projection.linear_2.weight.neg_()
    assert text_encoder_hash(other) != text_encoder_hash(alpha)


@pytest.mark.parametrize(
    ("branch", "row"), [("uncond", 0), ("cond", 1)], ids=["uncond", "cond"]
)
def test_parity(pipe, branch, row):
    rows = encode_phrase(pipe, "a hat on the snow").embedding
    trace, own = check_parity(
        pipe, pipe.transformer, rows, branch=branch, row=row, **AS_IT_STANDS
    )
    assert [layer.name for layer in trace.layers] == [
        "transformer_blocks.0.attn2",
        "transformer_blocks.1.attn2",
    ]
    assert {layer.grid for layer in trace.layers} == {(4, 4)}
    for layer in trace.layers:
        to_k = pipe.transformer.get_submodule(layer.name).to_k
        assert torch.equal(layer.key_bias, to_k.bias)
        assert layer.key_bias.any()
    assert (trace.branch, trace.image_size) == (branch, (32, 32))
    if branch == "cond":
        prompt = encode_phrase(pipe, "a cat").embedding
        # What the padding gets is next to nothing: it is masked.
        assert_close(attention_maps(trace, prompt), own[: len(prompt)])


def test_an_oblong_image(alpha):
    rows = encode_phrase(alpha, "cat").embedding
    size = {"height": 64, "width": 32}
    trace, _ = check_parity(
        alpha, alpha.transformer, rows, aspect=2.0, **size, **AS_IT_STANDS
    )
    assert (trace.image_size, trace.grid) == ((64, 32), (8, 4))


def test_without_guidance(alpha):
    rows = encode_phrase(alpha, "cat").embedding
    trace, _ = check_parity(
        alpha, alpha.transformer, rows, row=0, guidance_scale=1.0, **AS_IT_STANDS
    )
    assert trace.branch == "cond"


def test_several_images_and_several_calls(alpha):
    with record(alpha, branch="cond", self_attention=True) as recorder:
        draw(alpha, ["a cat", "a dog"], num_inference_steps=3, **AS_IT_STANDS)
        draw(alpha, "a dog", **AS_IT_STANDS)
    assert [len(trace.calls) for trace in recorder.traces] == [3, 3, 2]
    names = [layer.name for layer in recorder.traces[0].self_layers]
    assert names == ["transformer_blocks.0.attn1", "transformer_blocks.1.attn1"]


def test_generate_draws_what_the_pipeline_draws(pipe, tmp_path):
    settings = GenerationSettings("A cat", negative_prompt="a Dog", steps=3)
    seen, previews = [], []
    made = generate(
        pipe,
        settings,
        trace=EXACT,
        progress=lambda *done: seen.append(done),
        preview=lambda done, picture: previews.append((done, picture.shape)),
    )
    plain = draw(
        pipe,
        "A cat",
        num_inference_steps=3,
        negative_prompt="a Dog",
        guidance_scale=4.5,
        **AS_IT_STANDS,
    )
    np.testing.assert_array_equal(made.image, (plain[0] * 255).round().astype(np.uint8))
    assert made.trace.calls == (0, 1, 2)
    again = load_trace(save_trace(made.trace, tmp_path / "cat.safetensors"))
    token = encode_phrase(pipe, "cat")
    np.testing.assert_array_equal(
        phrase_map(again, token), phrase_map(made.trace, token)
    )
    assert (seen[0], seen[-1]) == ((0, 3), (3, 3))
    assert previews == [(3, (32, 32, 3))]
    assert model_defaults(pipe).steps == 20


def test_sizes_are_whole_patches(alpha):
    assert pipeline_architecture(alpha).alignment(alpha) == 8
    with pytest.raises(ValueError, match=r"height is 36.*multiples of 8"):
        generate(alpha, GenerationSettings("a cat", height=36))


@pytest.mark.parametrize("sample_size", [8, 128])
def test_tracing_an_image(sample_size):
    pipe = small_models.pixart(sample_size=sample_size)
    side = sample_size * 4
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    made = trace_image(pipe, image, prompt="a cat", trace=EXACT, noise_seeds=1)
    assert made.trace.grid == (sample_size // 2, sample_size // 2)
    assert phrase_map(made.trace, encode_phrase(pipe, "cat")).shape == (side, side)


def test_optimizing_a_token(alpha):
    trace = generate(alpha, GenerationSettings("a cat", steps=2), trace=EXACT).trace
    target = np.zeros((32, 32), np.uint8)
    target[8:24, 8:24] = 1
    token = optimize_token(
        trace, encode_phrase(alpha, "cat"), target, OptimizationSettings(iterations=5)
    )
    losses = token.info["losses"]
    assert losses[-1] < losses[0]
    assert tuple(token.embedding.shape) == (2, 24)


def test_a_saved_model_loads_and_draws_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path, device="cpu")
    assert type(loaded) is type(pipe)
    np.testing.assert_allclose(
        draw(loaded, **AS_IT_STANDS), draw(pipe, **AS_IT_STANDS), atol=1e-5
    )
    assert text_encoder_hash(loaded) == text_encoder_hash(pipe)
    pieces = encode_phrase(loaded, "red cat").pieces
    assert pieces == ("red", "cat")


def test_a_tokenizer_that_needs_sentencepiece_says_so(alpha, tmp_path, monkeypatch):
    alpha.save_pretrained(tmp_path)
    (tmp_path / "tokenizer/tokenizer.json").rename(tmp_path / "tokenizer/spiece.model")
    monkeypatch.setattr("napari_ovam.hub.files.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install sentencepiece protobuf"):
        load_pipeline(tmp_path)


def test_a_distilled_pixart_takes_one_step_and_others_two(alpha):
    with pytest.raises(ValueError, match="steps is 1: give an integer from 2"):
        generate(alpha, GenerationSettings("a cat", steps=1))
    pipe = small_models.pixart()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    made = generate(pipe, GenerationSettings("a cat", steps=1), trace=EXACT)
    assert made.trace.branch == "cond"
    assert model_defaults(pipe).steps == 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(alpha, tmp_path, dtype):
    alpha.save_pretrained(tmp_path)
    half = load_pipeline(tmp_path, device="cpu", dtype=dtype)
    assert {half.transformer.dtype, half.vae.dtype} == {getattr(torch, dtype)}
    if dtype == "float16":  # where T5 overflows if all of it is
        layer = half.text_encoder.encoder.block[0].layer[-1].DenseReluDense
        assert layer.wo.weight.dtype == torch.float32
    settings = GenerationSettings("a cat", steps=2)
    made, whole = (generate(p, settings, trace=EXACT) for p in (half, alpha))
    difference = made.image.astype(int) - whole.image.astype(int)
    assert np.abs(difference).mean() < 2
    token = encode_phrase(half, "red cat")
    assert_close(token.embedding, encode_phrase(alpha, "red cat").embedding, 0.05)
