"""The families of models that are supported, each behind its adapter, and the others.

To support a new family, name it in `napari_ovam.hub.families`, write one class here,
put it into `ARCHITECTURES` and test it on a small random model
(tests/diffusion/test_architectures_*.py, docs/models.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.diffusion.architectures.base import (
    Architecture,
    is_distilled,
    token_ids,
)
from napari_ovam.diffusion.architectures.flux import Flux, Flux2Klein
from napari_ovam.diffusion.architectures.qwen_image import QwenImage
from napari_ovam.diffusion.architectures.stable_diffusion_3 import StableDiffusion3
from napari_ovam.diffusion.architectures.z_image import ZImage
from napari_ovam.hub import families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.diffusion.architectures.base import Step


class StableDiffusion(Architecture):
    """Stable Diffusion 1.x and 2.x, noise and velocity prediction; SD-Turbo."""

    family = families.STABLE_DIFFUSION


class LatentConsistency(StableDiffusion):
    """Latent consistency models, which take the guidance scale as an input."""

    family = families.LATENT_CONSISTENCY
    guidance_scale = 8.5

    def steps_and_guidance(self, pipe: Any) -> tuple[int, float]:
        """Return few steps; the guidance scale makes no second half of the batch."""
        del pipe
        return self.few_steps, self.guidance_scale

    def call_options(self, negative_prompt: str, after_step: Step) -> dict[str, Any]:
        """Return the options; there is no negative prompt."""
        options = super().call_options(negative_prompt, after_step)
        del options["negative_prompt"]
        return options


class StableDiffusionXL(Architecture):
    """Stable Diffusion XL and SDXL-Turbo: two text encoders, side by side."""

    family = families.STABLE_DIFFUSION_XL
    guidance_scale = 5.0
    upcasts_vae = True

    def tokenizer(self, pipe: Any) -> Any:
        """Return the first tokenizer; both cut a text into the same pieces."""
        return self._encoders(pipe)[0][0]

    def text_modules(self, pipe: Any) -> tuple[Any, ...]:
        """Return both encoders; the refiner has the second one only."""
        return tuple(encoder for _, encoder in self._encoders(pipe))

    def text_dim(self, pipe: Any) -> int:
        """Return the sum of the sizes of both encoders' rows."""
        return sum(int(e.config.hidden_size) for e in self.text_modules(pipe))

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return the rows of the last layer but one of both encoders, joined."""
        rows = [
            encoder(token_ids(pipe, tokenizer, text), output_hidden_states=True)
            .hidden_states[-2][0]
            .float()
            for tokenizer, encoder in self._encoders(pipe)
        ]
        return torch.cat(rows, -1)

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return text, pooled text and the micro-conditions of an uncropped picture."""
        text, _, pooled, _ = pipe.encode_prompt(
            prompt,
            device=pipe._execution_device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        numbers = [*size, 0, 0, *size]  # original size, crop, target size
        if pipe.config.get("requires_aesthetics_score"):  # the refiner
            numbers = [*size, 0, 0, 6]
        time_ids = torch.tensor([numbers]).to(text)
        return {
            "encoder_hidden_states": text,
            "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
            **self._distilled_guidance(pipe, text),
        }

    def _encoders(self, pipe: Any) -> list[tuple[Any, Any]]:
        pairs = [
            (getattr(pipe, f"tokenizer{n}", None), getattr(pipe, f"text_encoder{n}"))
            for n in ("", "_2")
        ]
        return [(t, e) for t, e in pairs if t is not None and e is not None]


class PixArtAlpha(Architecture):
    """PixArt-alpha: a transformer that reads T5 through a projection of its own."""

    family = families.PIXART_ALPHA
    steps = 20
    guidance_scale = 4.5
    part = "transformer"
    blocks = ("transformer_blocks",)
    optional = ()
    latents_place = (0, "hidden_states")
    step_place = (2, "timestep")
    text_place = (1, "encoder_hidden_states")
    longest = 120

    def patch(self, pipe: Any) -> int:
        """Return the side of the patches that become tokens."""
        return int(self.denoiser(pipe).config.patch_size)

    def alignment(self, pipe: Any) -> int:
        """Return the pixels that a patch covers."""
        return self.multiple(pipe)

    def text_modules(self, pipe: Any) -> tuple[Any, ...]:
        """Return T5 and the projection after it: tokens live behind the latter."""
        encoder = getattr(pipe, "text_encoder", None)
        if encoder is None:
            return ()
        projection = self.denoiser(pipe).caption_projection
        return (encoder,) if projection is None else (encoder, projection)

    def text_dim(self, pipe: Any) -> int:
        """Return the size of the projected rows."""
        return int(self.denoiser(pipe).config.cross_attention_dim)

    def most_tokens(self, pipe: Any) -> int:
        """Return what the pipeline cuts texts at; T5 itself has no limit."""
        del pipe
        return self.longest

    def tidy(self, text: str) -> str:
        """Return the text in lower case, as the pipeline writes it."""
        return text.lower()

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return [pieces..., end], projected: T5 has no start token."""
        ids = token_ids(pipe, pipe.tokenizer, text)
        rows: Tensor = pipe.text_encoder(ids, attention_mask=torch.ones_like(ids))[0]
        projection = self.denoiser(pipe).caption_projection
        if projection is not None:
            rows = projection(rows.to(self.denoiser(pipe).dtype))
        return rows[0]

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

    def encoded_sides(self, encoded: Any) -> tuple[Tensor | None, Tensor | None]:
        """Return prompts and negative texts, each of which comes before its mask."""
        return encoded[0], encoded[2]

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

    def predict(
        self, pipe: Any, latents: Tensor, timestep: int, conditions: Mapping[str, Any]
    ) -> Tensor:
        """Show latents to the transformer once, and return its output."""
        step = torch.tensor([timestep], device=latents.device).expand(len(latents))
        predicted: Tensor = pipe.transformer(
            latents, timestep=step, **conditions
        ).sample
        return predicted


class PixArtSigma(PixArtAlpha):
    """PixArt-Sigma: PixArt-alpha with longer texts."""

    family = families.PIXART_SIGMA
    longest = 300

    def fewest_steps(self, pipe: Any) -> int:
        """Return one."""
        del pipe
        return 1


ARCHITECTURES: tuple[Architecture, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    LatentConsistency(),
    PixArtAlpha(),
    PixArtSigma(),
    StableDiffusion3(),
    Flux(),
    Flux2Klein(),
    QwenImage(),
    ZImage(),
)


def find_architecture(*class_names: str) -> Architecture:
    """Return the architecture of the first class of pipelines that has one.

    It raises `ModelError` if none is supported; the message is about the first.
    """
    for name in class_names:
        for architecture in ARCHITECTURES:
            if name in architecture.family.pipelines:
                return architecture
    families.find_family(class_names[0])
    raise AssertionError(f"{class_names[0]} has no adapter")


def pipeline_architecture(pipe: Any) -> Architecture:
    """Return the architecture of a loaded pipeline, a subclass of a known one too.

    It raises `ModelError` if it is not supported.
    """
    return find_architecture(*(ancestor.__name__ for ancestor in type(pipe).__mro__))
