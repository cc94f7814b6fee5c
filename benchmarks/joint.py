"""What a phrase costs on a model with joint attention, at a real layer's shape.

    OMP_NUM_THREADS=1 python benchmarks/joint.py

A Stable Diffusion 3 transformer with the layer shape of 3.5-medium (24 heads of 64,
1024 x 1024 pixels: 4096 cells, 333 rows of text) and random weights, of a few blocks;
times are a block's, so that those of the whole model are 24 times that.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import SD3Transformer2DModel

from napari_ovam.diffusion.architectures.stable_diffusion_3 import StableDiffusion3
from napari_ovam.diffusion.joint.replay import JointReplay

if TYPE_CHECKING:
    from napari_ovam.attention.shown_calls import Block

MODEL = 24  # blocks of the whole model


class _Pipeline(SimpleNamespace):
    """As much of a pipeline as a replay asks."""

    def __hash__(self) -> int:
        return id(self)


def timed(run: Any, repeats: int) -> float:
    """Return the seconds of the fastest repeat."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        num_layers=options.blocks + 1,
        num_attention_heads=24,
        attention_head_dim=64,
        caption_projection_dim=1536,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(options.blocks)),
        qk_norm="rms_norm",
    )
    model = model.eval().to(options.device, getattr(torch, options.dtype))
    device = torch.device(options.device)
    pipe = _Pipeline(transformer=model, _execution_device=device)
    replay = object.__new__(JointReplay)
    replay.known_pipe, replay.architecture = (lambda: pipe), StableDiffusion3()
    inputs = {
        "hidden_states": torch.randn(16, 128, 128),
        "encoder_hidden_states": torch.randn(333, 4096),
        "pooled_projections": torch.randn(2048),
        "timestep": torch.tensor(500.0),
    }
    last = f"transformer_blocks.{options.blocks - 1}.attn"
    blocks: list[Block] = []

    def show() -> None:
        blocks.clear()
        replay.show(inputs, last, "keys", blocks.append)

    def phrases(count: int, *, learn: bool = False) -> None:
        texts = torch.randn(count, 4, 1536, requires_grad=learn)
        states, total = replay.place(texts), torch.zeros((), device=device)
        with torch.set_grad_enabled(learn):
            for block in blocks:
                met, states = replay.advance(block, states, "keys")
                total = total + met.float().sum()
        if learn:
            total.backward()

    with replay.running():
        rows = [("shown again", timed(show, options.repeats))]
        for count in (1, 10):
            took = timed(lambda count=count: phrases(count), options.repeats)
            rows.append((f"{count} phrase(s) of 4 rows", took))
        learned = timed(lambda: phrases(1, learn=True), options.repeats)
        rows.append(("a phrase with its gradient", learned))
    print(f"{options.dtype} on {options.device}, {torch.get_num_threads()} thread(s)")
    for what, seconds in rows:
        block = seconds / options.blocks
        print(f"{what:28} {1e3 * block:9.1f} ms a block {MODEL * block:8.2f} s a call")


if __name__ == "__main__":
    main()
