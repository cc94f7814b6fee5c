"""Memory: what is estimated is what it takes, and plans leave traces as they were."""

from __future__ import annotations

import json
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_ovam import (
    GenerationSettings,
    TraceSettings,
    generate,
    load_pipeline,
    trace_image,
)
from napari_ovam.diffusion import memory as memory_module
from napari_ovam.diffusion import sizes as model_sizes
from napari_ovam.diffusion.memory import (
    MemoryPlan,
    estimate_memory,
    free_memory,
    memory_options,
)
from napari_ovam.diffusion.sizes import ModelSizes
from napari_ovam.hub.families import ModelError

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = GenerationSettings("a cat and a hat", steps=2)


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


def size_of(trace) -> int:
    tensors = [t for la in trace.layers for t in (la.queries, la.key_weight)]
    tensors += [t for la in trace.self_layers for t in (la.queries, la.keys)]
    return sum(t.nbytes for t in tensors)


@pytest.fixture
def of_shapes(tmp_path, monkeypatch):
    """Return a folder of a model of real size, whose weights are shapes only."""

    def make(pipeline: str, part: str, denoiser) -> Path:
        from diffusers import AutoencoderKL

        vae = AutoencoderKL(
            block_out_channels=(8,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
        )
        index = {part: ["diffusers", "x"], "vae": ["diffusers", "y"]}
        for name, module in ((part, denoiser), ("vae", vae)):
            module.save_config(tmp_path / name)
        (tmp_path / "model_index.json").write_text(
            json.dumps({"_class_name": pipeline, **index})
        )
        found = {part: denoiser, "vae": vae}
        monkeypatch.setattr(model_sizes, "weights_of", lambda folder: [folder])
        monkeypatch.setattr(
            model_sizes,
            "tensor_shapes",
            lambda path: {
                k: tuple(v.shape) for k, v in found[path.name].state_dict().items()
            },
        )
        return tmp_path

    return make


def test_the_published_model_needs_what_was_measured_of_it(of_shapes):
    """1.42 GB for 31 calls in full precision, and 860 million parameters."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    sizes = ModelSizes.read(of_shapes("StableDiffusionPipeline", "unet", unet))
    exact = TraceSettings(layers=None, calls=None, dtype=torch.float32)
    keys = sum(320 * 2 ** min(level, 2) * 768 for level in (0, 1, 2) for _ in range(5))
    values = sizes.trace_bytes(64, 64, 31, exact, 2) // 4 - keys
    assert values == 31 * 11_468_800
    assert sizes.parameters["unet"] == 859_520_964
    assert sizes.size == (512, 512)


def test_a_transformers_tokens_are_patches(of_shapes):
    from diffusers import PixArtTransformer2DModel

    with torch.device("meta"):
        transformer = PixArtTransformer2DModel(
            num_layers=3,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=32,
            caption_channels=16,
            sample_size=32,
        )
    folder = of_shapes("PixArtAlphaPipeline", "transformer", transformer)
    sizes = ModelSizes.read(folder)
    exact = TraceSettings(layers=None, calls=(0,), dtype=torch.float32)
    # 16 by 16 patches of 2 by 2 cells; key weights and biases of 32
    assert sizes.trace_bytes(32, 32, 9, exact, 2) == 4 * 3 * (256 * 32 + 32 * 32 + 32)


class Alive(TorchDispatchMode):
    """Count the bytes of tensors that are alive at one time, the model's own aside."""

    def __init__(self, model):
        super().__init__()
        self.now = self.peak = 0
        self.seen = {p.untyped_storage()._cdata for p in model.parameters()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.drop, storage._cdata, storage.nbytes())
        return out

    def drop(self, key, size):
        self.seen.discard(key)
        self.now -= size


@pytest.mark.parametrize(
    ("trace", "height", "width"),
    [
        (TraceSettings(), None, None),
        (TraceSettings(layers=(16,), calls=(0,)), None, None),
        (TraceSettings(layers=(8, 32), self_attention=True), None, None),
        (TraceSettings(), 96, 160),
        (
            TraceSettings(
                layers=None, calls=None, dtype=None, middle=True, self_attention=True
            ),
            96,
            160,
        ),
    ],
)
def test_the_size_of_a_trace_is_known_before_to_the_byte(tiny, trace, height, width):
    settings = GenerationSettings("a cat", steps=2, height=height, width=width)
    recorded = generate(tiny, settings, trace=trace).trace
    found = estimate_memory(
        "tiny",
        device="cpu",
        trace=trace,
        steps=tiny.num_timesteps,
        height=height,
        width=width,
    )
    assert found.trace == size_of(recorded)


@pytest.mark.parametrize("model", ["tiny", "saved"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_those_that_are_loaded(model, dtype, saved):
    model = saved if model == "saved" else model
    loaded = load_pipeline(model, device="cpu", dtype=dtype)
    found = estimate_memory(model, device="cpu", plan=MemoryPlan(dtype=dtype)).weights
    assert set(found) == {"unet", "vae", "text_encoder"}
    for name, size in found.items():
        parts = getattr(loaded, name).parameters()
        assert size == pytest.approx(sum(p.nbytes for p in parts), rel=0.001)


def test_activations_are_enough_for_what_is_alive_and_not_far_above(tiny):
    estimate = max(estimate_memory("tiny", device="cpu").activations.values())
    with torch.no_grad():
        with Alive(tiny.unet) as unet:
            text = torch.zeros(2, 5, tiny.unet.config.cross_attention_dim)
            tiny.unet(torch.zeros(2, 4, 32, 32), 1, encoder_hidden_states=text)
        with Alive(tiny.vae) as vae:
            tiny.vae.decode(torch.zeros(1, 4, 32, 32))
    assert max(unet.peak, vae.peak) < estimate < 4 * max(unet.peak, vae.peak)


@pytest.fixture
def as_if_cuda(monkeypatch):
    monkeypatch.setattr(memory_module, "find_device", torch.device)
    monkeypatch.setattr(memory_module, "free_memory", lambda _: 2**40)


@pytest.mark.parametrize(("side", "worst"), [(64, "unet"), (1024, "vae")])
def test_offload_counts_the_component_that_takes_most_while_it_runs(
    as_if_cuda, side, worst
):
    whole, moved = (
        estimate_memory("tiny", device="cuda", height=side, width=side, plan=plan)
        for plan in (MemoryPlan("float16"), MemoryPlan("float16", offload=True))
    )
    assert whole.activations == moved.activations
    held = {n: w + moved.activations.get(n, 0) for n, w in moved.weights.items()}
    assert max(held, key=held.__getitem__) == worst
    assert moved.needed == held[worst] + moved.trace < whole.needed


def test_cuda_takes_more_to_decode_than_a_cpu(as_if_cuda):
    plan, large = MemoryPlan("float32"), {"height": 1024, "width": 1024}
    cpu, cuda = (
        estimate_memory("tiny", device=device, plan=plan, **large).activations
        for device in ("cpu", "cuda")
    )
    assert cuda["vae"] > 1.6 * cpu["vae"]
    assert cuda["unet"] < 1.2 * cpu["unet"] + 2**25


def test_a_model_that_does_not_fit_gets_options_that_take_less(monkeypatch):
    monkeypatch.setattr(memory_module, "free_memory", lambda _: 30_000_000)
    size = {"height": 256, "width": 256, "steps": 4}
    now = estimate_memory("tiny", device="cpu", **size)
    assert not now.fits
    assert "are free" in str(now)
    options = memory_options("tiny", now, **size)
    assert options[0].name == "Half precision (bfloat16)"
    assert not [o for o in options if o.estimate.plan.offload]  # there is no device
    assert sum(options[0].estimate.weights.values()) * 2 == sum(now.weights.values())
    assert all(o.estimate.needed < now.needed for o in options)
    # One setting stands on the other.
    left = memory_options("tiny", options[0].estimate, **size)
    assert all(o.estimate.plan.dtype == "bfloat16" for o in left)


def test_tiles_take_less_for_images_above_the_decoders_size(monkeypatch):
    monkeypatch.setattr(memory_module, "_UNET_MAPS", 0)
    size = {"height": 1024, "width": 1024}
    now = estimate_memory("tiny", device="cpu", **size)
    names = [o.name for o in memory_options("tiny", now, **size)]
    assert "Decode in tiles" in names


@pytest.mark.parametrize(
    "plan", [MemoryPlan(attention_slicing=True), MemoryPlan(vae_tiling=True)]
)
def test_traces_are_recorded_as_before_with_a_plan(tiny, plan):
    pipe = tiny
    trace = TraceSettings(dtype=None, self_attention=True)
    large = GenerationSettings("a cat and a hat", steps=2, height=320, width=320)
    plain = generate(pipe, large, trace=trace)
    plan.apply(pipe, device="cpu")
    made = generate(pipe, large, trace=trace)
    MemoryPlan().apply(pipe, device="cpu")
    again = generate(pipe, large, trace=trace)
    np.testing.assert_array_equal(plain.image, again.image)
    for before, now in zip(plain.trace.layers, made.trace.layers, strict=True):
        torch.testing.assert_close(now.queries, before.queries, rtol=1e-3, atol=1e-3)
    if plan.vae_tiling:  # which comes after the UNet
        assert torch.equal(now.queries, before.queries)
        assert not np.array_equal(plain.image, made.image)


def test_traces_are_the_same_with_the_hooks_of_offloading():
    """The hooks move weights from the CPU to the CPU here: no GPU was at hand."""
    from diffusers import DiffusionPipeline

    pipe = load_pipeline("tiny", device="cpu")  # its own: it gets hooks
    trace = TraceSettings(dtype=None, self_attention=True)
    plain = generate(pipe, SETTINGS, trace=trace)
    looked = trace_image(pipe, plain.image, noise_seeds=1, trace=trace)
    DiffusionPipeline.enable_model_cpu_offload(pipe, device="cpu:0")
    made = generate(pipe, SETTINGS, trace=trace)
    seen = trace_image(pipe, plain.image, noise_seeds=1, trace=trace)
    np.testing.assert_array_equal(plain.image, made.image)
    for a, b in ((plain, made), (looked, seen)):
        assert a.trace.model == b.trace.model != ""
        for before, now in zip(a.trace.layers, b.trace.layers, strict=True):
            assert torch.equal(before.queries, now.queries)
            assert torch.equal(before.key_weight, now.key_weight)
    MemoryPlan().apply(pipe, device="cpu")
    assert not any(hasattr(p, "_hf_hook") for p in (pipe.unet, pipe.vae))
    np.testing.assert_array_equal(generate(pipe, SETTINGS).image, plain.image)


def test_offload_on_a_cpu_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="nowhere to offload"):
        MemoryPlan(offload=True).load("tiny", device="cpu")


def test_a_plan_loads(saved):
    pipe = MemoryPlan(dtype="bfloat16", vae_tiling=True).load(saved, device="cpu")
    assert pipe.unet.dtype == torch.bfloat16
    assert pipe.vae.use_tiling


def test_what_is_not_here_cannot_be_estimated(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="get it first"):
        estimate_memory("some/model", device="cpu")


def test_free_memory_is_that_of_this_machine():
    assert 10_000_000 < free_memory("cpu") < 10**14
