"""Generate an image and record what the model's attention saw in it."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.base.words import is_text
from napari_ovam.diffusion.devices import explain_nans, memory_guard
from napari_ovam.diffusion.pipelines import model_defaults, pipeline_architecture
from napari_ovam.diffusion.recording import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import Trace
    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.base.progress import Progress

Preview = Callable[[int, "NDArray[np.uint8]"], None]

# The pipelines of diffusers insist on it, whatever the autoencoder's own factor is.
_PIPELINE_MULTIPLE = 8
# Up to here an autoencoder decodes a preview in about half a denoising step's time.
_SMALL_VAE_PARAMETERS = 8_000_000
_STEPS_A_PREVIEW = 4
_TRACE_SETTINGS = TraceSettings()
_latent_colours: WeakKeyDictionary[torch.nn.Module, torch.Tensor] = WeakKeyDictionary()


class TruncatedPromptWarning(UserWarning):
    """A prompt is longer than what the model reads of it."""


class GenerationError(RuntimeError):
    """The model ran but made no usable image."""


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

    Warns
    -----
    TruncatedPromptWarning
        If a prompt is longer than what the model reads of it.
    """
    if pipeline_architecture(pipe).length:
        raise ValueError(f"{type(pipe).__name__} makes videos: use generate_video")
    settings = resolve_settings(pipe, settings)
    return _run(pipe, [settings], trace, progress, preview)[0]


def generate_batch(
    pipe: Any,
    several: Sequence[GenerationSettings],
    *,
    trace: TraceSettings = _TRACE_SETTINGS,
    progress: Progress | None = None,
) -> list[Generation]:
    """Generate several images at once, as `generate` does one.

    Rounding differs with their number, so that an image of a batch is not, bit for bit,
    what it is alone. It raises `ValueError` if they differ in more than prompts and
    seeds.
    """
    several = [resolve_settings(pipe, settings) for settings in several]
    own = ("prompt", "negative_prompt", "seed")
    for each in several:
        if replace(several[0], **{name: getattr(each, name) for name in own}) != each:
            raise ValueError(f"{each} is not of the size and steps of {several[0]}")
    return _run(pipe, several, trace, progress, None)


def generate_video(
    pipe: Any,
    settings: GenerationSettings,
    *,
    frames: int | None = None,
    trace: TraceSettings = _TRACE_SETTINGS,
    progress: Progress | None = None,
) -> list[Generation]:
    """Generate a video and record its trace: one image with its trace a frame.

    Frames that the model sees as one (four of Wan, eight of LTX-Video, all but the
    first) have one trace, the same object.

    Parameters
    ----------
    pipe
        A text-to-video pipeline, as from `load_pipeline`.
    settings, trace, progress
        As in `generate`, with its errors and warnings.
    frames
        How many; None is the model's own default. The first one is a frame of its own,
        and so a number of 1 makes a video of one frame.
    """
    architecture = pipeline_architecture(pipe)
    if not architecture.length:
        raise ValueError(f"{type(pipe).__name__} makes images: use generate")
    frames = architecture.length if frames is None else frames
    check_range("frames", frames, 1, 2**16)
    step = architecture.frames(pipe)
    if rest := (frames - 1) % step:
        raise ValueError(
            f"frames is {frames}: this model makes 1 and a multiple of {step}, such as "
            f"{frames - rest} or {frames - rest + step}"
        )
    settings = resolve_settings(pipe, settings)
    return _run(
        pipe, [settings], trace, progress, None, **{architecture.frames_option: frames}
    )


def _run(
    pipe: Any,
    several: Sequence[GenerationSettings],
    trace: TraceSettings,
    progress: Progress | None,
    preview: Preview | None,
    **more: Any,
) -> list[Generation]:
    """Run a pipeline on resolved settings, recorded: images, or all frames of one."""
    settings = several[0]
    architecture = pipeline_architecture(pipe)
    done = 0

    def check() -> None:
        if progress is not None:
            progress(done, architecture.total_steps(pipe))

    def after_step(step: int, latents: torch.Tensor) -> None:
        nonlocal done
        done = step + 1
        check()
        last = done == architecture.total_steps(pipe)
        decodes = getattr(pipe, "vae", None) is not None
        if preview is not None and decodes and (last or done % _STEPS_A_PREVIEW == 0):
            size = settings.height or 0, settings.width or 0
            latents = architecture.unpacked(pipe, latents, size)
            preview(done, _preview_image(pipe, latents))

    advice = (
        f"Try a smaller size than {settings.width}x{settings.height}, keep fewer calls "
        "or layers in the trace, or load the model in float16."
    )
    options = architecture.call_options(settings.negative_prompt, after_step)
    seeded = torch.Generator().manual_seed(settings.seed)
    options |= {"prompt": settings.prompt, "generator": seeded}
    options |= architecture.guidance_options(float(settings.guidance_scale or 0))
    if len(several) > 1:
        options |= _batched(several)
    try:
        with memory_guard(advice), record(pipe, **vars(trace), check=check) as recorder:
            output = pipe(
                num_inference_steps=settings.steps,
                height=settings.height,
                width=settings.width,
                output_type="np",
                **architecture.step_options(int(settings.steps or 0)),
                **options,
                **more,
            )
    finally:
        pipe.maybe_free_model_hooks()
    pixels = output.frames[0] if architecture.length else output.images
    several = [settings] * len(pixels) if architecture.length else several
    check_finite(pipe, bool(np.isfinite(pixels).all()))
    return [
        Generation((each * 255).round().astype(np.uint8), seen, of)
        for each, seen, of in zip(pixels, recorder.traces, several, strict=True)
    ]


