"""The method as it is written down, slow and obvious, in float64.

Nothing of it is taken from the package: `Capture` gets the queries from the inputs of
the attention layers and their weights, and `maps` loops over everything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

ACTIVATIONS = {
    "softmax": lambda scores: torch.softmax(scores, dim=-1),
    "linear": lambda scores: scores,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


def maps(
    trace: Any, embedding: Any, activation="softmax", aggregation="sum", size=None
):
    """Return (n, h, w) in float64, from anything that has a trace's attributes."""
    text = embedding.double()
    largest = max((la.grid for la in trace.layers), key=lambda g: g[0] * g[1])
    layer_maps = []
    for layer in trace.layers:
        calls, heads, _, dim = layer.queries.shape
        maps_of_heads = []
        for call in range(calls):
            for head in range(heads):
                queries = layer.queries[call, head].double()
                weight = layer.key_weight[head * dim : (head + 1) * dim].double()
                keys = text @ weight.T
                if layer.key_bias is not None:
                    keys = keys + layer.key_bias[head * dim : (head + 1) * dim].double()
                scores = layer.scale * (queries @ keys.T)  # (cells, tokens)
                maps_of_heads.append(ACTIVATIONS[activation](scores).T)
        stacked = torch.stack(maps_of_heads)
        layer_map = stacked.mean(0) if aggregation == "mean" else stacked.sum(0)
        grid_map = layer_map.reshape(len(text), *layer.grid)
        layer_maps.append(_resize(grid_map, largest))
    stacked = torch.stack(layer_maps)
    total = stacked.mean(0) if aggregation == "mean" else stacked.sum(0)
    return total if size is None else _resize(total, size)


def _resize(images, size):
    return functional.interpolate(
        images[None], size=tuple(size), mode="bilinear", align_corners=False
    )[0]


class CapturedLayer:
    """One layer: `queries` is (calls, heads, cells, dim) once a batch row is chosen."""

    def __init__(self, name, attention, grid):
        self.name, self.grid, self.scale = name, grid, attention.scale
        self.key_weight = attention.to_k.weight.detach().clone()
        self.key_bias = None
        self.heads = attention.heads
        self.calls = []  # one (batch, heads, cells, dim) a call, in float64

    def row(self, row, calls=None):
        chosen = self.calls if calls is None else [self.calls[c] for c in calls]
        picked = CapturedLayer.__new__(CapturedLayer)
        picked.__dict__.update(self.__dict__)
        picked.queries = torch.stack([call[row] for call in chosen])
        return picked


class Capture:
    """Capture the inputs of every attn2 in the blocks named, and multiply them."""

    def __init__(self, pipe, blocks=("down", "up")):
        self.layers: dict[str, CapturedLayer] = {}
        self.handles, self.grid = [], (0, 0)
        for name, module in pipe.unet.named_modules():
            if type(module).__name__ == "Transformer2DModel":
                self._hook(module, self._on_grid)
            if name.endswith(".attn2") and name.split("_")[0] in blocks:
                self._hook(
                    module, lambda m, a, k, n=name: self._on_attention(n, m, a, k)
                )

    def _hook(self, module, function):
        handle = module.register_forward_pre_hook(function, with_kwargs=True)
        self.handles.append(handle)

    def _on_grid(self, module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        self.grid = tuple(hidden.shape[2:])

    def _on_attention(self, name, module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        layer = self.layers.setdefault(name, CapturedLayer(name, module, self.grid))
        queries = hidden.detach().double() @ module.to_q.weight.detach().double().T
        batch, cells, inner = queries.shape
        dim = inner // module.heads
        split = queries.reshape(batch, cells, module.heads, dim).permute(0, 2, 1, 3)
        layer.calls.append(split)

    def row(self, row, calls=None, names=None):
        """Return what the reference needs of one row of the batch."""
        chosen = [
            la for la in self.layers.values() if names is None or la.name in names
        ]

        class Captured:
            layers = [la.row(row, calls) for la in chosen]  # noqa: RUF012

        return Captured

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def random_trace(module, seed=0, calls=3, text_dim=12, half=False, bias=False):
    """Return a Trace of the package (`module` is napari_ovam) with random numbers."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        tensor = torch.randn(*shape, generator=generator)
        return tensor.half() if half else tensor

    layers = []
    for i, (grid, heads, dim) in enumerate(
        [((4, 6), 2, 8), ((8, 12), 4, 4), ((2, 3), 3, 5), ((8, 12), 2, 8)]
    ):
        layers.append(
            module.LayerTrace(
                name=f"up_blocks.{i}.attentions.0.transformer_blocks.0.attn2",
                grid=grid,
                queries=2 * numbers(calls, heads, grid[0] * grid[1], dim),
                key_weight=numbers(heads * dim, text_dim) / text_dim**0.5,
                scale=dim**-0.5,
                key_bias=numbers(heads * dim) if bias else None,
            )
        )
    return module.Trace(tuple(layers), (64, 96), "", "uncond")


def assert_close(actual, expected, tolerance=1e-4):
    """Compare within a tolerance relative to the largest absolute value."""
    actual, expected = (np.asarray(t.detach(), np.float64) for t in (actual, expected))
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    assert difference <= tolerance, difference
