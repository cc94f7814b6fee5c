"""The families of models that are supported, each behind its adapter, and the others.

To support a new family, name it in `napari_ovam.hub.families`, write one class here,
put it into `ARCHITECTURES` and test it on a small random model
(tests/diffusion/test_architectures_*.py, docs/models.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from napari_ovam.diffusion.architectures.base import (
    Architecture,
    clip_rows,
    token_ids,
)
from napari_ovam.diffusion.architectures.flux import Flux, Flux2Klein
from napari_ovam.diffusion.architectures.qwen_image import QwenImage
from napari_ovam.diffusion.architectures.stable_diffusion_3 import StableDiffusion3
from napari_ovam.diffusion.architectures.transformers import (
    HunyuanDiT,
    LuminaNext,
    PixArtAlpha,
    PixArtSigma,
    Sana,
    SanaSprint,
)
from napari_ovam.diffusion.architectures.unets import Kandinsky3
from napari_ovam.diffusion.architectures.videos import (
    LTXVideo,
    SanaVideo,
    SkyReels,
    Wan,
)
from napari_ovam.diffusion.architectures.z_image import ZImage
from napari_ovam.hub import families


class StableDiffusion(Architecture):
    """Stable Diffusion 1.x and 2.x, noise and velocity prediction; SD-Turbo."""

    family = families.STABLE_DIFFUSION


class LatentConsistency(StableDiffusion):
    """Latent consistency models, which take the guidance scale as an input."""

    family = families.LATENT_CONSISTENCY
    guidance_scale = 8.5
    takes_negative = False

    def steps_and_guidance(self, pipe: Any) -> tuple[int, float]:
        """Return few steps; the guidance scale makes no second half of the batch."""
        del pipe
        return self.few_steps, self.guidance_scale


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
        pairs = self._encoders(pipe)
        return torch.cat([clip_rows(pipe, *pair, text).float() for pair in pairs], -1)

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


class Kolors(StableDiffusionXL):
    """Kolors: the UNet of XL, which reads ChatGLM through a projection of its own."""

    family = families.KOLORS
    upcasts_vae = False
    text_parts = ("encoder_hid_proj",)
    longest = 256
    text_modules = Architecture.text_modules

    def tokenizer(self, pipe: Any) -> Any:
        """Return the tokenizer, which says where its pieces are."""
        return _WithOffsets(pipe.tokenizer)

    def text_dim(self, pipe: Any) -> int:
        """Return the size of the projected rows."""
        return int(self.denoiser(pipe).encoder_hid_proj.out_features)

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return [start, start, pieces...] of the last layer but one, projected."""
        ids = token_ids(pipe, pipe.tokenizer, text)
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        states = pipe.text_encoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=places,
            output_hidden_states=True,
        )
        project = self.denoiser(pipe).encoder_hid_proj
        rows: Tensor = project(states.hidden_states[-2][:, 0].to(project.weight.dtype))
        return rows


class _WithOffsets:
    """A tokenizer of Python's own, with the places of its pieces in a text.

    Pieces are found in their order; what begins none (a space, a byte) has no length.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def get_added_vocab(self) -> dict[str, int]:
        """Return the words that were added."""
        found: dict[str, int] = self._tokenizer.get_added_vocab()
        return found

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        """Return numbers, places and which of them are special, of a text."""
        ids = self._tokenizer(text)["input_ids"]
        pieces = self._tokenizer.tokenize(text)
        before = len(ids) - len(pieces)
        places, end = [(0, 0)] * before, 0
        for piece in pieces:
            letters = piece.replace("▁", "")
            start = text.find(letters, end) if letters else -1
            places.append((start, start + len(letters)) if start >= 0 else (end, end))
            end = places[-1][1]
        return {
            "input_ids": ids,
            "offset_mapping": places,
            "special_tokens_mask": [1] * before + [0] * len(pieces),
        }


ARCHITECTURES: tuple[Architecture, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    Kolors(),
    LatentConsistency(),
    PixArtAlpha(),
    PixArtSigma(),
    Sana(),
    SanaSprint(),
    HunyuanDiT(),
    LuminaNext(),
    Kandinsky3(),
    SanaVideo(),
    Wan(),
    SkyReels(),
    LTXVideo(),
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
