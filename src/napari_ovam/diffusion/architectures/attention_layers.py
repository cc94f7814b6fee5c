"""Which attention layers of a model are recorded, and how they make keys of a text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from napari_ovam.attention.trace import LayerTrace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.diffusion.architectures.base import Architecture

# Of diffusers: their queries and keys of the text are what the projections make.
_PLAIN = re.compile(
    r"(IPAdapter)?(XFormers|Fused|Sliced|XLAFlash)?AttnProcessor(2_0|NPU)?"
)
_WRAPPER = re.compile(r"_orig_mod(\.|$)")  # of torch.compile


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer and the module around it that sees the image as a grid."""

    name: str
    attention: Any
    outer: torch.nn.Module
    is_self: bool
    # Whether its queries are recorded where they meet the keys, behind norms and
    # rotations, and not as the projection makes them.
    is_tapped: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Its projections whose output is recorded."""
        return ("to_q", "to_k") if self.is_self else ("to_q",)

    @property
    def text_keys(self) -> str:
        """The projection that makes keys of a text, and values beside where fused."""
        return "to_kv" if _is_fused(self.attention) else "to_k"

    @property
    def is_plain(self) -> bool:
        """Whether it is known to do no more than attention."""
        kind = type(self.attention.processor)
        head = self.attention.to_q.out_features / self.attention.heads
        return bool(
            kind.__module__ == AttnProcessor.__module__
            and _PLAIN.fullmatch(kind.__name__)
            and "forward" not in vars(self.attention)
            and abs(self.attention.scale * head**0.5 - 1) < 1e-3
        )


def find_layers(
    architecture: Architecture, pipe: Any, middle: bool, self_attention: bool
) -> list[AttentionLayer]:
    """Return the layers to be recorded, in the order of their names' blocks.

    It raises `ValueError` if a layer does what a trace cannot answer for, or there is
    none.
    """
    if self_attention and architecture.no_self_maps:
        raise ValueError(
            f"self-attention of {architecture.family.name} cannot be recorded: "
            f"{architecture.no_self_maps}. Record without it"
        )
    # The module inside a wrapper comes after it, and takes its place.
    modules = {
        _WRAPPER.sub("", name).removesuffix("."): module
        for name, module in architecture.denoiser(pipe).named_modules()
    }
    optional = () if middle else architecture.optional
    blocks = [block for block in architecture.blocks if block not in optional]
    found = []
    for name in (n for block in blocks for n in modules if n.startswith(f"{block}.")):
        match = architecture.attention_names.fullmatch(name)
        if match is None:
            continue
        module, outer = modules[name], modules[match["outer"] or ""]
        is_self = match["kind"] == "attn1"
        is_cross = getattr(module, "is_cross_attention", not is_self)
        # In blocks with cross-attention only, attn1 reads the text too.
        if is_cross == is_self or (is_self and not self_attention):
            continue
        is_tapped = architecture.is_tapped
        _refuse(name, module, is_self, is_tapped)
        found.append(AttentionLayer(name, module, outer, is_self, is_tapped))
    if all(layer.is_self for layer in found):
        raise ValueError(
            f"{type(pipe).__name__}'s {architecture.part} has no cross-attention layer "
            "(attn2) that could be recorded"
        )
    return found


def _refuse(name: str, module: Any, is_self: bool, is_tapped: bool) -> None:
    if not is_self and getattr(module, "norm_cross", None) is not None:
        raise ValueError(
            f"{name} normalises the text before it reads it (cross_attention_norm)"
            ": this model cannot be recorded"
        )
    if getattr(module, "norm_q", None) is not None and not is_tapped:
        raise ValueError(
            f"{name} normalises its queries (qk_norm): this model cannot be recorded"
        )
    if is_self and _is_fused(module):
        raise ValueError(
            f"{name} makes queries, keys and values at once (fused projections): call "
            "pipe.unfuse_qkv_projections() to record self-attention"
        )


def _is_fused(attention: Any) -> bool:
    return bool(getattr(attention, "fused_projections", False))


@torch.no_grad()
def copy_keys(layer: AttentionLayer, rows: Tensor) -> dict[str, Any]:
    """Copy how a layer makes keys of a text just now: arguments of `LayerTrace`.

    Keys that several heads share are there once for each.

    Parameters
    ----------
    layer
        A cross-attention layer.
    rows
        (batch, n, text_dim), what its `to_k` reads.
    """
    weight, bias = copy_key_weight(layer, rows)
    found: dict[str, Any] = {"key_weight": weight, "key_bias": bias}
    norm = getattr(layer.attention, "norm_k", None)
    if norm is not None:
        kind = _norm_kind(layer.name, norm)
        own = norm.weight
        if own is None:
            own = torch.ones(norm.normalized_shape).to(weight)
        found |= {"key_norm": kind, "norm_eps": norm.eps, "norm_weight": own}
        found["norm_bias"] = getattr(norm, "bias", None)
    inner, heads = layer.attention.to_q.out_features, layer.attention.heads
    for name, tensor in found.items():
        if isinstance(tensor, Tensor):
            tensor = tensor.detach().clone()
            if len(tensor) == len(weight) < inner:
                by_head = tensor.unflatten(0, (-1, inner // heads))
                tensor = by_head.repeat_interleave(inner // len(tensor), 0).flatten(
                    0, 1
                )
            found[name] = tensor
    return found


def _norm_kind(name: str, norm: Any) -> str:
    kind = type(norm).__name__
    if kind.endswith("RMSNorm"):
        return "rms"
    if kind.endswith("LayerNorm"):
        return "layer"
    raise ValueError(
        f"{name} normalises its keys by {kind}, which is not known: this model cannot "
        "be recorded"
    )


@torch.no_grad()
def check_keys(
    layer: AttentionLayer, keys: Mapping[str, Any], rows: Tensor, met: Tensor
) -> None:
    """Compare the keys of a text as a trace makes them with those that were met.

    It raises `ValueError` if they differ: its maps would not be what the model saw.

    Parameters
    ----------
    keys
        From `copy_keys`.
    rows, met
        What `to_k` read, (batch, n, text_dim), and what the queries met, (batch,
        heads, n, head_dim).
    """
    heads, _, dim = met.shape[1:]
    queries = rows.new_zeros(1, heads, 1, dim)
    trace = LayerTrace(layer.name, (1, 1), queries, scale=1.0, **keys)
    made = trace.keys(rows[0].float())[0]
    limit = 0.02 * met[0].abs().max().nan_to_num()
    same = made.shape == met[0].shape
    if not same or not (made - met[0]).nan_to_num().abs().max() <= limit:
        kind = type(layer.attention.processor).__name__
        raise ValueError(
            f"{layer.name} makes keys otherwise than by its to_k and norm_k (its "
            f"processor is {kind}): this cannot be recorded"
        )


@torch.no_grad()
def copy_key_weight(
    layer: AttentionLayer, like: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Copy the weight and bias that the keys of a text are made with just now.

    Where something was put around the projection (a LoRA, quantised or offloaded
    weights), they are what it makes of the unit vectors and of zero: the layer as it
    works, whatever it is made of, switched on, scaled or merged.

    Parameters
    ----------
    layer
        A cross-attention layer.
    like
        What it reads: the units are of its precision and on its device.
    """
    to_k = getattr(layer.attention, layer.text_keys)
    if _is_bare(to_k):
        weight, bias = to_k.weight.detach().clone(), to_k.bias
        bias = None if bias is None else bias.detach().clone()
    else:
        unit = torch.eye(to_k.in_features, dtype=like.dtype, device=like.device)
        zero = to_k(torch.zeros_like(unit[:1]))[0]
        weight = (to_k(unit) - zero).T.contiguous()
        bias = zero if zero.any() else None
    if layer.text_keys == "to_kv":  # keys above values
        weight = weight.chunk(2)[0].clone()
        bias = None if bias is None else bias.chunk(2)[0].clone()
    return weight, bias


