"""What a model with joint attention takes is told before it is loaded."""

from __future__ import annotations

import pytest
from joint_kinds import KINDS

from napari_ovam.diffusion.memory import estimate_memory
from napari_ovam.diffusion.sizes import ModelSizes


@pytest.mark.parametrize(
    "name", ["sd3.5", "flux dev", "flux.2 klein", "qwen", "z-image"]
)
def test_sizes_of_a_folder(name, tmp_path):
    pipe = KINDS[name].make()
    pipe.save_pretrained(tmp_path)
    sizes = ModelSizes.read(tmp_path)
    weights = sum(t.numel() for t in pipe.transformer.state_dict().values())
    assert sizes.parameters["transformer"] == pytest.approx(weights, rel=0.01)
    assert sizes.factor == pipe.vae_scale_factor == 8
    assert sizes.size == ((64, 64) if name == "sd3.5" else (1024, 1024))
    told = estimate_memory(tmp_path, device="cpu", height=64, width=64)
    blocks = sum(1 for _ in KINDS[name].blocks(pipe.transformer))
    inner = 48 if name == "z-image" else 32
    assert told.trace == 3 * blocks * 3 * 16 * inner * 2  # calls, parts, cells
