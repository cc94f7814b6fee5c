"""Make an image, or take one, and record what the model's attention saw in it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

from napari_ovam.models import (
    alignment,
    memory_guard,
    model_defaults,
    pipeline_architecture,
)
from napari_ovam.recording import record
from napari_ovam.trace import Trace, TraceSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam.progress import Progress

Preview = Callable[[int, "NDArray[np.uint8]"], None]

# The pipelines of diffusers insist on it, whatever the autoencoder's own factor is.
_PIPELINE_MULTIPLE = 8
# Up to here an autoencoder decodes a preview in about half a denoising step's time.
_SMALL_VAE_PARAMETERS = 8_000_000
_STEPS_A_PREVIEW = 4
_TRACE_SETTINGS = TraceSettings()
_latent_colours: WeakKeyDictionary[torch.nn.Module, torch.Tensor] = WeakKeyDictionary()


class GenerationError(RuntimeError):
    """The model ran but made no usable image."""


@dataclass(frozen=True)
class GenerationSettings:
    """What an image is made from; None stands for the model's own default.

    Attributes
    ----------
    prompt, negative_prompt
        What to draw, and what to keep away from.
    seed
        From 0 to 2**63 - 1. Noise is drawn on the CPU, so that a seed means the same
        on every device (results still differ by rounding).
    steps
        Denoising steps, at least 1. A scheduler may run one more (PNDM does).
    guidance_scale
        How strongly the prompt pulls, 0 or more; up to 1 there is no guidance.
    height, width
        Pixels.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True, eq=False)
class Generation:
    """An image with its trace.

    Attributes
    ----------
    image
        RGB, shape (H, W, 3).
    trace
        What was recorded while the model made, or looked at, the image.
    settings
        The settings, with the model's defaults filled in.
    """

    image: NDArray[np.uint8]
    trace: Trace
    settings: GenerationSettings


