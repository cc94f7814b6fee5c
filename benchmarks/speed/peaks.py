"""Peak memory of one thing in a fresh process: called by the other modules.

    python benchmarks/speed/peaks.py record naive|default|exact
    python benchmarks/speed/peaks.py phrase naive|default|exact
    python benchmarks/speed/peaks.py step naive|default|exact

Prints {"extra": bytes above those before, "kept": bytes still held in the result}.
"""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace
from typing import Any

import naive
import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from shapes import SD15, Shape
from timing import Peak
from torch import nn

from napari_ovam import (
    OptimizationSettings,
    Token,
    Trace,
    TraceSettings,
    load_pipeline,
    optimize_token,
    phrase_map,
    record,
)

EXACT = TraceSettings(layers=None, calls=None, dtype=None)
CHANNELS = 8  # of what goes into the layers here: their queries are of the real shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["record", "phrase", "step"])
    parser.add_argument("side", choices=["naive", "default", "exact"])
    parser.add_argument("--calls", type=int, default=SD15.calls)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    measure = {"record": _record, "phrase": _phrase, "step": _step}[arguments.what]
    print(json.dumps(measure(arguments.side, arguments.calls, arguments.device)))


def bytes_of(trace: Trace) -> int:
    """Return the bytes of a trace, with the weights that make it answer alone."""
    return sum(layer.queries.nbytes + layer.key_weight.nbytes for layer in trace.layers)


def sides(calls: int, device: str, side: str) -> Trace:
    if side == "default":
        return SD15.trace(min(3, calls), dtype=torch.float16, device=device, fine=True)
    return SD15.trace(calls, device=device)


class Layers(nn.Module):
    """Cross-attention layers of the real shapes and names, and nothing between."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.config = SimpleNamespace(time_cond_proj_dim=None)
        self.grids: list[int] = []
        self.outers: list[nn.Module] = []
        for name, grid, heads, dim in shape.grids():
            outer = _Transformer(shape.text_dim, heads, dim)
            path = name.split(".transformer_blocks")[0].split(".")
            parent: nn.Module = self
            for part in path[:-1]:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = getattr(parent, part)
            parent.add_module(path[-1], outer)
            self.grids.append(grid)
            self.outers.append(outer)

    @property
    def device(self) -> torch.device:
        """Where the weights are, as pipelines ask of their models."""
        return next(self.parameters()).device

    def forward(self, sample: Any, _timestep: Any, text: Any) -> Any:
        for grid, outer in zip(self.grids, self.outers, strict=True):
            outer(nn.functional.adaptive_avg_pool2d(sample, grid), text)
        return sample


class _Transformer(nn.Module):
    def __init__(self, text_dim: int, heads: int, dim: int) -> None:
        super().__init__()
        block = nn.Module()
        block.attn2 = Attention(CHANNELS, text_dim, heads=heads, dim_head=dim)
        self.transformer_blocks = nn.ModuleList([block])
        self.text_dim = text_dim

    def forward(self, hidden_states: Any, text: Any) -> Any:
        attention = self.transformer_blocks[0].attn2
        attention.to_k(nn.functional.pad(text, (0, self.text_dim - text.shape[-1])))
        return attention.to_q(hidden_states.flatten(2).transpose(1, 2))


def _record(side: str, calls: int, device: str) -> dict[str, float]:
    unet = Layers(SD15).to(device)
    pipe = load_pipeline("tiny", device=device)  # only to be a pipeline
    texts = pipe.encode_prompt("a cat", device, 1, do_classifier_free_guidance=True)
    text = torch.cat(texts[::-1])  # the negative one first
    pipe.register_modules(unet=unet)
    pipe._guidance_scale = 7.5
    latents = torch.randn(1, CHANNELS, 64, 64, device=device).repeat(2, 1, 1, 1)
    timesteps = torch.arange(calls).flip(0)

    def denoise(count: int) -> None:
        for timestep in timesteps[:count]:
            unet(latents, timestep, text)

    with torch.no_grad():
        denoise(2)  # warm: what is left is what recording adds
        with Peak(device) as plain:
            denoise(calls)
        with Peak(device) as peak:
            if side == "naive":
                recording = naive.Recording(unet)
                denoise(calls)
                recording.close()
                kept = sum(
                    q.nbytes for each in recording.queries.values() for q in each
                )
            else:
                settings = TraceSettings() if side == "default" else EXACT
                options = {
                    name: getattr(settings, name)
                    for name in ("branch", "layers", "calls", "dtype")
                }
                with record(pipe, **options) as recorder:
                    denoise(calls)
                kept = bytes_of(recorder.traces[0])
    return {"extra": peak.extra - plain.extra, "kept": kept}


def _phrase(side: str, calls: int, device: str) -> dict[str, float]:
    trace = sides(calls, device, side)
    phrase = SD15.phrase(device=device)
    with Peak(device) as peak:
        if side == "naive":
            naive.phrase_map(trace, phrase, (1, 2))
        else:
            phrase_map(trace, Token("x", "", phrase.cpu()))
    return {"extra": peak.extra, "kept": bytes_of(trace)}


def _step(side: str, calls: int, device: str) -> dict[str, float]:
    trace = sides(calls, device, side)
    mask = box(trace.image_size)
    rows = SD15.phrase(2, device)
    with Peak(device) as peak:
        if side == "naive":
            naive.optimize([trace], rows, [torch.tensor(mask, device=device)], steps=1)
        else:
            settings = OptimizationSettings(iterations=1)
            optimize_token(trace, Token("x", "", rows.cpu()), mask, settings)
    return {"extra": peak.extra, "kept": bytes_of(trace)}


def box(size: tuple[int, int]) -> Any:
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : 3 * size[1] // 4] = 1
    return mask


if __name__ == "__main__":
    main()
