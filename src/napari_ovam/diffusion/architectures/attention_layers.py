"""Which attention layers of a model are recorded, and how they make keys of a text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from napari_ovam.diffusion.architectures.base import Architecture

_ATTENTION = re.compile(
    r"(?:(?P<outer>.+)\.)?transformer_blocks\.\d+\.(?P<kind>attn[12])"
)


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer and the module around it that sees the image as a grid."""

    name: str
    attention: Any
    outer: torch.nn.Module
    is_self: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """Its projections whose output is recorded."""
        return ("to_q", "to_k") if self.is_self else ("to_q",)


def find_layers(
    architecture: Architecture, pipe: Any, middle: bool, self_attention: bool
) -> list[AttentionLayer]:
    """Return the layers to be recorded, in the order of their names' blocks.

    Raises
    ------
    ValueError
        If a layer does what a trace cannot answer for, or there is none.
    """
    modules = dict(architecture.denoiser(pipe).named_modules())
    optional = () if middle else architecture.optional
    blocks = [block for block in architecture.blocks if block not in optional]
    found = []
    for name in (n for block in blocks for n in modules if n.startswith(f"{block}.")):
        match = _ATTENTION.fullmatch(name)
        if match is None:
            continue
        module, outer = modules[name], modules[match["outer"] or ""]
        # In blocks with cross-attention only, attn1 reads the text too.
        is_self = match["kind"] == "attn1"
        if module.is_cross_attention == is_self or (is_self and not self_attention):
            continue
        if not is_self and module.norm_cross is not None:
            raise ValueError(
                f"{name} normalises the text before it reads it (cross_attention_norm)"
                ": this model cannot be recorded"
            )
        if getattr(module, "norm_q", None) is not None:
            raise ValueError(
                f"{name} normalises its queries (qk_norm): this model cannot be "
                "recorded"
            )
        found.append(AttentionLayer(name, module, outer, is_self))
    if all(layer.is_self for layer in found):
        raise ValueError(
            f"{type(pipe).__name__}'s {architecture.part} has no cross-attention layer "
            "(attn2) that could be recorded"
        )
    return found


@torch.no_grad()
def key_weight(to_k: Any, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Copy the weight and bias that the keys are made with just now.

    Where something was put around the layer (a LoRA, quantised weights), they are
    what it makes of the unit vectors and of zero: the layer as it works, whatever it
    is made of, switched on, scaled or merged.
    """
    if type(to_k) is torch.nn.Linear:
        weight, bias = to_k.weight, to_k.bias
        return weight.clone(), None if bias is None else bias.clone()
    unit = torch.eye(to_k.in_features, dtype=like.dtype, device=like.device)
    zero = to_k(torch.zeros_like(unit[:1]))[0]
    return (to_k(unit) - zero).T.contiguous(), zero if zero.any() else None


def check_range(name: str, tensor: Tensor) -> None:
    """Refuse what became infinite; NaNs are the model's, and are said elsewhere."""
    if tensor.isinf().any() and not tensor.isnan().any():
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(
            f"what {name} asks is too large for {dtype}: record it in another "
            "precision, dtype=torch.bfloat16 or torch.float32, which the trace's "
            "settings take as well"
        )
