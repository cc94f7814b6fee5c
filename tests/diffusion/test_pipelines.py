"""Loading pipelines: what loads, and how what cannot load is refused."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import joint_models
import numpy as np
import pytest
import small_models
import torch
from safetensors.torch import load_file, save_file

from napari_ovam import ModelError, encode_phrase, load_pipeline, record
from napari_ovam.diffusion import checkpoints
from napari_ovam.diffusion.devices import OutOfMemory, memory_guard
from napari_ovam.diffusion.phrases import text_encoder_hash
from napari_ovam.diffusion.pipelines import load_text_encoder, model_defaults

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory) -> Path:
    """Return the small pipeline as a diffusers folder; tests do not change it."""
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """Return a copy of the folder, to be broken."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Take the network away, and what earlier downloads left."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


def draw(pipe) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    out = pipe(
        "a cat",
        num_inference_steps=2,
        generator=generator,
        output_type="np",
    )
    return np.asarray(out.images[0])


def test_a_folder_draws_what_it_drew_before_it_was_saved(pipe, saved, capfd):
    loaded = load_pipeline(saved, device="cpu")
    assert loaded.unet.dtype == torch.float32
    assert loaded.safety_checker is None
    np.testing.assert_array_equal(draw(loaded), draw(pipe))
    out, err = capfd.readouterr()
    assert out + err == ""  # neither progress bars nor notes


def test_the_text_encoder_alone_encodes_what_the_whole_model_does(pipe, folder):
    (folder / WEIGHTS).unlink()
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    text = load_text_encoder(folder, device="cpu")
    assert (text.unet, text.vae) == (None, None)
    assert text_encoder_hash(text) == text_encoder_hash(pipe)
    token, wanted = (encode_phrase(p, "a cat") for p in (text, pipe))
    assert torch.equal(token.embedding, wanted.embedding)
    with pytest.raises(ModelError, match=r"has no unet.*load the whole model"):
        record(text).__enter__()


@pytest.mark.parametrize("family", ["xl", "lcm", "pixart", "flux"])
def test_the_text_encoder_of_other_families(make_pipe, tmp_path, family):
    made = {
        "xl": small_models.xl,
        "lcm": lambda: small_models.lcm(make_pipe()),
        "pixart": small_models.pixart,
        "flux": joint_models.flux,
    }[family]()
    made.save_pretrained(tmp_path)
    text = load_text_encoder(tmp_path, device="cpu")
    part = getattr(text, "unet", None) or getattr(text, "transformer", None)
    weights = [] if part is None else list(part.parameters())
    # Models with joint attention are asked again, so they are loaded whole.
    assert all(w.is_meta for w in weights) == (family in ("xl", "lcm"))
    assert any(w.is_meta for w in weights) == (family == "pixart")
    assert text_encoder_hash(text) == text_encoder_hash(made)
    token, wanted = (encode_phrase(p, "a cat") for p in (text, made))
    torch.testing.assert_close(token.embedding, wanted.embedding)


def test_precision_is_chosen_by_name_or_dtype(saved):
    assert load_pipeline(saved, device="cpu", dtype="bfloat16").vae.dtype == (
        torch.bfloat16
    )
    half = load_pipeline(saved, device="cpu", dtype=torch.float16)
    assert {half.unet.dtype, half.text_encoder.dtype} == {torch.float16}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"dtype": "flaot16"}, "dtype 'flaot16'"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99'"),
    ],
)
def test_unusable_device_or_dtype_is_named(saved, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_pipeline(saved, **wrong)


def test_a_folder_that_holds_one_variant_only_loads(folder):
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_name(path.stem + ".fp16.safetensors"))
    assert load_pipeline(folder, device="cpu").unet.dtype == torch.float32


def test_defaults_come_from_the_model(saved, folder):
    pipe = load_pipeline(saved, device="cpu")
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    defaults = model_defaults(pipe)
    assert (defaults.steps, defaults.guidance_scale) == (30, 7.5)
    assert (defaults.height, defaults.width) == (side, side)

    (folder / "ovam_defaults.json").write_text('{"steps": 25, "guidance_scale": 4.0}')
    defaults = model_defaults(load_pipeline(folder, device="cpu"))
    assert (defaults.steps, defaults.guidance_scale) == (25, 4.0)
    assert defaults.width == side

    (folder / "ovam_defaults.json").write_text('{"stpes": 25}')
    with pytest.raises(ModelError, match="stpes"):
        model_defaults(load_pipeline(folder, device="cpu"))


