"""The slow reference of other architectures: the attention probabilities themselves.

`Probe` stands in each cross-attention layer in place of its own processor. It computes
the attention step by step, keeps its probabilities, and asks the layer the same about
another text, with the layer's own projections as they are (LoRA, biases).
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from reference import assert_close
from torch.nn import functional

from napari_ovam import attention_maps, record


class Probe:
    """A processor that keeps softmax(QK^T) of the layer's text and of `rows`."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows
        self.own: list[torch.Tensor] = []  # (batch, cells, tokens), summed over heads
        self.asked: list[torch.Tensor] = []

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        batch = hidden_states.shape[0]
        text = encoder_hidden_states
        assert text is not None
        mask = attn.prepare_attention_mask(attention_mask, text.shape[1], batch)
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))

        def ask(rows: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            key = attn.head_to_batch_dim(attn.to_k(rows))
            return attn.get_attention_scores(query, key, mask)

        def keep(into: list[torch.Tensor], scores: torch.Tensor) -> None:
            heads = scores.reshape(batch, attn.heads, *scores.shape[1:])
            into.append(heads.double().sum(1))

        probabilities = ask(text, mask)
        keep(self.own, probabilities)
        keep(self.asked, ask(self.rows.expand(batch, -1, -1), None))
        value = attn.head_to_batch_dim(attn.to_v(text))
        mixed = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](mixed)) / attn.rescale_output_factor


class Probes:
    """Probes in all cross-attention layers of a denoiser but the middle block's."""

    def __init__(self, model: Any, rows: torch.Tensor) -> None:
        layers = {
            name: module
            for name, module in model.named_modules()
            if re.search(r"attn2$|\.attentions\.[1-9]\.attention$", name)
            and module.is_cross_attention
            and not name.startswith("mid")
        }
        self.layers, self.before = layers, {n: m.processor for n, m in layers.items()}
        self.probes = {name: Probe(rows) for name in layers}

    def __enter__(self) -> Probes:
        for name, layer in self.layers.items():
            layer.processor = self.probes[name]
        return self

    def __exit__(self, *error: object) -> None:
        for name, layer in self.layers.items():
            layer.processor = self.before[name]

    def maps(self, kind: str, row: int, aspect: float = 1.0) -> torch.Tensor:
        """Return (tokens, h, w) of one row of the batch, in float64."""
        sums = [
            torch.stack([call[row] for call in getattr(probe, kind)]).sum(0).T
            for probe in self.probes.values()
        ]
        grids = [
            (side := round(math.sqrt(s.shape[1] * aspect)), s.shape[1] // side)
            for s in sums
        ]
        return sum(
            functional.interpolate(
                s.reshape(1, len(s), *grid), size=max(grids), mode="bilinear"
            )[0]
            for s, grid in zip(sums, grids, strict=True)
        )


def draw(pipe: Any, prompt: Any = "a cat", seed: int = 0, **settings: Any) -> Any:
    """Return the images of a call as an array."""
    settings = {"num_inference_steps": 2, "output_type": "np", **settings}
    generator = torch.Generator().manual_seed(seed)
    made = pipe(prompt=prompt, generator=generator, **settings)
    return np.asarray(made.images)


def check_parity(
    pipe: Any,
    model: Any,
    rows: torch.Tensor,
    *,
    branch: str = "cond",
    row: int = 1,
    aspect: float = 1.0,
    **settings: Any,
) -> tuple[Any, torch.Tensor]:
    """Compare a trace's maps with the probabilities; the image is the same, bit by bit.

    Returns the trace and the maps of the model's own text.
    """
    plain = draw(pipe, **settings)
    with record(pipe, branch=branch) as recorder:
        recorded = draw(pipe, **settings)
    np.testing.assert_array_equal(recorded, plain)
    with Probes(model, rows) as probes, torch.no_grad():
        probed = draw(pipe, **settings)
    # The probe computes what the model computes.
    np.testing.assert_allclose(probed, plain, atol=1e-4)
    trace = recorder.traces[0]
    assert_close(
        attention_maps(trace, rows), probes.maps("asked", row, aspect), tolerance=1e-4
    )
    return trace, probes.maps("own", row, aspect)
