"""Families that make videos: what they see is recorded frame by frame.

The frames that the model sees as one share what was recorded.
"""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING, Any

from napari_ovam.diffusion.architectures.base import argument
from napari_ovam.diffusion.architectures.transformers import PatchTransformer, Sana
from napari_ovam.hub import families
from napari_ovam.hub.families import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_ACROSS = "pixels of one frame look at those of all others"


class _VideoGrid(PatchTransformer):
    """What is the same where latents are (batch, channels, frames, h, w)."""

    no_self_maps = _ACROSS
    length = 81
    pixels_at = "vae_scale_factor_spatial"
    frames_at = "vae_scale_factor_temporal"
    default_size = 480, 832

    def patch(self, pipe: Any) -> int:
        """Return the side of the patches that become tokens."""
        return int(self.denoiser(pipe).config.patch_size[-1])


class Wan(_VideoGrid):
    """Wan 2.1, and 2.2 with one transformer: T5's rows, then zeros to its length."""

    family = families.WAN
    steps = 50
    guidance_scale = 5.0
    attention_names = re.compile(r"(?P<outer>)blocks\.\d+\.(?P<kind>attn[12])")
    blocks = ("blocks",)
    is_tapped = True
    text_place = (2, "encoder_hidden_states")
    text_parts = ("condition_embedder.text_embedder",)
    longest = 512

    def denoiser(self, pipe: Any) -> Any:
        """Return the transformer; a pipeline with two of them is refused."""
        if getattr(pipe, "transformer_2", None) is not None:
            raise ModelError(
                "this Wan has two transformers, one for noise and one for detail, and "
                "only models with one can be recorded (Wan 2.1, Wan 2.2 5B)"
            )
        return super().denoiser(pipe)

    def text_dim(self, pipe: Any) -> int:
        """Return the size of the projected rows."""
        config = self.denoiser(pipe).config
        return int(config.num_attention_heads * config.attention_head_dim)

    def tidy(self, text: str) -> str:
        """Return the text without entities and rows of spaces, as the pipeline does."""
        return " ".join(html.unescape(html.unescape(text)).split())

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return the text."""
        del size
        text, _ = pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=self.longest,
            device=pipe._execution_device,
        )
        return {"encoder_hidden_states": text}


class SkyReels(Wan):
    """SkyReels-V2, text to video: Wan with other sizes."""

    family = families.SKYREELS
    guidance_scale = 6.0
    length = 97
    default_size = 544, 960


class SanaVideo(_VideoGrid, Sana):
    """Sana-Video: Sana for videos, with Wan's autoencoder."""

    family = families.SANA_VIDEO
    steps = 50
    guidance_scale = 6.0
    no_self_maps = Sana.no_self_maps
    frames_option = "frames"

    def multiple(self, pipe: Any) -> int:
        """Return the pixels whose multiples are sizes that can be generated."""
        return math.lcm(32, super().multiple(pipe))


class LTXVideo(PatchTransformer):
    """LTX-Video: T5 without a mask, so that a text's rows depend on its padding."""

    family = families.LTX_VIDEO
    steps = 50
    guidance_scale = 3.0
    is_tapped = True
    no_self_maps = _ACROSS
    step_place = (2, "timestep")
    text_place = (1, "encoder_hidden_states")
    text_parts = ("caption_projection",)
    longest = 128
    negative_at = 2  # before its mask
    length = 161
    pixels_at = "vae_spatial_compression_ratio"
    frames_at = "vae_temporal_compression_ratio"
    default_size = 512, 704

    def multiple(self, pipe: Any) -> int:
        """Return the pixels whose multiples are sizes that can be generated."""
        return math.lcm(32, self.pixels(pipe))

    def latent_shape(self, args: Any, kwargs: Any) -> tuple[int, int, int]:
        """Return (frames, h, w) of the latents, which come as one row of cells."""
        names = ((4, "num_frames"), (5, "height"), (6, "width"))
        frames, height, width = (argument(args, kwargs, *name) for name in names)
        return frames, height, width

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return [pieces..., end], encoded with the padding that the pipeline adds."""
        rows, mask, *_ = pipe.encode_prompt(
            text, do_classifier_free_guidance=False, max_sequence_length=self.longest
        )
        (projection,) = self.projections(pipe)
        projected: Tensor = projection(rows.to(self.denoiser(pipe).dtype))
        return projected[0, mask[0].bool()]
