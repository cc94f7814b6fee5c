"""Flux.1 (dev, schnell) and Flux.2 Klein."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.diffusion.architectures.joint import (
    ChatArchitecture,
    PackedArchitecture,
    unpack,
)
from napari_ovam.hub import families

if TYPE_CHECKING:
    from napari_ovam.attention.shown_calls import Block
    from napari_ovam.diffusion.architectures.base import Step


class Flux(PackedArchitecture):
    """Flux.1: T5, text before image, blocks with one and with two sets of weights."""

    family = families.FLUX
    steps = 28
    guidance_scale = 3.5
    blocks = ("transformer_blocks", "single_transformer_blocks")
    unbatched = ("img_ids", "txt_ids")
    meeting = "outputs"
    encodes_apart = True
    text_encoders = ("text_encoder_2",)
    text_parts = ("context_embedder",)
    longest = 512
    negative_at = None

    def steps_and_guidance(self, pipe: Any) -> tuple[int, float]:
        """Return few steps for schnell, which does not take a guidance scale."""
        if self.denoiser(pipe).config.guidance_embeds:
            return self.steps, self.guidance_scale
        return self.few_steps, 0.0

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return [pieces..., end], of a text that was padded as the pipeline does.

        T5 runs without a mask here, so that its rows depend on the padding.
        """
        count = len(pipe.tokenizer_2(text, truncation=False)["input_ids"])
        rows, _, _ = type(pipe).encode_prompt(pipe, "", text)
        model = self.denoiser(pipe)
        projected: Tensor = model.context_embedder(rows[0, :count].to(model.dtype))
        return projected

    def call_options(self, negative_prompt: str, after_step: Step) -> dict[str, Any]:
        """Return the options; a negative prompt needs guidance in two calls a step."""
        options = super().call_options(negative_prompt, after_step)
        if negative_prompt:
            options["true_cfg_scale"] = 4.0
        return options

    def places(self, model: Any, count: int, block: Block) -> dict[str, Any]:
        """Return rotations of text, which are none."""
        ids = torch.zeros(count + 1, 3, device=block.keys.device)
        return {"image_rotary_emb": model.pos_embed(ids)}

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return text, its pooled part, and where the cells of (H, W) pixels are."""
        text, pooled, places = pipe.encode_prompt(prompt, None)
        rows, columns = (side // self.multiple(pipe) for side in size)
        cells = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        ids = torch.cat([torch.zeros(len(cells), 1), cells], 1).to(text)
        guidance = None
        if self.denoiser(pipe).config.guidance_embeds:
            guidance = torch.full([1], self.guidance_scale, device=text.device)
        return {
            "encoder_hidden_states": text,
            "pooled_projections": pooled,
            "txt_ids": places,
            "img_ids": ids,
            "guidance": guidance,
        }


class Flux2Klein(ChatArchitecture, PackedArchitecture):
    """Flux.2 Klein: three layers of a language model, stacked; text has places."""

    family = families.FLUX_2_KLEIN
    steps = 50
    guidance_scale = 4.0
    blocks = ("transformer_blocks", "single_transformer_blocks")
    step_place = (2, "timestep")
    encodes_apart = True
    text_parts = ("context_embedder",)
    negative_at = None
    takes_negative = False

    def steps_and_guidance(self, pipe: Any) -> tuple[int, float]:
        """Return few steps for the distilled models."""
        if pipe.config.is_distilled:
            return self.few_steps, 1.0
        return self.steps, self.guidance_scale

    def rows_of(self, pipe: Any, text: str) -> Tensor:
        """Return the rows of the padded text, projected."""
        rows, _ = type(pipe).encode_prompt(pipe, text)
        model = self.denoiser(pipe)
        projected: Tensor = model.context_embedder(rows[0].to(model.dtype))
        return projected

    def normalized(self, pipe: Any, latents: Tensor) -> Tensor:
        """Return latents as the transformer takes them: by channel of a packed cell."""
        packed = self.packed(latents)
        mean, deviation = _statistics(pipe.vae, packed)
        return unpack((packed - mean) / deviation, latents.shape[-2] // 2)

    def denormalized(self, pipe: Any, latents: Tensor) -> Tensor:
        """Return the transformer's latents as the autoencoder takes them."""
        packed = self.packed(latents)
        mean, deviation = _statistics(pipe.vae, packed)
        return unpack(packed * deviation + mean, latents.shape[-2] // 2)

    def places(self, model: Any, count: int, block: Block) -> dict[str, Any]:
        """Return rotations of text, whose places are (0, 0, 0, i)."""
        ids = torch.zeros(count + 1, 4, device=block.keys.device)
        ids[:, 3] = torch.arange(count + 1)
        return {"image_rotary_emb": model.pos_embed(ids)}

    def advance(
        self, model: Any, module: Any, texts: Tensor, block: Block
    ) -> Tensor | None:
        """Call a block; one with a single set of weights takes both as one sequence."""
        if "temb_mod" not in block.arguments:
            return super().advance(model, module, texts, block)
        dummy = texts.new_zeros(len(texts), 1, texts.shape[-1])
        arguments = {**block.arguments, **self.places(model, texts.shape[1], block)}
        joint: Tensor = module(torch.cat([texts, dummy], 1), None, **arguments)
        return joint[:, :-1]

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return text, its places, and those of the cells of (H, W) pixels."""
        text, places = pipe.encode_prompt(prompt)
        rows, columns = (side // self.multiple(pipe) for side in size)
        axes = (torch.arange(n) for n in (1, rows, columns, 1))
        ids = torch.cartesian_prod(*axes)[None].to(text.device)
        return {
            "encoder_hidden_states": text,
            "txt_ids": places,
            "img_ids": ids,
            "guidance": None,
        }


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    deviation = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
    return vae.bn.running_mean.to(like), deviation.to(like)
