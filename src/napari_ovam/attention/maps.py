"""Attention maps of any text on a recorded trace.

The method is OVAM's (Marcos-Manchón et al., CVPR 2024, arXiv 2403.14291): the stored
queries meet the keys of a new text.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_ovam.attention.tokens import Token, check_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import LayerTrace, Trace

Activation = Literal["softmax", "linear", "sigmoid", "tanh", "relu"]
Aggregation = Literal["sum", "mean"]
Normalization = Literal["max", "probability", "minmax"]

# Scores (calls, heads, tokens, cells); the softmax competes over the tokens.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda scores: scores.softmax(-2),
    "linear": lambda scores: scores,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
# Values of the queries, or of their scores, that are worked on at once. On a CPU they
# stay in its cache, and memory that was just freed is taken again (4 MB in float32);
# on other devices few large pieces are better.
_CHUNK = 2**20
_DEVICE_CHUNK = 2**26


def attention_maps(
    trace: Trace,
    embedding: Tensor,
    *,
    activation: Activation = "softmax",
    aggregation: Aggregation = "sum",
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return one map for each row of a text embedding.

    In each layer: scores = scale * Q K^T with K the keys of the text, the activation
    over the tokens, the sum over heads and calls; then all layers resized to the
    largest grid (bilinear) and summed (OVAM, section 3).

    Parameters
    ----------
    trace
        From `record`, `generate`, `trace_image` or `load_trace`. It is best to have
        it in float32 when maps are made many times.
    embedding
        Shape (n, text_dim), in the order of the text; moved to the trace's device.
        Gradients flow back to it.
    activation
        "softmax" lets the tokens compete for each cell; the others take each alone.
    aggregation
        "sum", or "mean" over calls and heads of each layer, then over layers.
    size
        (h, w), to which the maps are resized from the largest grid (bilinear).

    Returns
    -------
    Tensor
        Shape (n, h, w), float32, on the trace's device. With softmax and sum, the
        maps of a pixel add up to the sum of calls * heads over the layers.

    Raises
    ------
    ValueError
        If the embedding does not fit the trace, a name or size is wrong, or the
        queries hold NaN or infinite values; the message names the layer.
    """
    _check_name("activation", activation, _ACTIVATIONS)
    _check_name("aggregation", aggregation, ("sum", "mean"))
    _check_embedding(trace, embedding)
    (total,) = _all_maps(trace, [embedding[None]], activation, aggregation)
    return total[0] if size is None else resize(total[0], _checked_size(size))


def phrase_map(
    trace: Trace, token: Token, *, normalize: Normalization = "max"
) -> NDArray[np.float32]:
    """Return where a phrase or an optimized token is seen, at the image's size.

    The map is the mean over the rows of `token.span`.

    Parameters
    ----------
    trace
        What was recorded of the image.
    token
        From `encode_phrase`, `optimize_token` or `load_token`.
    normalize
        "max": divided by its maximum, so that 1 is the surest place, present or not.
        "probability": divided by layers * heads * calls; the score is absolute, and
        tells whether the thing is there at all. "minmax": stretched to 0 to 1.

    Returns
    -------
    ndarray
        Shape (H, W) of the image, 0 to 1.

    Raises
    ------
    ModelMismatchError
        If token and trace come from different text encoders.
    ValueError
        If the embedding does not fit the trace, or `normalize` is unknown.
    """
    found: NDArray[np.float32] = phrase_maps(trace, [token], normalize=normalize)[0]
    return found