def _batched(several: Sequence[GenerationSettings]) -> dict[str, Any]:
    """Return the options in which the images of a batch differ."""
    options: dict[str, Any] = {
        "prompt": [each.prompt for each in several],
        "generator": [torch.Generator().manual_seed(each.seed) for each in several],
    }
    if any(each.negative_prompt for each in several):
        options["negative_prompt"] = [each.negative_prompt for each in several]
    return options


def resolve_settings(pipe: Any, settings: GenerationSettings) -> GenerationSettings:
    """Check settings against a pipeline and fill in the model's defaults.

    It raises `ValueError` if a setting is out of its range; the message names it and
    what would do.
    """
    architecture = pipeline_architecture(pipe)
    wanted = architecture.family.pipelines[0]
    if not any(c.__name__ == wanted for c in type(pipe).__mro__):
        raise ValueError(
            f"{type(pipe).__name__} does not make images from text alone: use record() "
            f"around your own call of it, or pass {wanted}.from_pipe(pipe)"
        )
    if architecture.image_channels(pipe) != architecture.latent_channels(pipe):
        raise ValueError("an inpainting model does not make images from text alone")
    if not isinstance(settings.prompt, str) or not settings.prompt.strip():
        raise ValueError(f"the prompt is empty ({settings.prompt!r}): say what to draw")
    check_prompt(pipe, "prompt", settings.prompt)
    check_prompt(pipe, "negative prompt", settings.negative_prompt)
    defaults = model_defaults(pipe)
    filled = {
        name: getattr(defaults, name) if value is None else value
        for name in ("steps", "guidance_scale", "height", "width")
        for value in [getattr(settings, name)]
    }
    most = pipe.scheduler.config.num_train_timesteps
    check_range("steps", filled["steps"], architecture.fewest_steps(pipe), most)
    scale = filled["guidance_scale"]
    if not isinstance(scale, Real) or not 0 <= float(scale) < math.inf:
        raise ValueError(f"guidance_scale is {scale!r}: give a number of 0 or more")
    multiple = math.lcm(_PIPELINE_MULTIPLE, architecture.multiple(pipe))
    for name in ("height", "width"):
        size = filled[name]
        check_range(name, size, 1, 2**16)
        if size < multiple or size % multiple:
            nearest = max(multiple, (size + multiple // 2) // multiple * multiple)
            raise ValueError(
                f"{name} is {size}: this model makes multiples of {multiple} pixels, "
                f"the nearest is {nearest}"
            )
    return replace(settings, seed=checked_seed(settings.seed), **filled)


def checked_seed(seed: int) -> int:
    """Return a seed as an int, or refuse it by name."""
    check_range("seed", seed, 0, 2**63 - 1)
    return operator.index(seed)


def check_range(name: str, value: Any, low: int, high: int) -> None:
    """Refuse what is no integer from low to high, by name."""
    try:
        fits = low <= operator.index(value) <= high
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} is {value!r}: give an integer from {low} to {high}")


def check_prompt(pipe: Any, name: str, prompt: str) -> None:
    """Warn of a prompt whose end the pipeline cuts off; refuse one that is no text."""
    if not is_text(prompt):
        raise ValueError(f"the {name} {prompt!r} holds bytes that are no UTF-8")
    architecture = pipeline_architecture(pipe)
    most = architecture.most_tokens(pipe)
    encoded = architecture.tokenizer(pipe)(
        prompt, truncation=False, verbose=False, return_offsets_mapping=True
    )
    if (length := len(encoded["input_ids"])) > most:
        last = encoded["offset_mapping"][most - 2][1]  # before the end token
        warnings.warn(
            f"the {name} has {length} tokens and the model reads {most} (its own start "
            f"and end included): what comes after {prompt[max(0, last - 40) : last]!r} "
            "is left out",
            TruncatedPromptWarning,
            stacklevel=4,
        )


def check_finite(pipe: Any, finite: bool) -> None:
    """Raise GenerationError if what the model made is not finite."""
    if finite:
        return
    dtype = pipeline_architecture(pipe).denoiser(pipe).dtype
    raise GenerationError(
        f"the model made NaNs, a black image, in {explain_nans(pipe, dtype)}"
    )


def encode_image(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the most likely latents of pixels (1, 3, h, w), from -1 to 1."""
    vae, architecture = pipe.vae, pipeline_architecture(pipe)
    dtype = vae.dtype
    upcast = architecture.upcasts_vae and dtype == torch.float16
    try:
        if upcast:
            vae.to(torch.float32)
        pixels = pixels.to(pipe._execution_device, vae.dtype)
        mode = architecture.encode_pixels(pipe, pixels)
    finally:
        if upcast:
            vae.to(dtype)
    latents = architecture.normalized(pipe, mode)
    return latents.to(architecture.denoiser(pipe).dtype)


@torch.no_grad()
def _preview_image(pipe: Any, latents: torch.Tensor) -> NDArray[np.uint8]:
    """Return a cheap picture (h, w, 3) of the first latents in a batch."""
    vae, architecture = pipe.vae, pipeline_architecture(pipe)
    if sum(p.numel() for p in vae.parameters()) <= _SMALL_VAE_PARAMETERS:
        first = latents[:1].to(vae.dtype)
        first = architecture.denormalized(pipe, first)
        rgb = architecture.decode_latents(pipe, first)[0].permute(1, 2, 0)
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
    latents = encode_image(pipe, pixels)[0].flatten(1).T.float().cpu()
    latents = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    fit: torch.Tensor = torch.linalg.lstsq(latents, colours[0].flatten(1).T).solution
    return fit