@pytest.mark.parametrize(
    "name",
    ["ChromaPipeline", "AuraFlowPipeline", "KandinskyPipeline", "Mine"],
)
def test_another_architecture_is_refused_by_name_before_weights(tmp_path, name):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ModelError, match=f"{name} is not supported"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_truncated_weights_are_named(folder, size):
    path = folder / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(ModelError, match=r"unet.*broken or incomplete"):
        load_pipeline(folder)


def test_broken_folders_say_what_they_lack(folder, tmp_path):
    with pytest.raises(ModelError, match=r"holds no model_index\.json"):
        load_pipeline(folder / "unet")
    (folder / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match="only pickles"):
        load_pipeline(folder)
    (folder / "unet/diffusion_pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"unet holds no \.safetensors weights:"):
        load_pipeline(folder)
    shutil.rmtree(folder / "unet")
    with pytest.raises(ModelError, match=r"lacks the folder unet/"):
        load_pipeline(folder)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_pipeline(folder)


def test_weights_that_do_not_fit_their_configuration_are_refused(folder):
    save_file({"other.weight": torch.zeros(2)}, folder / WEIGHTS)
    with pytest.raises(ModelError, match=r"lacks \d+ tensors of its unet, such as"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is no model"),
        ("what/is/this", "is no model"),
        ("nowhere/model.safetensors", "no file 'nowhere/model.safetensors'"),
        ("model.ckpt", r"no file 'model\.ckpt'"),
    ],
)
def test_an_unknown_name_is_refused(name, message):
    with pytest.raises(ModelError, match=message):
        load_pipeline(name)


def test_hub_model_without_network_says_what_to_do(offline, capfd):
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"some-model .*HF_HUB_OFFLINE is set"):
        load_pipeline("someone/some-model")
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_hub_model_that_was_downloaded_loads_without_network(saved, offline, tmp_path):
    cache = tmp_path / "models--someone--some-model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("a" * 40)
    shutil.copytree(saved, cache / "snapshots" / ("a" * 40))
    loaded = load_pipeline("someone/some-model", device="cpu")
    assert loaded.unet.device.type == "cpu"


SD1 = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3),
    "cond_stage_model.transformer.text_model.x": torch.zeros(1),
    "first_stage_model.encoder.conv_in.weight": torch.zeros(1),
}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lora_unet_down_blocks_0.lora_down.weight"], "is LoRA weights"),
        (["conditioner.embedders.0.model.x", *SD1], "refiner of Stable Diffusion XL"),
        (["model.diffusion_model.joint_blocks.0.x"], "Diffusion3Pipeline.*single file"),
        (["double_blocks.0.img_attn.qkv.weight"], "FluxPipeline.*single file"),
        (["y_embedder.y_proj.fc1.weight"], "transformer of PixArt"),
        (["unet.down_blocks.0.attn2.to_k.lora_A.weight"], "is LoRA weights"),
        (["encoder.conv_in.weight", "quant_conv.bias"], r"autoencoder \(VAE\)"),
        (["first_stage_model.decoder.mid.attn_1.k.weight"], r"autoencoder \(VAE\)"),
        (["control_model.input_blocks.0.0.weight"], "is a ControlNet"),
        (["emb_params"], "textual inversion"),
        (["model.diffusion_model.x.scale_weight", *SD1], "fp8 with scales"),
        (["model.x.weight.absmax", *SD1], "quantised weights"),
        (["embedding"], "load_token"),
        (["down_blocks.0.resnets.0.conv1.weight"], r"component of a diffusers folder"),
        (list(SD1)[:2], "without its autoencoder"),
        (["something.else"], r"no checkpoint .* something\.else"),
    ],
)
def test_other_safetensors_files_are_recognised(tmp_path, names, message):
    tensors = {name: SD1.get(name, torch.zeros(1)) for name in names}
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(ModelError, match=message):
        load_pipeline(tmp_path / "file.safetensors")


