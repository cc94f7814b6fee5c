"""Models with joint attention, whose text changes in every layer (MM-DiT).

A trace of them keeps what the denoiser was shown, and asks it again
(`napari_ovam.attention.streams`). Here is what differs between the families.
"""

from __future__ import annotations

import inspect
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch import Tensor

from napari_ovam.diffusion.architectures.attention_layers import AttentionLayer
from napari_ovam.diffusion.architectures.base import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.nn import Module

    from napari_ovam.attention.shown_calls import Block, Meeting


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
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(
            f"{type(model).__name__} gets its weights for each layer anew (sequential "
            "CPU offload), and phrases are sent through its blocks one by one: call "
            "pipe.enable_model_cpu_offload() instead"
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
    meeting
        What of an image meets what of a text by default: outputs of the attention
        where a publication found that better (Flux.1 and Stable Diffusion 3:
        ConceptAttention, arXiv 2502.04320); not measured here.
    """

    part = "transformer"
    blocks: tuple[str, ...] = ("transformer_blocks",)
    optional = ()
    attention: str = "attn"
    latents_place = (0, "hidden_states")
    text_place = (1, "encoder_hidden_states")
    step_place = (3, "timestep")
    is_flow = True
    can_tile = False
    text_alone = False
    text_first: bool = True
    unbatched: tuple[str, ...] = ()
    meeting: Meeting = "keys"

    def joint_blocks(self, model: Any) -> dict[str, Module]:
        """Return the blocks by the paths of their joint attention, as they run."""
        return {
            f"{kind}.{i}.{self.attention}": getattr(block, "_orig_mod", block)
            for kind in self.blocks
            for i, block in enumerate(getattr(model, kind))
        }

    def fine(self, names: Sequence[str]) -> list[str]:
        """Return the layers that are recorded where nothing is said.

        The later half of the blocks of the first kind, as ConceptAttention takes them
        (arXiv 2502.04320); not measured here.
        """
        first = [name for name in names if name.startswith(f"{self.blocks[0]}.")]
        return first[len(first) // 2 :]

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
        del pipe
        return 2

    def size(self, pipe: Any) -> tuple[int, int]:
        """Return 1024 x 1024 where the pipeline itself names none."""
        side = getattr(pipe, "default_sample_size", 0) * pipe.vae_scale_factor or 1024
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
        if not isinstance(value, Tensor):
            if not value:
                return ()
            is_list = isinstance(value, list) and isinstance(value[0], Tensor)
            return value if is_list and len(value) == batch else None
        if name in self.unbatched:
            return (value,) * batch
        return list(value.expand(batch) if value.ndim == 0 else value)

    def is_rounded(self, name: str, tensor: Tensor) -> bool:
        """Tell inputs that may be kept in half precision: not steps and places."""
        exact = (self.step_place[1], *self.unbatched)
        return tensor.is_floating_point() and name not in exact

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
        """Return the (h, w) cells of the image in a call.

        It raises `ValueError` if there is more than one image.
        """
        del model
        height, width = inputs[self.latents_place[1]].shape[-2:]
        return height // 2, width // 2

    def image_part(
        self, grid: tuple[int, int], seen: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the image's part of what the attention saw, (1, heads, n, dim)."""
        at = self._image_at(grid[0] * grid[1])
        return {name: tensor[:, :, at] for name, tensor in seen.items()}

    def image_states(self, grid: tuple[int, int], output: Any) -> Tensor:
        """Return the image's cells (images, cells, dim) behind a block."""
        if isinstance(output, tuple):  # of text and image
            return cast("Tensor", output[1])
        joint: Tensor = output
        return joint[:, self._image_at(grid[0] * grid[1])]

    def _image_at(self, cells: int) -> slice:
        """Return the image's place in a sequence that holds the text as well."""
        return slice(-cells, None) if self.text_first else slice(0, cells)

    def arguments(self, module: Any, args: Any, kwargs: Any) -> Mapping[str, Any]:
        """Return what a block was given beside image and text."""
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        left_out = ("self", "hidden_states", "encoder_hidden_states")
        return {k: v for k, v in bound.arguments.items() if k not in left_out}

    def places(self, model: Any, count: int, block: Block) -> dict[str, Any]:
        """Return a block's arguments that say where `count` rows of a text are.

        And where one cell of an image is, which does not matter.
        """
        del model, count, block
        return {}

    def advance(
        self, model: Any, module: Any, texts: Tensor, block: Block
    ) -> Tensor | None:
        """Call a block with texts (P, n, dim) and one cell of no image each.

        Returns the texts behind it, None behind the last block.
        """
        arguments = {
            **block.arguments,
            **self.places(model, texts.shape[1], block),
            "hidden_states": texts.new_zeros(len(texts), 1, texts.shape[-1]),
            "encoder_hidden_states": texts,
        }
        behind: Tensor | None = module(**arguments)[0]
        return behind


class PackedArchitecture(JointArchitecture):
    """A family whose latents are packed: 2x2 of them are one token of its input."""

    def image_channels(self, pipe: Any) -> int:
        """Return the channels of the latents before they are packed."""
        return int(self.denoiser(pipe).config.in_channels) // 4

    def packed(self, latents: Tensor) -> Tensor:
        """Return latents (n, channels, h, w) as (n, h / 2 * w / 2, 4 * channels)."""
        parts = latents.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        tokens: Tensor = parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return tokens

    def unpacked(self, pipe: Any, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Return packed latents as (n, channels, h, w), of an image of a size."""
        if latents.ndim == 4:
            return latents
        return unpack(latents, size[0] // self.multiple(pipe))

    def grid(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the (h, w) of the image, of where its cells are."""
        del model
        places = inputs["img_ids"].reshape(-1, inputs["img_ids"].shape[-1])
        if places[:, 0].any():
            raise ValueError(
                "the model is shown another image beside (a reference, an edit): that "
                "cannot be recorded"
            )
        height, width = (places[:, 1:3].amax(0) + 1).int().tolist()
        return height, width

    def predict(
        self, pipe: Any, latents: Tensor, timestep: int, conditions: Mapping[str, Any]
    ) -> Tensor:
        """Show latents to the transformer once, and return its output."""
        step = torch.tensor([timestep / 1000], device=latents.device).to(latents)
        predicted: Tensor = pipe.transformer(
            self.packed(latents), timestep=step, **conditions
        ).sample
        return predicted


def unpack(latents: Tensor, rows: int) -> Tensor:
    """Return packed latents of so many rows of cells as (n, channels, h, w)."""
    parts = latents.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, -1))
    whole: Tensor = parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    return whole


