"""UNets of others than Stable Diffusion."""

from __future__ import annotations

import re
from typing import Any

from napari_ovam.diffusion.architectures.base import Architecture
from napari_ovam.diffusion.architectures.transformers import PatchTransformer
from napari_ovam.hub import families


class Kandinsky3(PatchTransformer):
    """Kandinsky 3: T5 through a projection and a norm, a UNet and no usual VAE."""

    family = families.KANDINSKY_3
    steps = 25
    guidance_scale = 3.0
    part = "unet"
    # The first of each block reads the image.
    attention_names = re.compile(
        r"(?P<outer>.+\.attentions\.[1-9]\d*)\.(?P<kind>attention)"
    )
    no_self_maps = "it is at other layers than the text, and was not tried"
    blocks = ("down_blocks", "up_blocks")
    latents_place = (0, "sample")
    text_place = (2, "encoder_hidden_states")
    text_parts = ("encoder_hid_proj",)
    longest = 128
    default_size = 1024, 1024
    autoencoder = "movq"
    # those of a UNet, which sees latent cells
    patch = Architecture.patch
    alignment = Architecture.alignment

    def multiple(self, pipe: Any) -> int:
        """Return the pixels whose multiples are sizes that can be generated."""
        return self.alignment(pipe)

    def latent_channels(self, pipe: Any) -> int:
        """Return the channels of an image's latents."""
        return int(self.denoiser(pipe).config.in_channels)

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return the text and its mask."""
        del size
        text, _, mask, _ = pipe.encode_prompt(
            prompt, False, device=pipe._execution_device, _cut_context=True
        )
        return {"encoder_hidden_states": text, "encoder_attention_mask": mask}