def test_pickles_and_other_files_are_refused(tmp_path):
    for name, message in [("a.ckpt", "pickle"), ("a.png", r"neither a \.safetensors")]:
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ModelError, match=message):
            load_pipeline(tmp_path / name)
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ModelError, match="broken or incomplete"):
        load_pipeline(tmp_path / "a.safetensors")


def original_format(pipe) -> dict[str, torch.Tensor]:
    """Return a pipeline's weights under the names of Stable Diffusion's own code."""
    each = pipe.unet.config.layers_per_block + 1
    with_attention = [hasattr(b, "attentions") for b in pipe.unet.up_blocks]

    def unet(key: str) -> str:
        key = re.sub(r"time_embedding\.linear_1", "time_embed.0", key)
        key = re.sub(r"time_embedding\.linear_2", "time_embed.2", key)
        key = re.sub(r"^conv_in\.", "input_blocks.0.0.", key)
        key = re.sub(r"^conv_norm_out\.", "out.0.", key)
        key = re.sub(r"^conv_out\.", "out.2.", key)
        if m := re.match(r"down_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key):
            block, part, layer = int(m[1]), m[2], int(m[3])
            if part == "downsamplers":
                rest = m[4].replace("conv.", "op.")
                key = f"input_blocks.{(block + 1) * each}.0.{rest}"
            else:
                place = ["resnets", "attentions"].index(part)
                key = f"input_blocks.{1 + block * each + layer}.{place}.{m[4]}"
        if m := re.match(r"up_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key):
            block, part, layer = int(m[1]), m[2], int(m[3])
            if part == "upsamplers":
                place = 1 + with_attention[block]
                key = f"output_blocks.{block * each + each - 1}.{place}.{m[4]}"
            else:
                place = ["resnets", "attentions"].index(part)
                key = f"output_blocks.{block * each + layer}.{place}.{m[4]}"
        for old, new in [("resnets.0", "0"), ("attentions.0", "1"), ("resnets.1", "2")]:
            key = key.replace(f"mid_block.{old}", f"middle_block.{new}")
        if "transformer_blocks" not in key:
            key = key.replace("time_emb_proj", "emb_layers.1")
            key = key.replace("conv_shortcut", "skip_connection")
            for old, new in [
                ("norm1", "in_layers.0"),
                ("conv1", "in_layers.2"),
                ("norm2", "out_layers.0"),
                ("conv2", "out_layers.3"),
            ]:
                key = key.replace(old, new)
        return "model.diffusion_model." + key

    def vae(key: str) -> str:
        count = len(pipe.vae.config.block_out_channels)
        key = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{count - 1 - int(m[1])}", key)
        key = key.replace("down_blocks", "down").replace("conv_norm_out", "norm_out")
        key = re.sub(
            r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key
        )
        key = key.replace("mid_block.attentions.0", "mid.attn_1")
        key = re.sub(r"(down|up)samplers\.0", r"\1sample", key)
        key = key.replace("resnets", "block").replace("conv_shortcut", "nin_shortcut")
        key = key.replace("group_norm", "norm").replace("to_out.0", "proj_out")
        return "first_stage_model." + re.sub(r"to_([qkv])\.", r"\1.", key)

    def text(key: str) -> str:
        key = key.removeprefix("text_model.")
        return "cond_stage_model.transformer.text_model." + key

    named = [(pipe.unet, unet), (pipe.vae, vae), (pipe.text_encoder, text)]
    return {
        rename(key): value.contiguous()
        for module, rename in named
        for key, value in module.state_dict().items()
    }


def test_a_single_checkpoint_draws_what_its_folder_draws(pipe, saved, tmp_path, capfd):
    shutil.copytree(
        saved,
        tmp_path / "mine",
        ignore=lambda _, names: [n for n in names if n.endswith(".safetensors")],
    )
    save_file(original_format(pipe), tmp_path / "mine.safetensors")
    loaded = load_pipeline(tmp_path / "mine.safetensors", device="cpu")
    np.testing.assert_allclose(draw(loaded), draw(pipe), atol=1e-5)
    text = load_text_encoder(tmp_path / "mine.safetensors", device="cpu")
    assert (text.unet, text.vae) == (None, None)
    assert text_encoder_hash(text) == text_encoder_hash(loaded)
    out, err = capfd.readouterr()
    assert out + err == ""


def test_a_checkpoint_without_configuration_says_where_to_put_it(
    pipe, tmp_path, offline
):
    save_file(original_format(pipe), tmp_path / "mine.safetensors")
    with pytest.raises(ModelError, match=r"-v1-5 .*into the folder .*mine"):
        load_pipeline(tmp_path / "mine.safetensors")


class _Predictor(torch.nn.Module):
    """A UNet that knows what it is asked: hands back its input, or an image."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, sample, step, encoder_hidden_states):
        image = torch.ones_like(sample)
        out = sample if self.kind == "epsilon" else 0.07 * sample - image
        return SimpleNamespace(sample=out)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_velocity_prediction_are_told_apart(pipe, kind):
    unet = _Predictor(kind)
    unet.config = pipe.unet.config
    parts = {n: getattr(pipe, n) for n in ("vae_scale_factor", "device", "scheduler")}
    kind_of_pipe = type("StableDiffusionPipeline", (SimpleNamespace,), {})
    asked = kind_of_pipe(unet=unet, encode_prompt=pipe.encode_prompt, **parts)
    assert checkpoints._predicts_noise(asked) is (kind == "epsilon")


def test_out_of_memory_says_how_to_fit_and_other_errors_pass():
    out_of_memory = pytest.raises(OutOfMemory, match=r"CUDA out of memory\. Try less")
    with out_of_memory, memory_guard("Try less."):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match="shapes"), memory_guard(""):
        raise RuntimeError("shapes differ")


def configured(pipe, tensors, path, **metadata) -> Path:
    """Write a checkpoint, with its configuration beside it."""
    pipe.save_pretrained(path)
    for weights in path.rglob("*.safetensors"):
        weights.unlink()
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path.with_suffix(".safetensors"), metadata or None)
    return path.with_suffix(".safetensors")


TEXT = "cond_stage_model.transformer."


def test_a_checkpoint_with_the_first_names_of_its_text_encoder(pipe, tmp_path):
    old = {
        name.replace(f"{TEXT}text_model.", TEXT): tensor
        for name, tensor in original_format(pipe).items()
    }
    loaded = load_pipeline(configured(pipe, old, tmp_path / "old"), device="cpu")
    np.testing.assert_allclose(draw(loaded), draw(pipe), atol=1e-5)


@pytest.mark.parametrize("old", [False, True], ids=["new names", "old names"])
@pytest.mark.parametrize(
    "name", ["attn2.to_q.weight", "layers.1.mlp.fc1.weight", "decoder.conv_in.bias"]
)
def test_tensors_that_a_checkpoint_lacks_are_said(pipe, tmp_path, name, old):
    tensors = {
        n.replace(f"{TEXT}text_model.", TEXT) if old else n: tensor
        for n, tensor in original_format(pipe).items()
        if not n.endswith(name)
    }
    with pytest.raises(ModelError, match=r"(lacks|missing).*whole"):
        load_pipeline(configured(pipe, tensors, tmp_path / "some"), device="cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_tensors_that_a_folder_lacks_are_named(folder, part):
    [path] = (folder / part).glob("*.safetensors")
    tensors = load_file(path)
    gone = sorted(tensors)[1]
    # Another one in its place: it is the names that count, not how many there are.
    tensors["something.else"] = tensors.pop(gone)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"lacks 1 tensors of its {part}, such as"):
        load_pipeline(folder, device="cpu")


@pytest.mark.parametrize(
    ("marks", "metadata", "expected"),
    [
        (["v_pred", "ztsnr"], {}, ("v_prediction", True)),
        (["v_pred"], {}, ("v_prediction", False)),
        ([], {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
        ([], {"modelspec.prediction_type": "epsilon"}, ("epsilon", False)),
    ],
)
def test_what_a_checkpoint_says_that_it_predicts(
    pipe, tmp_path, marks, metadata, expected
):
    tensors = original_format(pipe) | {mark: torch.zeros(0) for mark in marks}
    path = configured(pipe, tensors, tmp_path / "marked", **metadata)
    config = load_pipeline(path, device="cpu").scheduler.config
    assert config.prediction_type == expected[0]
    assert bool(config.get("rescale_betas_zero_snr")) == expected[1]