def _is_bare(linear: Any) -> bool:
    """Tell a linear layer whose weight is all there is to it."""
    return bool(
        type(linear) is torch.nn.Linear
        and type(linear.weight) in (Tensor, torch.nn.Parameter)
        and not linear.weight.is_meta
        and "forward" not in vars(linear)  # hooks of accelerate and diffusers
    )


@torch.no_grad()
def check_plain(layer: AttentionLayer, inputs: Any, options: Any, output: Any) -> None:
    """Compare what a layer made with what attention makes of the same.

    It raises `ValueError` if they differ: its maps would not be what the model saw.
    """
    names = ("hidden_states", "encoder_hidden_states", "attention_mask")
    given = {**dict(zip(names, inputs, strict=False)), **options}
    plain = AttnProcessor()(
        layer.attention, **{name: given.get(name) for name in names}
    )
    limit = 0.02 * plain.abs().max().nan_to_num()
    if not (output - plain).nan_to_num().abs().max() <= limit:
        kind = type(layer.attention.processor).__name__
        raise ValueError(
            f"{layer.name} does something else than attention (its processor is "
            f"{kind}): maps of it would not be what the model saw. Take the ordinary "
            "one while recording, set_attn_processor(AttnProcessor2_0())"
        )


def check_range(name: str, tensor: Tensor) -> None:
    """Refuse what became infinite; NaNs are the model's, and are said elsewhere."""
    if tensor.isinf().any() and not tensor.isnan().any():
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(
            f"what {name} asks is too large for {dtype}: record it in another "
            "precision, dtype=torch.bfloat16 or torch.float32, which the trace's "
            "settings take as well"
        )
