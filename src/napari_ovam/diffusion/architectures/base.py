"""The adapter of a family of models: what the rest of the package has to know of it.

The families themselves are in `napari_ovam.diffusion.architectures`.
"""

from __future__ import annotations

import re
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.hub.families import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_ovam.hub.families import Family

    Step = Callable[[int, Tensor], None]  # (number of the step, latents)


class Architecture:
    """One family of models: all that the rest of the package has to know about it.

    Attributes
    ----------
    family
        What people call it, and its pipelines.
    steps, guidance_scale
        Defaults for generation where the model brings none of its own.
    few_steps
        Default of models that were distilled to need few, with guidance off.
    part
        The component that denoises.
    attention_names
        The names of its attention layers: `kind` is "attn1" where they read the image
        and "attn2" where they read a text, `outer` the module around them that sees
        the image as a grid.
    is_tapped
        Whether queries and keys are changed (norms, rotations) before they meet.
    no_self_maps
        Why self-attention has no maps; "" where it has.
    blocks
        Its parts whose cross-attention is recorded, in their order.
    optional
        Those of them that are recorded on request only.
    latents_place, step_place, text_place
        Where its `forward` takes latents, time step and text: (position, name).
    text_encoders
        Its components that encode a text; their tokenizers are called likewise.
    text_parts
        Its own parts that a text passes through before the attention reads it.
    longest
        Tokens that the pipeline cuts a text at; None where the encoder says it.
    lower_case
        Whether the pipeline writes texts so.
    negative_at
        Where `encode_prompt` returns negative texts; None where it does not.
    no_negative
        How its pipeline is told that there is no negative prompt.
    takes_negative
        Whether its pipeline has negative prompts.
    more_options
        Arguments of each text-to-image call.
    upcasts_vae
        Whether the autoencoder overflows in float16.
    length
        Frames of a video when nothing is said; 0 of families that make images.
    frames_option
        The argument of a pipeline that says how many.
    pixels_at, frames_at
        Where a pipeline says the pixels along a side of a latent cell, and the frames
        of a video that its denoiser sees as one.
    default_size
        (H, W) in pixels when nothing is said, where the denoiser does not say it.
    autoencoder
        The component that makes latents of pixels.
    is_flow
        Whether it was trained by flow matching: time steps are noise's share, times
        the length of the schedule.
    can_tile
        Whether traces of an image's tiles can be put together.
    text_alone
        Whether words on saved traces need no more than the text encoder.
    encodes_apart
        Whether the prompt and then the negative text are encoded in calls of their own.
    """

    family: Family
    steps: int = 30
    guidance_scale: float = 7.5
    few_steps: int = 4
    part: str = "unet"
    attention_names: re.Pattern[str] = re.compile(
        r"(?:(?P<outer>.+)\.)?transformer_blocks\.\d+\.(?P<kind>attn[12])"
    )
    is_tapped: bool = False
    no_self_maps: str = ""
    blocks: tuple[str, ...] = ("down_blocks", "mid_block", "up_blocks")
    optional: tuple[str, ...] = ("mid_block",)
    latents_place: tuple[int, str] = (0, "sample")
    step_place: tuple[int, str] = (1, "timestep")
    text_place: tuple[int, str] = (2, "encoder_hidden_states")
    text_encoders: tuple[str, ...] = ("text_encoder",)
    text_parts: tuple[str, ...] = ()
    longest: int | None = None
    lower_case: bool = False
    negative_at: int | None = 1
    no_negative: str | None = None
    takes_negative: bool = True
    more_options: Mapping[str, Any] = MappingProxyType({})
    upcasts_vae: bool = False
    length: int = 0
    frames_option: str = "num_frames"
    pixels_at: str = "vae_scale_factor"
    frames_at: str = ""
    default_size: tuple[int, int] | None = None
    autoencoder: str = "vae"
    is_flow: bool = False
    can_tile: bool = True
    text_alone: bool = True
    encodes_apart: bool = False

    def denoiser(self, pipe: Any) -> Any:
        """Return the module that denoises, without what torch.compile wraps it in.

        It raises `ModelError` where only the text encoder was loaded.
        """
        module = getattr(pipe, self.part)
        if module is None:
            raise ModelError(
                f"this {type(pipe).__name__} has no {self.part}, so it only encodes "
                "texts: load the whole model with load_pipeline"
            )
        return getattr(module, "_orig_mod", module)

    def patch(self, pipe: Any) -> int:
        """Return the latent cells along a side of what the denoiser sees as one."""
        del pipe
        return 1

    def image_channels(self, pipe: Any) -> int:
        """Return the channels of the latents that the denoiser takes."""
        return int(self.denoiser(pipe).config.in_channels)

    def latent_channels(self, pipe: Any) -> int:
        """Return the channels of the autoencoder's latents."""
        config = pipe.vae.config
        return int(config.get("latent_channels") or config.z_dim)

    def alignment(self, pipe: Any) -> int:
        """Return the pixels that one cell of the denoiser's coarsest grid covers."""
        downsamplings = len(self.denoiser(pipe).config.block_out_channels) - 1
        return int(self.pixels(pipe) * 2**downsamplings)

    def pixels(self, pipe: Any) -> int:
        """Return the pixels along a side of a latent cell."""
        return int(getattr(pipe, self.pixels_at, 8))

    def frames(self, pipe: Any) -> int:
        """Return the frames, after the first, that the denoiser sees as one."""
        return int(getattr(pipe, self.frames_at, 1))

    def latent_shape(self, args: Any, kwargs: Any) -> tuple[int, int, int]:
        """Return (frames, h, w) of the latents that the denoiser is given."""
        shape = argument(args, kwargs, *self.latents_place).shape
        return (shape[-3] if len(shape) == 5 else 1), shape[-2], shape[-1]

    def text_scale(self, pipe: Any, layer: str) -> Tensor | None:
        """Return what a layer multiplies a text with before it makes keys of it."""
        del pipe, layer
        return None

    def multiple(self, pipe: Any) -> int:
        """Return the pixels whose multiples are sizes that can be generated."""
        return int(self.pixels(pipe) * self.patch(pipe))

    def size(self, pipe: Any) -> tuple[int, int]:
        """Return the (H, W) in pixels that the denoiser was trained for."""
        if self.default_size is not None:
            return self.default_size
        sample = self.denoiser(pipe).config.sample_size or 64
        rows, columns = (sample, sample) if isinstance(sample, int) else sample
        return rows * self.pixels(pipe), columns * self.pixels(pipe)

    def steps_and_guidance(self, pipe: Any) -> tuple[int, float]:
        """Return what suits a pipeline when nothing is said.

        The four steps of a distilled model are more than it may need: the first one
        looks at pure noise, whose queries know no place yet.
        """
        if is_distilled(pipe.scheduler):
            return self.few_steps, 0.0
        return self.steps, self.guidance_scale

    def fewest_steps(self, pipe: Any) -> int:
        """Return the least number of steps that the pipeline can make."""
        del pipe
        return 1

    def encoded_sides(self, encoded: Any) -> tuple[Tensor | None, Tensor | None] | None:
        """Return prompts and negative texts, of what `encode_prompt` returned.

        None if that was for another encoder than the one whose rows are recorded.
        """
        at = self.negative_at
        return encoded[0], None if at is None else encoded[at]

    def tokenizer(self, pipe: Any) -> Any:
        """Return the tokenizer whose pieces the rows of a text stand for."""
        return getattr(pipe, self.text_encoders[0].replace("text_encoder", "tokenizer"))

    def text_modules(self, pipe: Any) -> tuple[Any, ...]:
        """Return the modules that make the rows of a text; empty if one is missing.

        Behind encoders come the projections after them: tokens live behind these.
        """
        tokenizers = (
            n.replace("text_encoder", "tokenizer") for n in self.text_encoders
        )
        for name in (*self.text_encoders, *tokenizers):
            if getattr(pipe, name, None) is None:
                return ()
        encoders = (getattr(pipe, name) for name in self.text_encoders)
        return (*encoders, *self.projections(pipe))

    def projections(self, pipe: Any) -> list[Any]:
        """Return its own parts that a text passes through, as far as it has them."""
        denoiser = self.denoiser(pipe) if self.text_parts else None
        found = (attrgetter(name)(denoiser) for name in self.text_parts)
        return [module for module in found if module is not None]

    def text_dim(self, pipe: Any) -> int:
        """Return the size of the rows that the cross-attention reads."""
        return int(pipe.text_encoder.config.hidden_size)

    def most_tokens(self, pipe: Any) -> int:
        """Return how many tokens of a text are read, start and end included."""
        if self.longest is not None:
            return self.longest
        config = self.text_modules(pipe)[0].config
        longest = self.tokenizer(pipe).model_max_length
        return int(min(longest, config.max_position_embeddings))

    def tidy(self, text: str) -> str:
        """Return a text as the pipeline hands it to its tokenizer."""
        return text.lower().strip() if self.lower_case else text

    def text_rows(self, pipe: Any, text: str) -> Tensor:
        """Return what the cross-attention reads of a text, (tokens, text_dim).

        Without padding: [start, pieces..., end]. The empty text's first row stands
        for nothing at all.
        """
        encoder = pipe.text_encoder
        ids = token_ids(pipe, pipe.tokenizer, text)
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = torch.ones_like(ids)
        rows: Tensor = encoder(ids, attention_mask=mask)[0][0]
        return rows

    def shown(self, sample: Any, step: Any, text: Any) -> tuple[Any, Any, Any]:
        """Return latents, a step that falls, and text, of which calls are known."""
        return sample, step, text

    def encode_pixels(self, pipe: Any, pixels: Tensor) -> Tensor:
        """Return the autoencoder's most likely latents of pixels (n, 3, h, w)."""
        latents: Tensor = pipe.vae.encode(pixels).latent_dist.mode()
        return latents

    def decode_latents(self, pipe: Any, latents: Tensor) -> Tensor:
        """Return pixels (n, 3, h, w) of the autoencoder's latents."""
        pixels: Tensor = pipe.vae.decode(latents).sample
        return pixels

    def normalized(self, pipe: Any, latents: Tensor) -> Tensor:
        """Return the autoencoder's latents as the denoiser takes them."""
        mean, scale = _latent_statistics(pipe.vae, latents)
        result: Tensor = (latents - mean) * scale
        return result

    def denormalized(self, pipe: Any, latents: Tensor) -> Tensor:
        """Return the denoiser's latents as the autoencoder takes them."""
        mean, scale = _latent_statistics(pipe.vae, latents)
        result: Tensor = latents / scale + mean
        return result

    def unpacked(self, pipe: Any, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Return a generation's latents as (n, channels, h, w), of a size in pixels."""
        del pipe, size
        return latents

    def guidance_options(self, scale: float) -> dict[str, Any]:
        """Return arguments of a text-to-image call that set the guidance scale."""
        return {"guidance_scale": scale}

    def call_options(self, negative_prompt: str, after_step: Step) -> dict[str, Any]:
        """Return arguments of a text-to-image call that differ between families."""

        def callback(
            _pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            after_step(step, tensors["latents"])
            return tensors

        options = {"callback_on_step_end": callback, **self.more_options}
        if self.takes_negative:
            options["negative_prompt"] = negative_prompt or self.no_negative
        return options

    def step_options(self, steps: int) -> dict[str, Any]:
        """Return arguments of a call that depend on its steps."""
        del steps
        return {}

    def total_steps(self, pipe: Any) -> int:
        """Return the denoising calls of the generation that is running."""
        return int(pipe.num_timesteps)

    def conditions(self, pipe: Any, prompt: str, size: tuple[int, int]) -> Any:
        """Return what `predict` needs beside latents, for a picture of (H, W)."""
        del size
        text, _ = pipe.encode_prompt(prompt, pipe._execution_device, 1, False)
        return {"encoder_hidden_states": text, **self._distilled_guidance(pipe, text)}

    def predict(
        self, pipe: Any, latents: Tensor, timestep: int, conditions: Mapping[str, Any]
    ) -> Tensor:
        """Show latents to the denoiser once, and return its output."""
        step = torch.tensor([timestep], device=latents.device).expand(len(latents))
        denoiser = getattr(pipe, self.part)
        predicted: Tensor = denoiser(latents, timestep=step, **conditions).sample
        return predicted

    def _distilled_guidance(self, pipe: Any, like: Tensor) -> dict[str, Tensor]:
        """Return the guidance scale as an input of models that were distilled so."""
        size = self.denoiser(pipe).config.time_cond_proj_dim
        if size is None:
            return {}
        weight = torch.tensor([self.guidance_scale - 1])
        embedded = pipe.get_guidance_scale_embedding(weight, embedding_dim=size)
        return {"timestep_cond": embedded.to(like)}


def argument(args: Any, kwargs: Any, place: int, name: str) -> Any:
    """Return an argument of a call by its place or its name."""
    return args[place] if len(args) > place else kwargs[name]


def _latent_statistics(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """Return what latents are moved and multiplied by, for some models by channel."""
    mean, std = (vae.config.get(f"latents_{name}") for name in ("mean", "std"))
    factor = vae.config.get("scaling_factor") or 1.0
    if mean is None or std is None:
        return vae.config.get("shift_factor") or 0.0, factor
    mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(like) for v in (mean, std))
    return mean, factor / std


def is_distilled(scheduler: Any) -> bool:
    """Tell the schedulers that turbo, Lightning and LCM models come with.

    The few steps of the former start at pure noise (spacing "trailing"), with noise
    prediction; models that were trained for pure noise are not meant.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if re.match(r"(LCM|TCD)Scheduler", name):
        return True
    return bool(
        re.match(r"Euler(Ancestral)?DiscreteScheduler", name)
        and config.get("timestep_spacing") == "trailing"
        and config.get("prediction_type") == "epsilon"
        and not config.get("rescale_betas_zero_snr")
    )


def clip_rows(pipe: Any, tokenizer: Any, encoder: Any, text: str) -> Tensor:
    """Return the rows of the last layer but one of a CLIP, (tokens, dim)."""
    ids = token_ids(pipe, tokenizer, text)
    rows: Tensor = encoder(ids, output_hidden_states=True).hidden_states[-2][0]
    return rows


def token_ids(pipe: Any, tokenizer: Any, text: str) -> Tensor:
    """Return the tokens of a text, (1, n), not cut, where the pipeline runs."""
    ids = tokenizer(text, truncation=False, verbose=False)["input_ids"]
    return torch.tensor([ids], device=pipe._execution_device)