def phrase_maps(
    trace: Trace, tokens: Sequence[Token], *, normalize: Normalization = "max"
) -> NDArray[np.float32]:
    """Return the maps of several phrases, which is faster than one after the other.

    The queries are read once for all. Each phrase competes with its own start and end
    only: its map is the same as alone.

    Parameters
    ----------
    trace, normalize
        As for `phrase_map`.
    tokens
        From `encode_phrase`, `optimize_token` or `load_token`; may be none.

    Returns
    -------
    ndarray
        Shape (P, H, W) of the image, 0 to 1, in the order of the tokens.

    Raises
    ------
    ModelMismatchError, ValueError
        As from `phrase_map`.
    """
    _check_name("normalize", normalize, ("max", "probability", "minmax"))
    for token in tokens:
        check_token(token, trace)
    # Phrases of as many rows are computed together.
    places: dict[int, list[int]] = {}
    for place, token in enumerate(tokens):
        places.setdefault(len(token.embedding), []).append(place)
    found: NDArray[np.float32] = np.empty((len(tokens), *trace.image_size), np.float32)
    with torch.no_grad():
        groups = [
            torch.stack([tokens[i].embedding.float() for i in group])
            for group in places.values()
        ]
        all_maps = _all_maps(trace, groups, "softmax", "sum") if groups else []
        for group, maps in zip(places.values(), all_maps, strict=True):
            for place, each in zip(group, maps, strict=True):
                start, stop = tokens[place].span
                mean = each[start:stop].mean(0, keepdim=True)
                resized = resize(mean, trace.image_size)[0]
                found[place] = _normalized(resized, trace, normalize).cpu().numpy()
    return found


def joint_map(trace: Trace, tokens: Sequence[Token]) -> NDArray[np.float32]:
    """Return where all of several tokens see their class, at the image's size.

    The geometric mean of their maps, each stretched to 0 to 1 (a product of experts,
    Hinton 2002, doi:10.1162/089976602760128018). An optimized token finds whole
    objects and forgets which: with its phrase it keeps what the word knows
    (docs/quality.md).

    Parameters
    ----------
    trace, tokens
        As for `phrase_map`; one token gives its own map.

    Returns
    -------
    ndarray
        Shape (H, W) of the image, stretched to 0 to 1.

    Raises
    ------
    ValueError
        If there is no token, or one does not fit the trace.
    """
    if not tokens:
        raise ValueError("there is no token: give at least one")
    return join_maps(phrase_maps(trace, tokens, normalize="minmax"))