class ChatArchitecture(JointArchitecture):
    """A family that reads a language model, which is given the text in a chat.

    The rows of a phrase are its own pieces', without the template around it. The last
    one, against which a class is weighed, is what ends an empty text.
    """

    longest: int = 512
    thinks: bool = False  # what the template is told

    def template(self, pipe: Any, text: str) -> str:
        """Return what the language model is given of a text."""
        messages = [{"role": "user", "content": text}]
        how = {"tokenize": False, "add_generation_prompt": True}
        result: str = pipe.tokenizer.apply_chat_template(
            messages, **how, enable_thinking=self.thinks
        )
        return result

    def head(self, pipe: Any) -> int:
        """Return the rows before those of a text."""
        one, other = (self.template(pipe, text) for text in ("a", "b"))
        pairs = zip(one, other, strict=False)
        same = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return len(pipe.tokenizer(same)["input_ids"])

    def most_tokens(self, pipe: Any) -> int:
        """Return how many tokens of a text are read beside the template."""
        around = len(pipe.tokenizer(self.template(pipe, ""))["input_ids"])
        return self.longest - around

    def rows_of(self, pipe: Any, text: str) -> Tensor:
        """Return all rows that the model reads of a text, where they enter it."""
        raise NotImplementedError

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return [pieces..., end of an empty text]."""
        head = self.head(pipe)
        end = self.rows_of(pipe, "")[head : head + 1]
        count = len(pipe.tokenizer(text)["input_ids"])
        if not count:
            return end
        return torch.cat([self.rows_of(pipe, text)[head : head + count], end])
