"""Attention maps of any text on a recorded trace.

The method is OVAM's (Marcos-Manchón et al., CVPR 2024, arXiv 2403.14291): the stored
queries meet the keys of a new text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from napari_ovam.trace import LayerTrace, ModelMismatchError, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.tokens import Token

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
# Scores held at once: 64 MB in float32.
_CHUNK = 2**24


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
    embedding = embedding.to(trace.layers[0].queries.device, torch.float32)
    total: Tensor | None = None
    for layer in trace.layers:
        summed = _layer_map(layer, embedding, activation)
        if aggregation == "mean":
            summed = summed / (layer.queries.shape[0] * layer.queries.shape[1])
        resized = _resize(summed.unflatten(-1, layer.grid), trace.grid)
        total = resized if total is None else total + resized
    assert total is not None  # noqa: S101 - a trace has at least one layer
    if aggregation == "mean":
        total = total / len(trace.layers)
    if not total.isfinite().all():
        _name_what_is_not_finite(trace)
    return total if size is None else _resize(total, _checked_size(size))


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
    _check_name("normalize", normalize, ("max", "probability", "minmax"))
    if token.model and trace.model and token.model != trace.model:
        raise ModelMismatchError(
            f"the token {token.name!r} belongs to the text encoder {token.model} and "
            f"the trace to {trace.model}: encode or optimize it with this model"
        )
    start, stop = token.span
    if not 0 <= start < stop <= len(token.embedding):
        raise ValueError(
            f"the token {token.name!r} has the span {token.span} and "
            f"{len(token.embedding)} rows"
        )
    with torch.no_grad():
        maps = attention_maps(trace, token.embedding)
        found = _resize(maps[start:stop].mean(0, keepdim=True), trace.image_size)[0]
        if normalize == "probability":
            found = found / trace.maps_per_pixel
        else:
            if normalize == "minmax":
                found = found - found.min()
            found = found / found.max().clamp_min(torch.finfo(found.dtype).tiny)
        result: NDArray[np.float32] = found.clamp(0, 1).cpu().numpy()
    return result


def _layer_map(layer: LayerTrace, embedding: Tensor, activation: str) -> Tensor:
    """Return the sum of a layer's maps over calls and heads, (n, cells)."""
    calls, heads, cells, _ = layer.queries.shape
    keys = embedding @ layer.key_weight.float().T
    if layer.key_bias is not None:
        keys = keys + layer.key_bias.float()
    keys = (
        keys.unflatten(-1, (heads, -1)).transpose(0, 1) * layer.scale
    )  # (heads, n, d)
    # A softmax over two is the sigmoid of one difference: one dot product, not two.
    two = activation == "softmax" and len(embedding) == 2
    if two:
        keys, activation = keys[:, 1:] - keys[:, :1], "sigmoid"
    step = max(1, _CHUNK // (heads * cells * keys.shape[1]))
    total = keys.new_zeros(keys.shape[1], cells)
    for queries in layer.queries.split(step):
        scores = keys @ queries.float().transpose(-1, -2)
        total = total + _ACTIVATIONS[activation](scores).sum((0, 1))
    return torch.cat([calls * heads - total, total]) if two else total


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
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


def _name_what_is_not_finite(trace: Trace) -> None:
    for layer in trace.layers:
        if not layer.queries.isfinite().all():
            raise ValueError(
                f"layer {layer.name} holds NaN or infinite queries: record again, in "
                "float32"
            )
    raise ValueError("the maps overflow: the embedding or the weights are too large")