def generate(
    pipe: Any,
    settings: GenerationSettings,
    *,
    trace: TraceSettings = _TRACE_SETTINGS,
    progress: Progress | None = None,
    preview: Preview | None = None,
) -> Generation:
    """Generate one image and record its trace.

    The same settings on the same machine give the same image, bit for bit, whatever
    is recorded or previewed.

    Parameters
    ----------
    pipe
        A text-to-image pipeline, as from `load_pipeline`.
    settings
        What to generate.
    trace
        What to record.
    progress
        Called with (steps done, all steps), several times a step: it may raise
        `Cancelled` to stop within the step, which leaves `pipe` as it was.
    preview
        Called after every fourth and the last step with (steps done, picture), the
        picture (h, w, 3) RGB as it is so far, of the image's size where the model
        decodes quickly, else an eighth of it (a latent cell a pixel) and in
        approximate colours.

    Raises
    ------
    ValueError
        If a setting is out of its range, or the pipeline is not text-to-image.
    GenerationError
        If the model made numbers that are no image (NaN).
    OutOfMemory
        If the device's memory does not suffice.
    Cancelled
        If `progress` raised it.
    """
    settings = resolve_settings(pipe, settings)
    done = 0

    def check() -> None:
        if progress is not None:
            progress(done, pipe.num_timesteps)

    def after_step(
        _pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        nonlocal done
        done = step + 1
        check()
        last = done == pipe.num_timesteps
        if preview is not None and (last or done % _STEPS_A_PREVIEW == 0):
            preview(done, _preview_image(pipe, tensors["latents"]))
        return tensors

    advice = (
        f"Try a smaller size than {settings.width}x{settings.height}, keep fewer calls "
        "or layers in the trace, or load the model in float16."
    )
    try:
        with (
            memory_guard(advice),
            record(pipe, **_kept(trace), check=check) as recorder,
        ):
            output = pipe(
                settings.prompt,
                negative_prompt=settings.negative_prompt,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                height=settings.height,
                width=settings.width,
                generator=torch.Generator().manual_seed(settings.seed),
                output_type="np",
                callback_on_step_end=after_step,
            )
    finally:
        pipe.maybe_free_model_hooks()
    pixels = output.images[0]
    _check_finite(pipe, bool(np.isfinite(pixels).all()))
    image = (pixels * 255).round().astype(np.uint8)
    return Generation(image, recorder.traces[0], settings)


def trace_image(
    pipe: Any,
    image: NDArray[np.uint8],
    *,
    prompt: str = "",
    seed: int = 0,
    trace: TraceSettings = _TRACE_SETTINGS,
    progress: Progress | None = None,
    noise_level: int = 100,
    noise_seeds: int = 3,
) -> Generation:
    """Record the trace of an image that exists already.

    The image is encoded, noised as in training (Ho et al., 2020, eq. 4) and shown to
    the UNet once for each of `noise_seeds` draws of noise: each draw is one call of
    the trace. It is scaled to about the model's own size for that; the trace's
    `image_size` is the image's. There is no guidance, so the branch is "cond".

    Parameters
    ----------
    pipe
        A pipeline, as from `load_pipeline`.
    image
        RGB, shape (H, W, 3), of any size.
    prompt
        What the image shows, if known.
    seed
        Of the noise, from 0 to 2**63 - 1.
    trace
        What to record; its `calls` are those of a generation and do not count here.
    progress
        Called with (draws done, all draws); may raise `Cancelled`.
    noise_level
        Time step of the noise, from 0 to the scheduler's last (999).
    noise_seeds
        Draws of noise, at least 1.

    Raises
    ------
    ValueError
        If the image is no (H, W, 3) array of uint8, or a value is out of its range.
    GenerationError
        If the model made NaNs.
    OutOfMemory
        If the device's memory does not suffice.
    Cancelled
        If `progress` raised it.
    """
    _check_image(image)
    settings = GenerationSettings(prompt, seed=_seed(seed))
    _check_prompt(pipe, "prompt", prompt)
    last = pipe.scheduler.config.num_train_timesteps - 1
    _check_range("noise_level", noise_level, 0, last)
    _check_range("noise_seeds", noise_seeds, 1, 1000)
    channels = pipe.unet.config.in_channels
    if channels != pipe.vae.config.latent_channels:
        raise ValueError(
            f"the UNet takes {channels} channels and not an image's "
            f"{pipe.vae.config.latent_channels}: an inpainting model cannot trace an "
            "image, load a text-to-image model"
        )
    done = 0

    def check() -> None:
        if progress is not None:
            progress(done, noise_seeds)

    advice = "Use fewer layers in the trace, or load the model in float16."
    kept = {**_kept(trace), "calls": None, "check": check}
    try:
        with memory_guard(advice), torch.no_grad():
            text, _ = pipe.encode_prompt(prompt, pipe._execution_device, 1, False)
            latents = _encode(pipe, _resized(pipe, image))
            remaining = float(pipe.scheduler.alphas_cumprod[noise_level])
            with record(pipe, **kept) as recorder:
                for draw in range(noise_seeds):
                    generator = torch.Generator().manual_seed((seed + draw) % 2**63)
                    noise = torch.randn(latents.shape, generator=generator).to(latents)
                    noisy = (
                        math.sqrt(remaining) * latents
                        + math.sqrt(1 - remaining) * noise
                    )
                    out = pipe.unet(noisy, noise_level, encoder_hidden_states=text)
                    _check_finite(pipe, bool(out.sample.isfinite().all()))
                    done = draw + 1
                    check()
    finally:
        pipe.maybe_free_model_hooks()
    recorded = replace(
        _joined(recorder.traces),
        image_size=image.shape[:2],
        calls=tuple(range(noise_seeds)),
    )
    return Generation(image, recorded, settings)


def resolve_settings(pipe: Any, settings: GenerationSettings) -> GenerationSettings:
    """Check settings against a pipeline and fill in the model's defaults.

    Raises
    ------
    ValueError
        If a setting is out of its range; the message names it and what would do.
    """
    wanted = pipeline_architecture(pipe).pipelines[0]
    if not any(c.__name__ == wanted for c in type(pipe).__mro__):
        raise ValueError(
            f"{type(pipe).__name__} does not make images from text alone: use record() "
            f"around your own call of it, or pass {wanted}.from_pipe(pipe)"
        )
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise ValueError("an inpainting model does not make images from text alone")
    if not isinstance(settings.prompt, str) or not settings.prompt.strip():
        raise ValueError(f"the prompt is empty ({settings.prompt!r}): say what to draw")
    _check_prompt(pipe, "prompt", settings.prompt)
    _check_prompt(pipe, "negative prompt", settings.negative_prompt)
    defaults = model_defaults(pipe)
    filled = {
        name: getattr(defaults, name) if value is None else value
        for name in ("steps", "guidance_scale", "height", "width")
        for value in [getattr(settings, name)]
    }
    _check_range("steps", filled["steps"], 1, pipe.scheduler.config.num_train_timesteps)
    scale = filled["guidance_scale"]
    if not isinstance(scale, Real) or not 0 <= float(scale) < math.inf:
        raise ValueError(f"guidance_scale is {scale!r}: give a number of 0 or more")
    multiple = math.lcm(_PIPELINE_MULTIPLE, pipe.vae_scale_factor)
    for name in ("height", "width"):
        size = filled[name]
        _check_range(name, size, 1, 2**16)
        if size < multiple or size % multiple:
            nearest = max(multiple, (size + multiple // 2) // multiple * multiple)
            raise ValueError(
                f"{name} is {size}: this model makes multiples of {multiple} pixels, "
                f"the nearest is {nearest}"
            )
    return replace(settings, seed=_seed(settings.seed), **filled)


def _seed(seed: int) -> int:
    _check_range("seed", seed, 0, 2**63 - 1)
    return operator.index(seed)


def _check_range(name: str, value: Any, low: int, high: int) -> None:
    try:
        fits = low <= operator.index(value) <= high
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} is {value!r}: give an integer from {low} to {high}")


def _check_prompt(pipe: Any, name: str, prompt: str) -> None:
    """Refuse a prompt whose end the pipeline would cut off without a word."""
    length = len(pipe.tokenizer(prompt, truncation=False, verbose=False).input_ids)
    if length > (most := pipe.tokenizer.model_max_length):
        raise ValueError(
            f"the {name} has {length} tokens, and the model's text encoder takes "
            f"{most} (its start and end included): shorten {prompt!r}"
        )


def _check_image(image: Any) -> None:
    shape = tuple(getattr(image, "shape", ()))
    dtype = getattr(image, "dtype", None)
    if dtype != np.uint8 or len(shape) != 3 or shape[-1] != 3 or 0 in shape:
        raise ValueError(
            f"the image is of shape {shape} and type {dtype}: an RGB array of shape "
            "(H, W, 3) and type uint8 is wanted"
        )


def _check_finite(pipe: Any, finite: bool) -> None:
    if not finite:
        dtype = str(pipe.unet.dtype).removeprefix("torch.")
        raise GenerationError(
            f"the model made NaNs, a black image, in {dtype}: load it with "
            "dtype='float32'"
        )


def _kept(trace: TraceSettings) -> dict[str, Any]:
    return {field.name: getattr(trace, field.name) for field in fields(trace)}


def _joined(traces: list[Trace]) -> Trace:
    """Join traces of one image along their calls."""
    first, *others = traces
    if not others:
        return first

    def cat(part: str, index: int, name: str) -> torch.Tensor:
        return torch.cat([getattr(getattr(t, part)[index], name) for t in traces])

    return replace(
        first,
        calls=(),
        layers=tuple(
            replace(layer, queries=cat("layers", i, "queries"))
            for i, layer in enumerate(first.layers)
        ),
        self_layers=tuple(
            replace(
                layer,
                queries=cat("self_layers", i, "queries"),
                keys=cat("self_layers", i, "keys"),
            )
            for i, layer in enumerate(first.self_layers)
        ),
    )


def _resized(pipe: Any, image: NDArray[np.uint8]) -> torch.Tensor:
    """Return the image at about the model's area, (1, 3, h, w), from -1 to 1.

    The aspect is kept as far as whole cells of the coarsest grid allow.
    """
    defaults, multiple = model_defaults(pipe), alignment(pipe)
    area = defaults.height * defaults.width
    scale = math.sqrt(area / (image.shape[0] * image.shape[1]))
    # A very long image gets the least height there is, and keeps to the area.
    most = max(1, area // multiple**2)
    height, width = (
        multiple * min(max(1, round(side * scale / multiple)), most)
        for side in image.shape[:2]
    )
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    return pixels.float() / 127.5 - 1


def _encode(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the most likely latents of pixels (1, 3, h, w), from -1 to 1."""
    vae = pipe.vae
    pixels = pixels.to(pipe._execution_device, vae.dtype)
    mode = vae.encode(pixels).latent_dist.mode()
    latents: torch.Tensor = mode * vae.config.scaling_factor
    return latents.to(pipe.unet.dtype)


@torch.no_grad()
def _preview_image(pipe: Any, latents: torch.Tensor) -> NDArray[np.uint8]:
    """Return a cheap picture (h, w, 3) of the first latents in a batch."""
    vae = pipe.vae
    if sum(p.numel() for p in vae.parameters()) <= _SMALL_VAE_PARAMETERS:
        scaled = latents[:1].to(vae.dtype) / vae.config.scaling_factor
        rgb = vae.decode(scaled).sample[0].permute(1, 2, 0)
    else:
        if vae not in _latent_colours:
            _latent_colours[vae] = _fit_colours(pipe)
        *weights, offset = _latent_colours[vae].split([latents.shape[1], 1])
        rgb = latents[0].permute(1, 2, 0).float().cpu() @ weights[0] + offset
    rgb = (rgb.float() / 2 + 0.5).clamp(0, 1).nan_to_num()
    pixels: NDArray[np.uint8] = (rgb * 255).round().byte().cpu().numpy()
    return pixels


def _fit_colours(pipe: Any) -> torch.Tensor:
    """Fit RGB, -1 to 1, as an affine function of latents: (channels + 1, 3).

    Least squares over 64 tiles of random colours, encoded by the model itself.
    """
    tiles = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    colours = tiles.repeat_interleave(4, 2).repeat_interleave(4, 3)
    factor = pipe.vae_scale_factor
    pixels = colours.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    latents = _encode(pipe, pixels)[0].flatten(1).T.float().cpu()
    latents = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    fit: torch.Tensor = torch.linalg.lstsq(latents, colours[0].flatten(1).T).solution
    return fit
