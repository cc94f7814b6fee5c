"""Qwen-Image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.diffusion.architectures.base import Architecture
from napari_ovam.diffusion.architectures.joint import (
    ChatArchitecture,
    PackedArchitecture,
)
from napari_ovam.hub import families

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_ovam.attention.shown_calls import Block


class QwenImage(ChatArchitecture, PackedArchitecture):
    """Qwen-Image: a language model's last layer, guidance in two calls a step."""

    family = families.QWEN_IMAGE
    steps = 50
    guidance_scale = 4.0
    encodes_apart = True
    text_parts = ("txt_norm", "txt_in")
    longest = 1024
    negative_at = None
    no_negative = " "  # without any there is no guidance
    most_tokens = Architecture.most_tokens  # the template does not count

    def template(self, pipe: Any, text: str) -> str:
        """Return what the language model is given of a text."""
        return str(pipe.prompt_template_encode.format(text))

    def head(self, pipe: Any) -> int:
        """Return none: the pipeline drops the rows before a text."""
        del pipe
        return 0

    def rows_of(self, pipe: Any, text: str) -> Tensor:
        """Return the rows of a text and of the template's end, projected."""
        rows, _ = type(pipe).encode_prompt(pipe, text)
        model = self.denoiser(pipe)
        projected: Tensor = model.txt_in(model.txt_norm(rows[0].to(model.dtype)))
        return projected

    def encode_pixels(self, pipe: Any, pixels: Tensor) -> Tensor:
        """Return latents of pixels, which the autoencoder takes for a video."""
        return super().encode_pixels(pipe, pixels[:, :, None])[:, :, 0]

    def decode_latents(self, pipe: Any, latents: Tensor) -> Tensor:
        """Return pixels of latents, which the autoencoder takes for a video."""
        return super().decode_latents(pipe, latents[:, :, None])[:, :, 0]

    def guidance_options(self, scale: float) -> dict[str, Any]:
        """Return the scale of guidance in two calls."""
        return {"true_cfg_scale": scale}

    def _by_row(self, name: str, value: Any, batch: int) -> Sequence[Tensor] | None:
        """Return an input for each row; shapes of images as numbers."""
        if name == "img_shapes":
            return [torch.tensor(shapes) for shapes in value]
        return super()._by_row(name, value, batch)

    def show(self, model: Any, inputs: Mapping[str, Tensor]) -> None:
        """Show the model a call again, of one image."""
        ready: dict[str, Any] = {n: t[None] for n, t in inputs.items()}
        ready["img_shapes"] = [[tuple(s) for s in inputs["img_shapes"].tolist()]]
        model(**ready, return_dict=False)

    def grid(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the (h, w) of the one image."""
        del model
        shapes = inputs["img_shapes"].tolist()
        if len(shapes) > 1:
            raise ValueError("the model is shown several images: that is not recorded")
        _, height, width = shapes[0]
        return height, width

    def places(self, model: Any, count: int, block: Block) -> dict[str, Any]:
        """Return rotations of text, whose places begin behind those of the image."""
        cells, text = model.pos_embed(
            [[(1, *block.grid)]], max_txt_seq_len=count, device=block.keys.device
        )
        return {
            "image_rotary_emb": (cells[:1], text),
            "encoder_hidden_states_mask": None,
        }

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return text, its mask, and the shape of an image of (H, W) pixels."""
        text, mask = pipe.encode_prompt(prompt)
        rows, columns = (side // self.multiple(pipe) for side in size)
        return {
            "encoder_hidden_states": text,
            "encoder_hidden_states_mask": mask,
            "img_shapes": [[(1, rows, columns)]],
        }
