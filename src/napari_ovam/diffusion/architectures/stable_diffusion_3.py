"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from napari_ovam.diffusion.architectures.base import clip_rows
from napari_ovam.diffusion.architectures.joint import JointArchitecture
from napari_ovam.hub import families


class StableDiffusion3(JointArchitecture):
    """Stable Diffusion 3 and 3.5: two CLIPs and T5; image before text.

    The rows of a phrase are those that the model reads of its CLIPs: side by side,
    filled up with zeros to T5's size, and behind the model's own projection. Their text
    has no positions, and they need no T5.
    """

    family = families.STABLE_DIFFUSION_3
    steps = 28
    guidance_scale = 7.0
    text_first = False
    meeting = "outputs"
    text_encoders = ("text_encoder", "text_encoder_2")  # of one way to cut texts
    text_parts = ("context_embedder",)

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return [start, pieces..., end], projected."""
        pairs = (
            (pipe.tokenizer, pipe.text_encoder),
            (pipe.tokenizer_2, pipe.text_encoder_2),
        )
        rows = torch.cat([clip_rows(pipe, *pair, text) for pair in pairs], -1)
        embedder = self.denoiser(pipe).context_embedder
        rows = functional.pad(rows, (0, embedder.in_features - rows.shape[-1]))
        projected: Tensor = embedder(rows.to(self.denoiser(pipe).dtype))
        return projected

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return the text and its pooled part."""
        del size
        text, _, pooled, _ = pipe.encode_prompt(
            prompt,
            None,
            None,
            device=pipe._execution_device,
            do_classifier_free_guidance=False,
        )
        return {"encoder_hidden_states": text, "pooled_projections": pooled}
