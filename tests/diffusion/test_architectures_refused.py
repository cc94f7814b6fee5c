"""What is refused, or goes wrong, says why and what to do instead."""

from __future__ import annotations

import inspect
import json

import diffusers
import joint_models
import numpy as np
import pytest
import small_models
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from napari_ovam import (
    GenerationSettings,
    TraceSettings,
    encode_phrase,
    generate,
    load_pipeline,
    record,
    trace_image,
)
from napari_ovam.attention.tokens import TokenError
from napari_ovam.diffusion.generation import GenerationError
from napari_ovam.hub.families import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("FluxControlPipeline", "more than a text and one image"),
        ("ChromaPipeline", "like the models with joint attention.*not tried"),
    ],
)
def test_kin_of_models_with_joint_attention(name, reason, tmp_path):
    base = joint_models.flux().components
    kind = getattr(diffusers, name)
    taken = inspect.signature(kind).parameters
    pipe = kind(**{part: value for part, value in base.items() if part in taken})
    image = np.zeros((32, 32, 3), np.uint8)
    asked = [
        lambda: record(pipe).__enter__(),
        lambda: generate(pipe, GenerationSettings("a cat")),
        lambda: trace_image(pipe, image),
        lambda: encode_phrase(pipe, "cat"),
    ]
    message = f"{name} .*{reason}"
    for ask in asked:
        with pytest.raises(ModelError, match=message):
            ask()
    index = {"_class_name": type(pipe).__name__}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message):
        load_pipeline(tmp_path)


def test_guidance_in_three_parts_is_refused(pipe):
    other = StableDiffusionInstructPix2PixPipeline(
        **{**pipe.components, "image_encoder": None}, requires_safety_checker=False
    )
    with pytest.raises(ModelError, match="three images at a time"), record(other):
        pass


def test_queries_that_the_chosen_precision_cannot_hold(make_pipe):
    pipe = make_pipe()
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    with torch.no_grad():
        pipe.unet.get_submodule(name).to_q.weight.mul_(1e6)
    settings = GenerationSettings("a cat", steps=1)
    with pytest.raises(ValueError, match=f"{name} asks .*float16.*bfloat16"):
        generate(pipe, settings)
    wide = generate(pipe, settings, trace=TraceSettings(dtype=torch.bfloat16))
    assert all(layer.queries.isfinite().all() for layer in wide.trace.layers)


@pytest.mark.parametrize("family", ["sd", "xl", "pixart"])
def test_nans_of_the_model_are_said(make_pipe, family):
    pipe = {
        "sd": make_pipe,
        "xl": small_models.xl,
        "pixart": small_models.pixart,
    }[family]()
    model = pipe.transformer if family == "pixart" else pipe.unet
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(GenerationError, match=r"NaNs.*float32.*damaged"):
        generate(pipe, GenerationSettings("a cat", steps=2))
    with pytest.raises(GenerationError, match="NaNs"):
        trace_image(pipe, np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("family", ["sd", "xl", "pixart"])
def test_nans_of_the_text_encoder_are_said(make_pipe, family):
    pipe = {
        "sd": make_pipe,
        "xl": small_models.xl,
        "pixart": small_models.pixart,
    }[family]()
    with torch.no_grad():
        for parameter in pipe.text_encoder.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(TokenError, match=r"text encoder .*NaN.*damaged"):
        encode_phrase(pipe, "cat")


def test_the_autoencoder_of_xl_is_run_in_full_precision():
    """Its activations pass float16's largest number: half of it gives NaNs."""
    pipe = small_models.xl()
    with torch.no_grad():  # about 1e5 after the first layer, as the real one gets
        pipe.vae.encoder.conv_in.weight.mul_(3e5)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    expected = trace_image(pipe, image, noise_seeds=1).trace
    pipe.to(torch.float16)
    halved = trace_image(pipe, image, noise_seeds=1).trace
    assert pipe.vae.dtype == torch.float16
    for half, whole in zip(halved.layers, expected.layers, strict=True):
        close = (half.queries.float() - whole.queries.float()).abs().max()
        assert close < 0.05 * whole.queries.abs().max()


@pytest.mark.parametrize(
    "file", ["pytorch_lora_weights.safetensors", "adapter_config.json"]
)
def test_a_folder_of_lora_weights(tmp_path, file):
    (tmp_path / file).write_text("{}")
    with pytest.raises(
        ModelError, match=r"holds no model_index\.json but LoRA weights"
    ):
        load_pipeline(tmp_path)


def test_a_folder_of_one_component(tmp_path):
    small_models.xl().vae.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"one component of a model \(AutoencoderKL\)"):
        load_pipeline(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ModelError, match=r"an autoencoder \(VAE\)"):
        load_pipeline(path)


@pytest.mark.parametrize("family", ["xl", "pixart"])
@pytest.mark.parametrize("size", [0, 100, -1])
def test_truncated_weights(tmp_path, family, size):
    pipe = getattr(small_models, family)()
    pipe.save_pretrained(tmp_path)
    for path in sorted(tmp_path.rglob("*.safetensors")):
        content = path.read_bytes()
        path.write_bytes(content[:size])
        message = f"{path.parent.name}.*broken or incomplete"
        with pytest.raises(ModelError, match=message):
            load_pipeline(tmp_path)
        path.write_bytes(content)
    assert type(load_pipeline(tmp_path, device="cpu")) is type(pipe)


def test_a_phrase_of_ten_thousand_characters(pipe):
    with pytest.raises(TokenError, match=r"'cat cat .*…' has \d+ pieces") as error:
        encode_phrase(pipe, "cat " * 2500)
    assert len(str(error.value)) < 300
