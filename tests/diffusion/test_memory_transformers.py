"""Sizes of the other families: what headers and configurations say is what it is."""

from __future__ import annotations

import pytest
import small_transformers
import torch

from napari_ovam import TraceSettings, record
from napari_ovam.attention.trace import tensors_of
from napari_ovam.diffusion.memory import MemoryPlan, estimate_memory
from napari_ovam.diffusion.sizes import ModelSizes

EXACT = TraceSettings("cond", layers=None, calls=None, dtype=None)
CALLS = {
    "sana": {"height": 32, "width": 32, "use_resolution_binning": False},
    "sana_sprint": {"height": 32, "width": 32, "use_resolution_binning": False},
    "hunyuan": {"height": 64, "width": 64, "use_resolution_binning": False},
    "lumina": {"height": 64, "width": 64, "clean_caption": False},
    "kandinsky": {"height": 128, "width": 128},
    "sana_video": {"frames": 9, "use_resolution_binning": False},
    "wan": {"num_frames": 9},
    "ltx": {"num_frames": 9},
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_estimated_is_what_it_is(name, tmp_path, monkeypatch):
    pipe = small_transformers.make(name)
    pipe.save_pretrained(tmp_path)
    call = {"num_inference_steps": 2, "output_type": "latent", **CALLS[name]}
    video = "frames" in call or "num_frames" in call
    if video:
        call |= {"height": 32, "width": 64}
    sizes = ModelSizes.read(tmp_path)
    for part, count in sizes.parameters.items():
        module = pipe.components[part]
        held = {id(p): p.numel() for p in module.parameters()}
        buffers = {id(b): b.numel() for b in module.buffers()}
        assert sum(held.values()) <= count <= sum((held | buffers).values())
    with record(pipe, branch="cond") as recorder:
        pipe("a cat", **call)
    made = {id(trace): trace for trace in recorder.traces}.values()
    assert sizes.frames == {"wan": 21, "sana_video": 21, "ltx": 41}.get(name, 1)
    object.__setattr__(sizes, "frames", len(made))
    rows, columns = (call[side] // sizes.factor for side in ("height", "width"))
    expected = sizes.trace_bytes(rows, columns, 2, EXACT, 4)
    tensors = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for trace in made
        for layer in trace.layers
        for t in tensors_of(layer).values()
    }
    assert expected == sum(tensors.values())


def test_an_estimate_and_a_plan_of_each(tmp_path):
    for name in CALLS:
        folder = tmp_path / name
        small_transformers.make(name).save_pretrained(folder)
        estimate = estimate_memory(str(folder), device="cpu")
        assert estimate.needed > estimate.trace > 0
        pipe = MemoryPlan(dtype="bfloat16", vae_tiling=True).load(folder, device="cpu")
        denoiser = getattr(pipe, "transformer", None) or pipe.unet
        assert denoiser.dtype == torch.bfloat16
