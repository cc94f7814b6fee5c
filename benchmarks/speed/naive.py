"""The method as DESIGN.md's formula says it, with nothing done to be fast or small.

This is the other side of every ratio: queries of every call in float32, the calls of a
layer in one product, the softmax of all heads materialised, summed and resized; and
OVAM's recipe with maps at image size. It shares no code with the package.

Tokens come before cells, as in the published implementation: a softmax over the few
tokens of a phrase takes twenty times as long where they are the fast axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_ovam import Trace


def maps(trace: Trace, embedding: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return one map a row of the embedding, (n, h, w)."""
    total: Any = 0
    for layer in trace.layers:
        queries = layer.queries  # (calls, heads, cells, head_dim)
        keys = embedding @ layer.key_weight.T
        keys = keys.unflatten(-1, (queries.shape[1], -1)).transpose(0, 1)
        scores = (layer.scale * keys) @ queries.transpose(-1, -2)
        attention = scores.softmax(-2).sum((0, 1)).unflatten(-1, layer.grid)
        total = total + _resize(attention, trace.grid)
    return total if size is None else _resize(total, size)


def phrase_map(trace: Trace, embedding: Tensor, span: tuple[int, int]) -> Tensor:
    """Return the phrase's map at image size, (H, W), divided by its maximum."""
    with torch.no_grad():
        found = maps(trace, embedding, trace.image_size)[span[0] : span[1]].mean(0)
        return found / found.max()


def optimize(
    traces: Sequence[Trace],
    rows: Tensor,
    masks: Sequence[Tensor],
    *,
    steps: int,
    learning_rate: float = 300.0,
    decay: float = 0.7,
    every: int = 80,
    on_step: Callable[[int, float, Tensor], None] | None = None,
) -> Tensor:
    """Return the rows after OVAM's recipe; `on_step` gets (step, loss, rows)."""
    embedding = rows.clone().requires_grad_()
    optimizer = torch.optim.SGD([embedding], learning_rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, every, decay)
    for step in range(steps):
        loss = _loss(traces, embedding, masks)
        if on_step is not None:
            on_step(step, loss.item(), embedding.detach().clone())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return embedding.detach()


def _loss(traces: Sequence[Trace], embedding: Tensor, masks: Sequence[Tensor]) -> Any:
    found = [maps(trace, embedding, trace.image_size) for trace in traces]
    low = torch.stack([each.min() for each in found]).min()
    high = torch.stack([each.max() for each in found]).max()
    logits = torch.cat([((m - low) / (high - low)).flatten(1) for m in found], 1)
    classes = torch.cat([mask.flatten() for mask in masks]).long()
    return functional.cross_entropy(logits.T, classes)


class Recording:
    """Keep what every `attn2.to_q` gives, as it comes: views of both halves."""

    def __init__(self, unet: Any) -> None:
        self.queries: dict[str, list[Tensor]] = {}
        self._handles = [
            module.register_forward_hook(
                lambda _module, _args, output, name=name: self.queries.setdefault(
                    name, []
                ).append(output.detach()[: len(output) // 2].float())
            )
            for name, module in _queries_of(unet)
        ]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _queries_of(unet: Any) -> Iterator[tuple[str, Any]]:
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_q") and not name.startswith("mid_block"):
            yield name, module


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(
        images[None], size=size, mode="bilinear", align_corners=False
    )[0]
