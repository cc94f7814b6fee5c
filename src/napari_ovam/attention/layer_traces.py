"""What one layer asked in the recorded calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

Norm = Literal["layer", "rms"]


class TraceError(ValueError):
    """A trace that contradicts itself or the question asked of it."""


class ModelMismatchError(ValueError):
    """A token and a trace, or a trace and a model, that do not belong together."""


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What one cross-attention layer asked, and how it reads a text.

    Attributes
    ----------
    name
        The layer's path in the UNet or transformer, such as one ending in ".attn2".
    grid
        (h, w), the latent cells that the layer sees.
    queries
        Shape (calls, heads, h*w, head_dim), the cells row by row.
    key_weight
        Shape (heads*head_dim, text_dim): the keys of a text are
        `text @ key_weight.T (+ key_bias)`. None where the text changes with every
        layer: the trace's stream has the keys then.
    scale
        What the dot products are multiplied by, usually head_dim**-0.5.
    key_bias
        Shape (heads*head_dim,), or None.
    key_norm
        How the keys are normalised after that: "layer" (with their mean taken off) or
        "rms"; None for not at all. With `norm_eps`, and by `norm_weight` and
        `norm_bias`, whose length (head_dim, or heads*head_dim) says over what.

    Raises
    ------
    TraceError
        If the shapes contradict each other.
    """

    name: str
    grid: tuple[int, int]
    queries: Tensor
    key_weight: Tensor | None
    scale: float
    key_bias: Tensor | None = None
    key_norm: Norm | None = None
    norm_eps: float = 1e-5
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None

    def __post_init__(self) -> None:
        _check_queries(self.name, "queries", self.queries, self.grid)
        if self.key_weight is None:
            return
        inner = self.queries.shape[1] * self.queries.shape[3]
        weight = tuple(self.key_weight.shape)
        if len(weight) != 2 or weight[0] != inner:
            raise TraceError(
                f"layer {self.name}: key_weight has shape {weight} where "
                f"(heads*head_dim = {inner}, text_dim) is wanted"
            )
        if self.key_bias is not None and tuple(self.key_bias.shape) != (inner,):
            raise TraceError(
                f"layer {self.name}: key_bias has shape {tuple(self.key_bias.shape)} "
                f"where ({inner},) is wanted"
            )
        if self.key_norm not in (None, *get_args(Norm)):
            raise TraceError(f"layer {self.name}: key_norm is {self.key_norm!r}")
        if self.key_norm and (
            self.norm_weight is None or inner % self.norm_weight.numel()
        ):
            raise TraceError(
                f"layer {self.name}: its keys are normalised, and norm_weight is not "
                f"of the heads' size or of {inner}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(calls, heads, h*w, head_dim) of the queries."""
        return tuple(self.queries.shape)

    def keys(self, rows: Tensor) -> Tensor:
        """Return keys of a text's rows (n, text_dim), times the scale.

        (1, heads, n, head_dim): the same in every call.
        """
        if self.key_weight is None:
            raise TraceError(f"the keys of {self.name} are its stream's")
        weight = self.key_weight
        if weight.is_cpu:  # in parts: a copy of the whole costs more than the product
            parts = [rows @ part.to(rows.dtype).T for part in weight.split(256)]
            keys = torch.cat(parts, -1)
        else:  # where each operation costs more than that
            keys = rows @ weight.to(rows.dtype).T
        if self.key_bias is not None:
            keys = keys + self.key_bias.to(rows.dtype)
        if self.norm_weight is not None:
            keys = self._normalized(keys, self.norm_weight.to(rows.dtype))
        by_head: Tensor = keys.unflatten(-1, (self.shape[1], -1))
        return by_head.transpose(0, 1)[None] * self.scale

    def _normalized(self, keys: Tensor, weight: Tensor) -> Tensor:
        groups = keys.unflatten(-1, (-1, len(weight)))
        if self.key_norm == "layer":
            groups = groups - groups.mean(-1, keepdim=True)
        groups = functional.rms_norm(groups, weight.shape, weight, self.norm_eps)
        if self.norm_bias is not None:
            groups = groups + self.norm_bias.to(keys.dtype)
        return groups.flatten(-2)


@dataclass(frozen=True, eq=False)
class SelfTrace:
    """What one self-attention layer computed, for the refinement of maps.

    Attributes
    ----------
    name
        The layer's path in the UNet, ending in ".attn1".
    grid
        (h, w), the latent cells that the layer sees.
    queries, keys
        Shape (calls, heads, h*w, head_dim), the cells row by row.
    scale
        What the dot products are multiplied by.

    Raises
    ------
    TraceError
        If the shapes contradict each other.
    """

    name: str
    grid: tuple[int, int]
    queries: Tensor
    keys: Tensor
    scale: float

    def __post_init__(self) -> None:
        _check_queries(self.name, "queries", self.queries, self.grid)
        _check_queries(self.name, "keys", self.keys, self.grid)
        if self.queries.shape != self.keys.shape:
            raise TraceError(
                f"layer {self.name}: queries of shape {tuple(self.queries.shape)} and "
                f"keys of shape {tuple(self.keys.shape)} differ"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(calls, heads, h*w, head_dim) of queries and keys."""
        return tuple(self.queries.shape)


AnyLayer = TypeVar("AnyLayer", LayerTrace, SelfTrace)


def recorded(layer: LayerTrace | SelfTrace) -> tuple[str, ...]:
    """Return the names of the tensors that hold a value a call; none of a stream's."""
    if isinstance(layer, SelfTrace):
        return "queries", "keys"
    return () if layer.key_weight is None else ("queries",)


def tensors_of(layer: LayerTrace | SelfTrace) -> dict[str, Tensor]:
    """Return all tensors of a layer by their names."""
    names = recorded(layer)
    if isinstance(layer, LayerTrace):
        parts = ("key_weight", "key_bias", "norm_weight", "norm_bias")
        names = (*names, *(n for n in parts if getattr(layer, n) is not None))
    return {name: getattr(layer, name) for name in names}


def block_of(layer: str) -> str:
    """Return the path of the transformer block that an attention layer is in."""
    return layer.rpartition(".")[0]


def _check_queries(name: str, what: str, tensor: Tensor, grid: object) -> None:
    if not (isinstance(grid, tuple) and len(grid) == 2 and min(grid) >= 1):
        raise TraceError(f"layer {name}: grid is {grid!r}, (rows, columns) is wanted")
    shape = tuple(tensor.shape)
    if len(shape) != 4 or shape[2] != grid[0] * grid[1] or 0 in shape:
        raise TraceError(
            f"layer {name}: {what} has shape {shape} where (calls, heads, "
            f"{grid[0]}*{grid[1]}, head_dim) is wanted"
        )
    if not tensor.is_floating_point():
        raise TraceError(f"layer {name}: {what} are {tensor.dtype}, floats are wanted")
