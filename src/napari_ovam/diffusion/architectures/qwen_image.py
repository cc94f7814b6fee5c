"""Qwen-Image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.diffusion.architectures.joint import ChatArchitecture
from napari_ovam.hub import families

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_ovam.attention.shown_calls import Block
    from napari_ovam.diffusion.architectures.base import Step


class QwenImage(ChatArchitecture):
    """Qwen-Image: a language model's last layer, guidance in two calls a step."""

    family = families.QWEN_IMAGE
    steps = 50
    guidance_scale = 4.0
    encodes_apart = True
    longest = 1024

    def encoded_sides(self, encoded: Any) -> tuple[Tensor | None, Tensor | None]:
        """Return the one text that each call encodes."""
        return encoded[0], None

    def text_modules(self, pipe: Any) -> tuple[Any, ...]:
        """Return the language model, and what normalises and projects its rows."""
        if None in (pipe.text_encoder, pipe.tokenizer):
            return ()
        model = self.denoiser(pipe)
        return pipe.text_encoder, model.txt_norm, model.txt_in

    def template(self, pipe: Any, text: str) -> str:
        """Return what the language model is given of a text."""
        return str(pipe.prompt_template_encode.format(text))

    def head(self, pipe: Any) -> int:
        """Return none: the pipeline drops the rows before a text."""
        del pipe
        return 0

    def most_tokens(self, pipe: Any) -> int:
        """Return how many tokens of a text are read."""
        del pipe
        return self.longest

    def rows_of(self, pipe: Any, text: str) -> Tensor:
        """Return the rows of a text and of the template's end, projected."""
        rows, _ = type(pipe).encode_prompt(pipe, text)
        model = self.denoiser(pipe)
        projected: Tensor = model.txt_in(model.txt_norm(rows[0].to(model.dtype)))
        return projected

    def latent_channels(self, pipe: Any) -> int:
        """Return the channels of the autoencoder's latents."""
        return int(pipe.vae.config.z_dim)

    def encode_pixels(self, pipe: Any, pixels: Tensor) -> Tensor:
        """Return latents of pixels, which the autoencoder takes for a video."""
        return super().encode_pixels(pipe, pixels[:, :, None])[:, :, 0]

    def decode_latents(self, pipe: Any, latents: Tensor) -> Tensor:
        """Return pixels of latents, which the autoencoder takes for a video."""
        return super().decode_latents(pipe, latents[:, :, None])[:, :, 0]

    def guidance_options(self, scale: float) -> dict[str, Any]:
        """Return the scale of guidance in two calls."""
        return {"true_cfg_scale": scale}

    def call_options(self, negative_prompt: str, after_step: Step) -> dict[str, Any]:
        """Return the options; without any negative prompt there is no guidance."""
        return super().call_options(negative_prompt or " ", after_step)

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

    def predict(
        self, pipe: Any, latents: Tensor, timestep: int, conditions: Mapping[str, Any]
    ) -> Tensor:
        """Show latents to the transformer once, and return its output."""
        step = torch.tensor([timestep / 1000], device=latents.device).to(latents)
        predicted: Tensor = pipe.transformer(
            self.packed(latents), timestep=step, **conditions
        ).sample
        return predicted
