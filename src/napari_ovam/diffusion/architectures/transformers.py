"""Families whose denoiser is one transformer on patches, with the text beside it.

In some of them norms and rotations come between the projections and the attention.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.embeddings import (
    get_2d_rotary_pos_embed,
    get_2d_rotary_pos_embed_lumina,
)
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import (
    get_resize_crop_region_for_grid,
)
from torch import Tensor

from napari_ovam.diffusion.architectures.base import (
    Architecture,
    is_distilled,
    token_ids,
)
from napari_ovam.hub import families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.diffusion.architectures.base import Step


class PatchTransformer(Architecture):
    """A transformer; texts come through projections of its own, and so do tokens."""

    part = "transformer"
    blocks: tuple[str, ...] = ("transformer_blocks",)
    optional = ()
    latents_place = (0, "hidden_states")
    longest: int = 512

    def patch(self, pipe: Any) -> int:
        """Return the side of the patches that become tokens."""
        return int(self.denoiser(pipe).config.patch_size)

    def alignment(self, pipe: Any) -> int:
        """Return the pixels that a patch covers."""
        return self.multiple(pipe)

    def text_dim(self, pipe: Any) -> int:
        """Return the size of the projected rows."""
        if not self.text_parts:
            return super().text_dim(pipe)
        return int(self.denoiser(pipe).config.cross_attention_dim)

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return [pieces..., end] (T5) or [start, pieces...] (Gemma), projected."""
        ids = token_ids(pipe, self.tokenizer(pipe), text)
        rows = self.encoded(pipe.text_encoder, ids)
        for projection in self.projections(pipe):
            rows = projection(rows.to(self.denoiser(pipe).dtype))
        return rows[0]

    def encoded(self, encoder: Any, ids: Tensor) -> Tensor:
        """Return the states of a text encoder that the pipeline takes, (1, n, dim)."""
        rows: Tensor = encoder(ids, attention_mask=torch.ones_like(ids))[0]
        return rows

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return the text and its mask."""
        del size
        text, mask, *_ = pipe.encode_prompt(
            prompt, do_classifier_free_guidance=False, device=pipe._execution_device
        )
        return {"encoder_hidden_states": text, "encoder_attention_mask": mask}


class PixArtAlpha(PatchTransformer):
    """PixArt-alpha: a transformer that reads T5 through a projection of its own."""

    family = families.PIXART_ALPHA
    steps = 20
    guidance_scale = 4.5
    step_place = (2, "timestep")
    text_place = (1, "encoder_hidden_states")
    text_parts = ("caption_projection",)
    longest = 120
    lower_case = True
    negative_at = 2  # before its mask

    def call_options(self, negative_prompt: str, after_step: Step) -> dict[str, Any]:
        """Return the options: the size that is asked for, the text as it stands.

        The pipeline would otherwise generate at one of its own sizes and resize, and
        rewrite captions where certain libraries happen to be installed.
        """
        return {
            "negative_prompt": negative_prompt,
            "callback": lambda step, _timestep, latents: after_step(step, latents),
            "clean_caption": False,
            "use_resolution_binning": False,
        }

    def fewest_steps(self, pipe: Any) -> int:
        """Return two, unless the scheduler is one of a distilled model.

        With one step the pipeline takes what only such a scheduler returns.
        """
        return 1 if is_distilled(pipe.scheduler) else 2

    def total_steps(self, pipe: Any) -> int:
        """Return the length of the schedule: these pipelines do not count."""
        return len(pipe.scheduler.timesteps)

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return text, its mask, and the micro-conditions of the 1024 pixel models."""
        text, mask, _, _ = pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=pipe._execution_device,
            max_sequence_length=self.longest,
        )
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.denoiser(pipe).use_additional_conditions:
            added["resolution"] = torch.tensor([size]).to(text)
            added["aspect_ratio"] = torch.tensor([[size[0] / size[1]]]).to(text)
        return {
            "encoder_hidden_states": text,
            "encoder_attention_mask": mask,
            "added_cond_kwargs": added,
        }


class PixArtSigma(PixArtAlpha):
    """PixArt-Sigma: PixArt-alpha with longer texts."""

    family = families.PIXART_SIGMA
    longest = 300
    fewest_steps = Architecture.fewest_steps


class Sana(PatchTransformer):
    """Sana: Gemma through a projection and a norm; its self-attention is linear.

    A phrase is read without the instruction that the pipeline puts before prompts.
    """

    family = families.SANA
    steps = 20
    guidance_scale = 4.5
    is_tapped = True
    no_self_maps = "it is linear, so that no pixel looks at another one by one"
    is_flow = True
    step_place = (2, "timestep")
    text_place = (1, "encoder_hidden_states")
    text_parts = ("caption_projection", "caption_norm")
    longest = 300
    lower_case = True
    negative_at: int | None = 2  # before its mask
    no_negative = ""
    # the text as it stands, the size that is asked for
    more_options = MappingProxyType(
        {"clean_caption": False, "use_resolution_binning": False}
    )

    def encode_pixels(self, pipe: Any, pixels: Tensor) -> Tensor:
        """Return the autoencoder's latents of pixels: it has no spread."""
        latents: Tensor = pipe.vae.encode(pixels).latent
        return latents


