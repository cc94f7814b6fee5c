"""Stable Diffusion 1.x and 2.x, LCM, and what people put on top of them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import reference
import small_models
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
)
from PIL import Image
from probing import check_parity, draw
from reference import Capture, assert_close

from napari_ovam import (
    GenerationSettings,
    TraceSettings,
    attention_maps,
    encode_phrase,
    generate,
    load_pipeline,
    record,
    trace_image,
)
from napari_ovam.diffusion.generation import TruncatedPromptWarning

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
EXACT = TraceSettings("cond", layers=None, calls=None, dtype=None)
needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="diffusers loads LoRA with peft"
)


def own_rows(pipe, text):
    """Return what the pipeline itself makes of a prompt, padding included."""
    return pipe.encode_prompt(text, "cpu", 1, False)[0][0].detach()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_parity_of_both_predictions(make_pipe, prediction):
    pipe = make_pipe()
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, prediction_type=prediction
    )
    rows = encode_phrase(pipe, "a hat on the snow").embedding
    for branch, row in (("uncond", 0), ("cond", 1)):
        trace, own = check_parity(pipe, pipe.unet, rows, branch=branch, row=row)
        assert trace.branch == branch
    assert_close(attention_maps(trace, own_rows(pipe, "a cat")), own)


def test_a_v_prediction_model_of_2x_shape_loads_and_draws_the_same(make_pipe, tmp_path):
    pipe = make_pipe()
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, prediction_type="v_prediction"
    )
    pipe.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path, device="cpu")
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    np.testing.assert_allclose(draw(loaded), draw(pipe), atol=1e-5)


@pytest.mark.parametrize("kind", ["SD-Turbo", "LCM-LoRA"])
def test_distilled_models_take_few_steps_without_guidance(make_pipe, kind):
    pipe = make_pipe()
    config = pipe.scheduler.config
    if kind == "SD-Turbo":
        pipe.scheduler = EulerDiscreteScheduler.from_config(
            config, timestep_spacing="trailing"
        )
    else:
        pipe.scheduler = LCMScheduler.from_config(config)
    made = generate(pipe, GenerationSettings("a cat"), trace=EXACT)
    assert (made.settings.steps, made.settings.guidance_scale) == (4, 0.0)
    assert (made.trace.branch, made.trace.calls) == ("cond", (0, 1, 2, 3))
    rows = encode_phrase(pipe, "cat").embedding
    for steps in (1, 4):
        settings = {"guidance_scale": 0.0, "num_inference_steps": steps}
        check_parity(pipe, pipe.unet, rows, row=0, **settings)


def test_a_2x_model_for_pure_noise_is_not_taken_for_a_distilled_one(make_pipe):
    pipe = make_pipe()
    pipe.scheduler = EulerDiscreteScheduler.from_config(
        pipe.scheduler.config,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    made = generate(pipe, GenerationSettings("a cat", steps=2))
    assert made.settings.guidance_scale == 7.5


def test_a_latent_consistency_model(pipe):
    consistent = small_models.lcm(pipe)
    rows = encode_phrase(consistent, "a hat").embedding
    settings = {"guidance_scale": 8.5, "num_inference_steps": 4}
    trace, own = check_parity(
        consistent, consistent.unet, rows, row=0, branch="uncond", **settings
    )
    assert trace.branch == "cond"  # there is no other
    assert_close(attention_maps(trace, own_rows(consistent, "a cat")), own)
    made = generate(consistent, GenerationSettings("a cat"), trace=EXACT)
    plain = draw(consistent, **settings)[0]
    np.testing.assert_array_equal(made.image, (plain * 255).round().astype(np.uint8))
    seen = trace_image(consistent, made.image, trace=EXACT)
    assert seen.trace.calls == (0, 1, 2)


def lora(pipe, seed=0, rank=2):
    """Return a LoRA on the cross-attention's queries and keys, and what it adds."""
    generator = torch.Generator().manual_seed(seed)
    state, deltas = {}, {}
    for name, module in pipe.unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_q")):
            out, into = module.weight.shape
            down = torch.randn(rank, into, generator=generator)
            up = torch.randn(out, rank, generator=generator) / 8
            state[f"unet.{name}.lora_A.weight"] = down
            state[f"unet.{name}.lora_B.weight"] = up
            deltas[name] = up @ down
    return state, deltas