def join_maps(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Join maps of one class as `joint_map` does: (P, H, W) from 0 to 1 to (H, W)."""
    if len(maps) == 1:
        alone: NDArray[np.float32] = maps[0]
        return alone
    mean = np.exp(np.mean(np.log(np.maximum(maps, 1e-6)), 0))
    low, high = float(mean.min()), float(mean.max())
    result: NDArray[np.float32] = ((mean - low) / max(high - low, 1e-9)).astype(
        np.float32
    )
    return result


def _all_maps(
    trace: Trace, groups: Sequence[Tensor], activation: str, aggregation: str
) -> list[Tensor]:
    """Return the maps of groups of texts, each (texts, n, h, w) on the largest grid.

    A group holds texts of as many rows, (texts, n, text_dim).
    """
    groups = [group.to(trace.device, torch.float32) for group in groups]
    sizes = [(len(group), group.shape[1]) for group in groups]
    # Layers of one grid are added up before they are resized.
    by_grid: dict[tuple[int, int], list[Tensor]] = {}
    for layer, keys in trace.keys(groups):
        summed = _layer_maps(layer, keys, sizes, activation)
        if aggregation == "mean":
            count = layer.queries.shape[0] * layer.queries.shape[1]
            summed = [each / (count * len(trace.layers)) for each in summed]
        known = by_grid.get(layer.grid)
        by_grid[layer.grid] = (
            summed
            if known is None
            else [a + b for a, b in zip(known, summed, strict=True)]
        )
    totals = []
    for i, group in enumerate(groups):
        resized = [
            resize(summed[i].unflatten(-1, grid).flatten(0, 1), trace.grid)
            for grid, summed in by_grid.items()
        ]
        total = torch.stack(resized).sum(0)
        if not total.isfinite().all():
            _name_what_is_not_finite(trace)
        totals.append(total.unflatten(0, group.shape[:2]))
    return totals


def _layer_maps(
    layer: LayerTrace,
    keys: list[Tensor],
    sizes: list[tuple[int, int]],
    activation: str,
) -> list[Tensor]:
    """Return the sums of a layer's maps over calls and heads, (texts, n, cells).

    `sizes` has the (texts, n) of each group of keys.
    """
    calls, heads, cells, dim = layer.queries.shape
    # A softmax over two is the sigmoid of one difference: one dot product, not two.
    pairs = [activation == "softmax" and n == 2 for _, n in sizes]
    keys = [
        each[:, :, 1::2] - each[:, :, ::2] if pair else each
        for each, pair in zip(keys, pairs, strict=True)
    ]
    # (calls or 1, heads, rows, head_dim)
    joined = torch.cat(keys, 2) if len(keys) > 1 else keys[0]
    held = heads * cells * max(dim, joined.shape[2])
    chunk = _CHUNK if joined.device.type == "cpu" else _DEVICE_CHUNK
    count = max(1, chunk // held)
    own = joined.split(count) if len(joined) > 1 else repeat(joined)
    totals: list[Tensor] = []
    for queries, rows in zip(
        _floats(layer.queries, count, joined.requires_grad), own, strict=False
    ):
        scores = rows @ queries.transpose(-1, -2)
        parts = scores.split([each.shape[2] for each in keys], -2)
        active = [
            part.sigmoid() if pair else _ACTIVATIONS[activation](part.unflatten(-2, n))
            for part, pair, n in zip(parts, pairs, sizes, strict=True)
        ]
        found = [each.sum((0, 1)).reshape(-1, cells) for each in active]
        totals = (
            [a + b for a, b in zip(totals, found, strict=True)] if totals else found
        )
    return [
        torch.stack([calls * heads - total, total], 1)
        if pair
        else total.unflatten(0, size)
        for total, pair, size in zip(totals, pairs, sizes, strict=True)
    ]


def _floats(queries: Tensor, calls: int, keep: bool) -> Iterator[Tensor]:
    """Yield so many calls at a time in float32.

    All in one buffer, as fresh memory costs several times what the conversion does;
    not if they are to be kept, for gradients.
    """
    if keep or len(queries) <= calls or queries.dtype == torch.float32:
        yield from (part.float() for part in queries.split(calls))
        return
    buffer = torch.empty_like(queries[:calls], dtype=torch.float32)
    for part in queries.split(calls):
        yield buffer[: len(part)].copy_(part)


def _normalized(found: Tensor, trace: Trace, normalize: str) -> Tensor:
    if normalize == "probability":
        found = found / trace.maps_per_pixel
    else:
        if normalize == "minmax":
            found = found - found.min()
        found = found / found.max().clamp_min(torch.finfo(found.dtype).tiny)
    return found.clamp_(0, 1)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (n, h, w) bilinearly."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(
        maps[None], size=size, mode="bilinear", align_corners=False
    )[0]


def _check_name(what: str, value: object, known: object) -> None:
    names = list(known)  # type: ignore[call-overload]
    if value not in names:
        raise ValueError(f"{what} is {value!r}: give one of {names}")


def _check_embedding(trace: Trace, embedding: Tensor) -> None:
    shape = tuple(getattr(embedding, "shape", ()))
    if len(shape) != 2 or not shape[0] or shape[1] != trace.text_dim:
        raise ValueError(
            f"the embedding has shape {shape}, and this trace reads (n, "
            f"{trace.text_dim}): was it made by another text encoder?"
        )
    if not embedding.isfinite().all():
        raise ValueError("the embedding holds NaN or infinite values")


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {size!r}: give (height, width) of at least 1")
    return size


def check_queries(layer: LayerTrace) -> None:
    """Raise ValueError where the queries of a layer hold NaN or infinity."""
    if not layer.queries.isfinite().all():
        raise ValueError(
            f"layer {layer.name} holds NaN or infinite queries: record again, in "
            "float32"
        )


def _name_what_is_not_finite(trace: Trace) -> None:
    for layer in trace.layers:
        check_queries(layer)
    raise ValueError("the maps overflow: the embedding or the weights are too large")