class SanaSprint(Sana):
    """Sana-Sprint: few steps, the guidance scale an input, no negative prompt."""

    family = families.SANA_SPRINT
    steps = 2
    is_flow = False  # but trigonometric
    negative_at = None
    takes_negative = False

    def step_options(self, steps: int) -> dict[str, Any]:
        """Return the step in the middle, which the pipeline knows of two steps only."""
        return {} if steps == 2 else {"intermediate_timesteps": None}

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return the text, its mask, and the guidance scale."""
        del size
        text, mask = pipe.encode_prompt(prompt, device=pipe._execution_device)
        scale = self.denoiser(pipe).config.guidance_embeds_scale
        guidance = torch.tensor([self.guidance_scale * scale]).to(text)
        return {
            "encoder_hidden_states": text,
            "encoder_attention_mask": mask,
            "guidance": guidance,
        }


class HunyuanDiT(PatchTransformer):
    """HunyuanDiT: BERT's rows before T5's, queries behind norms and rotations.

    A phrase is BERT's: [start, pieces..., end], as of CLIP.
    """

    family = families.HUNYUAN_DIT
    steps = 50
    guidance_scale = 5.0
    attention_names = re.compile(r"(?P<outer>)blocks\.\d+\.(?P<kind>attn[12])")
    blocks = ("blocks",)
    is_tapped = True
    longest = 77
    # the size that is asked for
    more_options = MappingProxyType({"use_resolution_binning": False})

    def encoded_sides(self, encoded: Any) -> tuple[Tensor | None, Tensor | None] | None:
        """Return prompts and negative texts of BERT; those of T5 come in another."""
        return encoded[:2] if encoded[0].shape[1] == self.longest else None

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return both texts, the size, and the rotations of an uncropped picture."""
        device, transformer = pipe._execution_device, self.denoiser(pipe)
        (text, _, mask, _), (t5, _, t5_mask, _) = (
            pipe.encode_prompt(
                prompt,
                device=device,
                dtype=transformer.dtype,
                do_classifier_free_guidance=False,
                text_encoder_index=number,
            )
            for number in (0, 1)
        )
        patch = transformer.config.patch_size
        grid = tuple(side // 8 // patch for side in size)
        crops = get_resize_crop_region_for_grid(grid, 512 // 8 // patch)
        dim = transformer.inner_dim // transformer.num_heads
        return {
            "encoder_hidden_states": text,
            "text_embedding_mask": mask,
            "encoder_hidden_states_t5": t5,
            "text_embedding_mask_t5": t5_mask,
            "image_meta_size": torch.tensor([[1024, 1024, *size, 0, 0]]).to(text),
            "style": torch.zeros(1, dtype=torch.long, device=device),
            "image_rotary_emb": get_2d_rotary_pos_embed(
                dim, crops, grid, device=device, output_type="pt"
            ),
        }

    def predict(
        self, pipe: Any, latents: Tensor, timestep: int, conditions: Mapping[str, Any]
    ) -> Tensor:
        """Show latents to the transformer once, and return its output."""
        step = torch.full((len(latents),), timestep).to(latents)
        predicted: Tensor = pipe.transformer(latents, step, **conditions).sample
        return predicted


class LuminaNext(PatchTransformer):
    """Lumina-Next: Gemma's rows, which each layer normalises before it reads them.

    A text is stored as it is normalised, and what a layer then multiplies it with is a
    part of its keys.
    """

    family = families.LUMINA_NEXT
    steps = 30
    guidance_scale = 4.0
    attention_names = re.compile(r"(?P<outer>)layers\.\d+\.(?P<kind>attn[12])")
    blocks = ("layers",)
    is_tapped = True
    text_place = (2, "encoder_hidden_states")
    text_parts = ("layers.0.norm1_context",)
    longest = 256
    lower_case = True
    negative_at = 2  # before its mask
    no_negative = ""
    more_options = MappingProxyType({"clean_caption": False})  # the text as it stands

    def shown(self, sample: Any, step: Any, text: Any) -> tuple[Any, Any, Any]:
        """Return what calls are known by; of the time step 0 is noise."""
        return sample, -step, text

    def encoded(self, encoder: Any, ids: Tensor) -> Tensor:
        """Return the states of the last layer but one."""
        mask = torch.ones_like(ids)
        states = encoder(ids, attention_mask=mask, output_hidden_states=True)
        rows: Tensor = states.hidden_states[-2]
        return rows

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return [start, pieces...], normalised."""
        ids = token_ids(pipe, self.tokenizer(pipe), text)
        rows = self.encoded(pipe.text_encoder, ids)[0].float()
        (norm,) = self.projections(pipe)
        return torch.nn.functional.rms_norm(rows, rows.shape[-1:], eps=norm.eps)

    def text_scale(self, pipe: Any, layer: str) -> Tensor | None:
        """Return the weight of a layer's norm of the text."""
        block = self.denoiser(pipe).get_submodule(layer.rpartition(".")[0])
        weight: Tensor = block.norm1_context.weight
        return weight

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return the text, its mask, and the rotations."""
        del size
        text, mask, *_ = pipe.encode_prompt(
            prompt, do_classifier_free_guidance=False, device=pipe._execution_device
        )
        dim = self.denoiser(pipe).head_dim
        return {
            "encoder_hidden_states": text,
            "encoder_mask": mask,
            "image_rotary_emb": get_2d_rotary_pos_embed_lumina(dim, 384, 384),
            "cross_attention_kwargs": {},
        }
