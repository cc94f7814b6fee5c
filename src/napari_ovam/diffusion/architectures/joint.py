"""Models with joint attention, whose text changes in every layer (MM-DiT).

A trace of them keeps what the denoiser was shown, and asks it again
(`napari_ovam.attention.streams`). Here is what differs between the families.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch import Tensor

from napari_ovam.diffusion.architectures.attention_layers import AttentionLayer
from napari_ovam.diffusion.architectures.base import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.nn import Module


def find_joint_layers(
    architecture: JointArchitecture, pipe: Any, self_attention: bool
) -> list[AttentionLayer]:
    """Return the joint attentions of a pipeline, in the order in which they run.

    It raises `ValueError` if they do what a trace cannot answer for.
    """
    model = architecture.denoiser(pipe)
    if self_attention:
        raise ValueError(
            f"{type(pipe).__name__} has no self-attention of the image alone: record "
            "it with self_attention=False"
        )
    if getattr(model, "is_cache_enabled", False):
        raise ValueError(
            f"{type(model).__name__} takes what its blocks made from a cache: call "
            "pipe.transformer.disable_cache() to record it"
        )
    layers = []
    for name, block in architecture.joint_blocks(model).items():
        attention: Any = getattr(block, architecture.attention)
        backend = _backend(attention.processor)
        if "native" not in backend:
            raise ValueError(
                f"{name} runs attention in {backend}, which cannot be seen: call "
                "pipe.transformer.set_attention_backend('native'), or take the "
                "ordinary processors"
            )
        layers.append(AttentionLayer(name, attention, block, False))
    return layers


def _backend(processor: Any) -> str:
    """Return what computes attention: the name holds "native" where it is torch."""
    kind = type(processor).__name__
    if not hasattr(processor, "_attention_backend"):
        return kind if "XFormers" in kind else f"native {kind}"
    # That of the model, or else the one that is set for all models.
    chosen = processor._attention_backend
    chosen = chosen or _AttentionBackendRegistry.get_active_backend()[0]
    return f"the backend {getattr(chosen, 'value', chosen)!r}"


class JointArchitecture(Architecture):
    """A family of models with joint attention.

    Attributes
    ----------
    blocks
        The lists of its blocks with joint attention, in the order in which they run.
    attention
        The joint attention's name in a block.
    text_first
        Whether text comes before image where both are one sequence.
    unbatched
        Inputs that all images share.
    """

    part = "transformer"
    blocks = ("transformer_blocks",)
    optional = ()
    attention: str = "attn"
    latents_place = (0, "hidden_states")
    text_place = (1, "encoder_hidden_states")
    step_place = (3, "timestep")
    is_flow = True
    can_tile = False
    text_first: bool = True
    unbatched: tuple[str, ...] = ()

    def joint_blocks(self, model: Any) -> dict[str, Module]:
        """Return the blocks by the paths of their joint attention, as they run."""
        return {
            f"{kind}.{i}.{self.attention}": getattr(block, "_orig_mod", block)
            for kind in self.blocks
            for i, block in enumerate(getattr(model, kind))
        }

    def fine(self, names: Sequence[str]) -> list[str]:
        """Return the layers that are recorded where nothing is said.

        The later half of the blocks, as ConceptAttention takes it (section 4 of arXiv
        2502.04320); not measured here.
        """
        return list(names[len(names) // 2 :])

    def heads(self, model: Any) -> tuple[int, int]:
        """Return the heads of the attention, and the size of each."""
        config = model.config
        return int(config.num_attention_heads), int(config.attention_head_dim)

    def text_dim(self, pipe: Any) -> int:
        """Return the size of a text's rows where they enter the first block."""
        heads, size = self.heads(self.denoiser(pipe))
        return heads * size

    def patch(self, pipe: Any) -> int:
        """Return the latent cells along a side of what becomes one token."""
        return int(self.denoiser(pipe).config.patch_size)

    def size(self, pipe: Any) -> tuple[int, int]:
        """Return 1024 x 1024 where the model itself names none."""
        sample = self.denoiser(pipe).config.get("sample_size")
        side = sample * pipe.vae_scale_factor if sample else 1024
        return side, side

    def alignment(self, pipe: Any) -> int:
        """Return the pixels that a cell of the image covers."""
        return self.multiple(pipe)

    def inputs(
        self, model: Any, args: Any, kwargs: Any, rows: Sequence[int]
    ) -> list[dict[str, Tensor]]:
        """Return what a call shows of each image, whose rows of the batch are given.

        It raises `ValueError` if it is more than can be shown again.
        """
        bound = inspect.signature(type(model).forward).bind(model, *args, **kwargs)
        given = dict(bound.arguments)
        for name in ("self", "return_dict"):
            given.pop(name, None)
        batch = len(given[self.latents_place[1]])
        found: list[dict[str, Tensor]] = [{} for _ in rows]
        for name, value in given.items():
            tensors = self._by_row(name, value, batch)
            if tensors is None:
                raise ValueError(
                    f"the model is given {name}, which a trace of it cannot show again "
                    "(ControlNet, IP-Adapter, a LoRA's scale of its own?): leave it out"
                )
            for each, row in zip(found, rows, strict=True):
                if len(tensors):
                    each[name] = tensors[row].detach().cpu().clone()
        return found

    def _by_row(self, name: str, value: Any, batch: int) -> Sequence[Tensor] | None:
        """Return an input for each row of the batch, none if it says nothing."""
        if value is None or value is False or (isinstance(value, dict) and not value):
            return ()
        if not isinstance(value, Tensor):
            return None
        if name in self.unbatched:
            return (value,) * batch
        return list(value.expand(batch) if value.ndim == 0 else value)

    def is_rounded(self, name: str) -> bool:
        """Tell inputs that may be kept in half precision: not steps and places."""
        return name != self.step_place[1] and name not in self.unbatched

    def show(self, model: Any, inputs: Mapping[str, Tensor]) -> None:
        """Show the model a call again, of one image."""
        model(
            **{
                name: tensor if name in self.unbatched else tensor[None]
                for name, tensor in inputs.items()
            },
            return_dict=False,
        )

    def grid(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the (h, w) cells of the image in a call."""
        height, width = inputs[self.latents_place[1]].shape[-2:]
        patch = int(model.config.patch_size)
        return height // patch, width // patch

    def image_part(
        self, grid: tuple[int, int], seen: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the image's part of what the attention saw, (1, heads, n, dim)."""
        cells = grid[0] * grid[1]
        at = slice(-cells, None) if self.text_first else slice(0, cells)
        return {name: tensor[:, :, at] for name, tensor in seen.items()}

    def image_states(self, grid: tuple[int, int], output: Any) -> Tensor:
        """Return the image's cells (images, cells, dim) behind a block."""
        del grid
        states: Tensor = output[1]
        return states

    def arguments(self, module: Any, args: Any, kwargs: Any) -> Mapping[str, Any]:
        """Return what a block was given beside image and text."""
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        left_out = ("self", "hidden_states", "encoder_hidden_states")
        return {k: v for k, v in bound.arguments.items() if k not in left_out}

    def advance(
        self, model: Any, module: Any, texts: Tensor, arguments: Mapping[str, Any]
    ) -> Tensor | None:
        """Call a block with texts (P, n, dim) and one cell of no image each.

        Returns the texts behind it, None behind the last block.
        """
        del model
        behind: Tensor | None = module(
            hidden_states=texts.new_zeros(len(texts), 1, texts.shape[-1]),
            encoder_hidden_states=texts,
            **arguments,
        )[0]
        return behind
