"""Ways to optimize a token that `optimize_token` does not offer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam import Token, Trace


def fit(
    traces: Sequence[Trace],
    word: Token,
    masks: Sequence[NDArray[np.uint8]],
    *,
    loss: str,
    minmax: bool = False,
    backgrounds: int = 1,
    per_layer: bool = False,
    pull: float = 0.0,
    iterations: int = 120,
    learning_rate: float = 0.1,
) -> Token:
    """Optimize with Adam along half a cosine, at the trace's grid.

    Parameters
    ----------
    loss : "balanced" (class and background weigh the same) or "plain" cross-entropy,
        each with Dice
    minmax : whether the map is stretched to 0 to 1 before the loss
    backgrounds : rows that compete with the class's row
    per_layer : whether each layer gets rows of its own
    pull : weight of the squared way from the word, relative to its own square
    """
    class_row = word.embedding[word.span[1] - 1]
    rows = torch.cat([word.embedding[:1].repeat(backgrounds, 1), class_row[None]])
    # Rows that start alike would stay alike.
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    if backgrounds > 1:
        rows = rows + 0.1 * rows.std() * noise
    copies = len(traces[0].layers) if per_layer else 1
    learned = rows.repeat(copies, 1, 1).clone().requires_grad_()
    optimizer = torch.optim.Adam([learned], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    targets = [
        functional.adaptive_avg_pool2d(torch.from_numpy(m).float()[None], t.grid)[0]
        for m, t in zip(masks, traces, strict=True)
    ]
    for _ in range(iterations):
        way = (learned - rows).square().mean() / rows.square().mean()
        total = pull * len(traces) * way
        for trace, target in zip(traces, targets, strict=True):
            found = _map(trace, learned)
            if minmax:
                found = (found - found.min()) / (found.max() - found.min())
            total = total + _loss(found.clamp(1e-6, 1 - 1e-6), target, loss)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
    kept = learned.detach().flatten(0, 1)
    info = {"per_layer": copies} if per_layer else {}
    span = (backgrounds, backgrounds + 1)
    return replace(word, embedding=kept, span=span, info=info)


def map_of(trace: Trace, token: Token) -> NDArray[np.float32]:
    """Return the map of a token with rows for each layer, (H, W) from 0 to 1."""
    rows = token.embedding.unflatten(0, (token.info["per_layer"], -1))
    with torch.no_grad():
        found = functional.interpolate(
            _map(trace, rows)[None, None],
            trace.image_size,
            mode="bilinear",
            align_corners=False,
        )[0, 0]
    found = found - found.min()
    stretched: NDArray[np.float32] = (found / found.max().clamp_min(1e-9)).numpy()
    return stretched


def _map(trace: Trace, rows: Tensor) -> Tensor:
    """Return the last row's share of the softmax, averaged over layers: (h, w)."""
    found: Any = 0
    for i, layer in enumerate(trace.layers):
        text = rows[min(i, len(rows) - 1)]
        weight = layer.key_weight.unflatten(0, (layer.queries.shape[1], -1))
        if len(text) == 2:  # as in optimize_token, one dot product for two rows
            key = (weight @ (text[1] - text[0])) * layer.scale
            share = (layer.queries @ key[..., None]).sigmoid()[..., 0].mean((0, 1))
        else:
            keys = (weight @ text.T) * layer.scale
            share = (layer.queries @ keys).softmax(-1)[..., -1].mean((0, 1))
        found = found + functional.interpolate(
            share.unflatten(0, layer.grid)[None, None],
            trace.grid,
            mode="bilinear",
            align_corners=False,
        )
    mean: Tensor = found[0, 0] / len(trace.layers)
    return mean


def _loss(found: Tensor, target: Tensor, kind: str) -> Tensor:
    inside, outside = target * found.log(), (1 - target) * (1 - found).log()
    dice = 1 - 2 * (target * found).sum() / (target.sum() + found.sum())
    if kind == "plain":
        return dice - (inside + outside).mean()
    balanced = inside.sum() / target.sum() + outside.sum() / (1 - target).sum()
    return dice - balanced / 2
