"""Stable Diffusion XL: two text encoders, micro-conditions, all attn2 layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import small_models
import torch
from diffusers import StableDiffusionXLControlNetPipeline
from PIL import Image
from probing import check_parity, draw
from reference import assert_close
from safetensors.torch import save_file
from test_pipelines import original_format

from napari_ovam import (
    GenerationSettings,
    TraceSettings,
    attention_maps,
    encode_phrase,
    generate,
    load_pipeline,
    phrase_map,
    trace_image,
)
from napari_ovam.diffusion.pipelines import model_defaults
from napari_ovam.diffusion.weights_hash import text_encoder_hash

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
EXACT = TraceSettings("cond", layers=None, calls=None, dtype=None)


@pytest.fixture(scope="module")
def pipe():
    return small_models.xl()


def own_rows(pipe, text):
    """Return what the pipeline itself makes of a prompt, padding included."""
    return pipe.encode_prompt(text, do_classifier_free_guidance=False)[0][0].detach()


def test_a_phrase_has_the_rows_of_both_encoders(pipe):
    token = encode_phrase(pipe, "red cat", context="a photo of a red cat on the grass")
    whole = own_rows(pipe, "a photo of a red cat on the grass")
    torch.testing.assert_close(token.embedding, whole[: len(token.embedding)])
    assert token.text_dim == 24 + 40
    assert "".join(token.pieces) == "redcat"
    assert token.model == text_encoder_hash(pipe)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_either_encoder_tells_a_model_from_another(part):
    pipe = small_models.xl()
    before = text_encoder_hash(pipe)
    weight = next(getattr(pipe, part).parameters())
    with torch.no_grad():
        weight.neg_()
    assert text_encoder_hash(pipe) != before


@pytest.mark.parametrize(
    ("branch", "row"), [("uncond", 0), ("cond", 1)], ids=["uncond", "cond"]
)
def test_parity(pipe, branch, row):
    rows = encode_phrase(pipe, "a hat on the snow").embedding
    trace, own = check_parity(pipe, pipe.unet, rows, branch=branch, row=row)
    every = [name for name in pipe.unet.attn_processors if "attn2" in name]
    outside = [name for name in every if not name.startswith("mid_block")]
    assert len(trace.layers) == len(outside) < len(every)
    assert {layer.grid for layer in trace.layers} == {(4, 4), (8, 8)}
    assert (trace.branch, trace.image_size) == (branch, (32, 32))
    if branch == "cond":
        assert_close(attention_maps(trace, own_rows(pipe, "a cat")), own)


def test_an_oblong_image(pipe):
    rows = encode_phrase(pipe, "cat").embedding
    trace, _ = check_parity(
        pipe, pipe.unet, rows, aspect=2.0, height=64, width=32, guidance_scale=4.0
    )
    assert trace.image_size == (64, 32)
    assert trace.grid == (16, 8)


def test_generate_draws_what_the_pipeline_draws(pipe):
    made = generate(pipe, GenerationSettings("a cat", steps=2), trace=EXACT)
    plain = draw(pipe, guidance_scale=5.0)[0]
    np.testing.assert_array_equal(made.image, (plain * 255).round().astype(np.uint8))
    assert (made.settings.guidance_scale, made.settings.height) == (5.0, 32)
    assert model_defaults(pipe).steps == 30
    assert phrase_map(made.trace, encode_phrase(pipe, "cat")).shape == (32, 32)


def open_clip(encoder):
    """Return a text encoder's weights under OpenCLIP's names."""
    old = {k.removeprefix("text_model."): v for k, v in encoder.state_dict().items()}
    new = {"text_projection": old.pop("text_projection.weight").T.contiguous()}
    layers = len(encoder.text_model.encoder.layers)
    for layer, kind in itertools.product(range(layers), ("weight", "bias")):
        names = [f"encoder.layers.{layer}.self_attn.{p}_proj.{kind}" for p in "qkv"]
        joined = torch.cat([old.pop(name) for name in names])
        new[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = joined
    renamed = {
        "embeddings.token_embedding": "token_embedding",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm": "ln_final",
        "encoder.layers": "transformer.resblocks",
        "self_attn": "attn",
        "layer_norm": "ln_",
        "fc1": "c_fc",
        "fc2": "c_proj",
    }
    for name, value in old.items():
        for before, after in renamed.items():
            name = name.replace(before, after)
        new[name] = value
    return {f"conditioner.embedders.1.model.{k}": v for k, v in new.items()}


def test_the_single_file_of_an_xl_model(pipe, tmp_path):
    weights = {}
    for name, value in original_format(pipe).items():
        for before, after in {
            "cond_stage_model": "conditioner.embedders.0",
            "add_embedding.linear_1": "label_emb.0.0",
            "add_embedding.linear_2": "label_emb.0.2",
        }.items():
            name = name.replace(before, after)
        weights[name] = value
    save_file(weights | open_clip(pipe.text_encoder_2), tmp_path / "mine.safetensors")
    pipe.save_pretrained(tmp_path / "mine")
    for path in (tmp_path / "mine").rglob("*.safetensors"):
        path.unlink()
    loaded = load_pipeline(tmp_path / "mine.safetensors", device="cpu")
    assert type(loaded) is type(pipe)
    np.testing.assert_allclose(draw(loaded), draw(pipe), atol=1e-5)
    assert text_encoder_hash(loaded) == text_encoder_hash(pipe)


def test_a_saved_model_loads_and_draws_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path, device="cpu")
    np.testing.assert_allclose(draw(loaded), draw(pipe), atol=1e-5)
    assert text_encoder_hash(loaded) == text_encoder_hash(pipe)


def test_tracing_an_image_shows_the_unet_its_micro_conditions(pipe):
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    seen = []
    handle = pipe.unet.register_forward_pre_hook(
        lambda _m, _a, given: seen.append(given["added_cond_kwargs"]), with_kwargs=True
    )
    made = trace_image(pipe, image, prompt="a cat", trace=EXACT, noise_seeds=2)
    handle.remove()
    assert made.trace.calls == (0, 1)
    assert phrase_map(made.trace, encode_phrase(pipe, "cat")).shape == (32, 48)
    height, width = (side * 4 for side in made.trace.grid)
    expected = torch.tensor([[height, width, 0, 0, height, width]]).float()
    assert torch.equal(seen[0]["time_ids"], expected)
    pooled = pipe.encode_prompt("a cat", do_classifier_free_guidance=False)[2]
    assert torch.equal(seen[0]["text_embeds"], pooled)


def test_sdxl_turbo_needs_few_steps_and_no_guidance():
    pipe = small_models.xl(timestep_spacing="trailing")
    made = generate(pipe, GenerationSettings("a cat"), trace=EXACT)
    assert (made.settings.steps, made.settings.guidance_scale) == (4, 0.0)
    assert (made.trace.branch, made.trace.calls) == ("cond", (0, 1, 2, 3))
    rows = encode_phrase(pipe, "cat").embedding
    one_step = {"guidance_scale": 0.0, "num_inference_steps": 1}
    check_parity(pipe, pipe.unet, rows, row=0, **one_step)


def test_a_controlnet(pipe):
    other = StableDiffusionXLControlNetPipeline(
        **pipe.components,
        controlnet=small_models.xl_controlnet(),
        add_watermarker=False,
    )
    other.set_progress_bar_config(disable=True)
    picture = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1)))
    settings = {"image": picture.convert("RGB"), "height": 32, "width": 32}
    off = draw(other, **settings, controlnet_conditioning_scale=0.0)
    assert np.abs(draw(other, **settings) - off).max() > 1e-3
    rows = encode_phrase(other, "a hat").embedding
    trace, _ = check_parity(other, other.unet, rows, **settings)
    assert trace.model == text_encoder_hash(pipe)