@needs_peft
@pytest.mark.parametrize("how", ["unmerged", "half", "merged", "off", "two"])
def test_a_lora_is_in_the_keys(make_pipe, how):
    pipe = make_pipe()
    state, deltas = lora(pipe)
    before = {
        n: m.to_k.weight.detach().clone()
        for n, m in pipe.unet.named_modules()
        if n.endswith("attn2")
    }
    pipe.load_lora_weights(state, adapter_name="style")
    settings, share = {}, 1.0
    if how == "half":
        settings["cross_attention_kwargs"] = {"scale": 0.5}
        share = 0.5
    elif how == "merged":
        pipe.fuse_lora()
    elif how == "off":
        pipe.disable_lora()
        share = 0.0
    elif how == "two":
        other, more = lora(pipe, seed=1)
        deltas = {n: deltas[n] + 0.5 * more[n] for n in deltas}
        pipe.load_lora_weights(other, adapter_name="other")
        pipe.set_adapters(["style", "other"], [1.0, 0.5])
    rows = encode_phrase(pipe, "a hat on the snow").embedding
    trace, _ = check_parity(pipe, pipe.unet, rows, **settings)
    for layer in trace.layers:
        expected = before[layer.name] + share * deltas[f"{layer.name}.to_k"]
        torch.testing.assert_close(layer.key_weight, expected, atol=1e-5, rtol=1e-5)
        assert layer.key_bias is None


@pytest.fixture
def inverted(make_pipe):
    """Return a pipeline with a textual inversion of two vectors."""
    pipe = make_pipe()
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    pipe.load_textual_inversion({"<toy>": rows})
    return pipe


def test_a_textual_inversion_is_a_phrase(inverted):
    token = encode_phrase(inverted, "<toy>", context="a red <toy> on the snow")
    whole = own_rows(inverted, "a red <toy> on the snow")
    torch.testing.assert_close(token.embedding, whole[: len(token.embedding)])
    assert token.span == (3, 5)
    assert token.pieces == ("<toy>", "<toy>_1")
    trace, own = check_parity(
        inverted, inverted.unet, token.embedding, prompt="a red <toy> on the snow"
    )
    assert_close(attention_maps(trace, whole), own)
    assert trace.model == token.model


def test_an_ip_adapter(make_pipe):
    pipe = make_pipe()
    plain = draw(pipe)
    generator = torch.Generator().manual_seed(0)
    images, tokens, text_dim = 12, 4, 32  # four, whatever the weights say

    def numbers(*shape):
        return torch.randn(*shape, generator=generator) / 4

    layers = [n for n in pipe.unet.attn_processors if n.endswith("attn2.processor")]
    adapter = {}
    for place, name in enumerate(layers):
        size = pipe.unet.get_submodule(name.removesuffix(".processor")).inner_dim
        for part in ("to_k_ip", "to_v_ip"):
            adapter[f"{2 * place + 1}.{part}.weight"] = numbers(size, text_dim)
    projection = {
        "proj.weight": numbers(tokens * text_dim, images),
        "proj.bias": numbers(tokens * text_dim),
        "norm.weight": torch.ones(text_dim),
        "norm.bias": torch.zeros(text_dim),
    }
    pipe.load_ip_adapter(
        {"image_proj": projection, "ip_adapter": adapter},
        subfolder="",
        weight_name="",
        image_encoder_folder=None,
    )
    settings = {"ip_adapter_image_embeds": [numbers(2, 1, images)]}
    changed = draw(pipe, **settings)
    assert np.abs(changed - plain).max() > 1e-3
    with Capture(pipe) as captured, record(pipe, branch="cond") as recorder:
        recorded = draw(pipe, **settings)
    np.testing.assert_array_equal(recorded, changed)
    rows = encode_phrase(pipe, "a hat").embedding
    expected = reference.maps(captured.row(1), rows)
    assert_close(attention_maps(recorder.traces[0], rows), expected)


def test_a_controlnet(pipe):
    other = StableDiffusionControlNetPipeline(
        **pipe.components,
        controlnet=small_models.sd_controlnet(pipe),
        requires_safety_checker=False,
    )
    other.set_progress_bar_config(disable=True)
    picture = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1)))
    settings = {"image": picture.convert("RGB"), "height": 32, "width": 32}
    without = draw(other, **settings, controlnet_conditioning_scale=0.0)
    assert np.abs(draw(other, **settings) - without).max() > 1e-3
    rows = encode_phrase(other, "a hat").embedding
    trace, own = check_parity(other, other.unet, rows, **settings)
    assert_close(attention_maps(trace, own_rows(pipe, "a cat")), own)


def test_a_prompt_of_ten_thousand_characters_is_cut_and_that_is_said(pipe):
    start = "a photo of a cat and a red hat on the grass"
    endless = " ".join([start, *map(str, range(3000))])[:10_000]
    with pytest.warns(TruncatedPromptWarning, match=r"reads 32 .* is left out") as said:
        made = generate(pipe, GenerationSettings(endless, steps=1), trace=EXACT)
    assert len(str(said[0].message)) < 300
    kept = str(said[0].message).split("after '")[1].split("' is left")[0]
    whole = endless[: endless.index(kept) + len(kept)]
    assert len(pipe.tokenizer(whole).input_ids) == 32
    np.testing.assert_array_equal(
        made.image, generate(pipe, GenerationSettings(whole, steps=1)).image
    )
    with pytest.warns(TruncatedPromptWarning, match="the prompt has"):
        trace_image(pipe, made.image, prompt=endless)
    with pytest.warns(TruncatedPromptWarning, match="negative prompt has"):
        generate(pipe, GenerationSettings("a cat", endless, steps=1))
