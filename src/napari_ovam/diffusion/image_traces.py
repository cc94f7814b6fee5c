"""Take an image that exists and record what a model's attention sees in it."""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.base.generation_settings import GenerationSettings
from napari_ovam.diffusion.devices import memory_guard
from napari_ovam.diffusion.generation import (
    Generation,
    check_finite,
    check_prompt,
    check_range,
    checked_seed,
    encode_image,
)
from napari_ovam.diffusion.pipelines import model_defaults, pipeline_architecture
from napari_ovam.diffusion.recording import record
from napari_ovam.diffusion.tiling import Mosaic, Tiles, joined, plan_tiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import Trace
    from napari_ovam.base.progress import Progress

_TRACE_SETTINGS = TraceSettings()
MAX_TILES = 16


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
    flip: bool = False,
    max_tiles: int = MAX_TILES,
) -> Generation:
    """Record the trace of an image that exists already.

    The image is encoded, noised as in training (Ho et al., 2020, eq. 4; or by flow
    matching, (1 - s) times the image plus s times the noise) and shown to the model
    once for each of `noise_seeds` draws of noise: each draw is one call of
    the trace. There is no guidance, so the branch is "cond".

    The image is scaled to about the model's size for that. One that is more than 1.5
    times larger is shown in tiles as well, which overlap by a quarter
    (`napari_ovam.diffusion.tiling`), and made smaller first where that would take more
    than `max_tiles`: each draw then is one call for the whole, and one for all tiles,
    at the grid of the tiles. The trace's `image_size` is the image's in each case, and
    so is the size of its maps. Models with joint attention are never shown tiles.

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
        What to record; its `calls` are those of a generation and do not count here,
        and the grids of its `layers` are those of a tile.
    progress
        Called with (UNet calls done, all), one a draw for the whole and one a draw for
        each tile; may raise `Cancelled`.
    noise_level
        Time step of the noise, from 0 to the scheduler's last (999); by flow matching
        the noise's share in thousandths.
    noise_seeds
        Draws of noise, at least 1.
    flip
        Show the image mirrored as well, with as many further draws: twice the calls,
        all the right way round.
    max_tiles
        From 1, which never tiles, to 1024. Time and memory grow with the tiles.

    Raises
    ------
    ValueError
        If the image is no (H, W, 3) array of uint8, a value is out of its range, or the
        model's scheduler does not noise by numbered time steps (EDM, flow matching).
    GenerationError
        If the model made NaNs.
    OutOfMemory
        If the device's memory does not suffice.
    Cancelled
        If `progress` raised it.
    """
    _check_image(image)
    settings = GenerationSettings(prompt, seed=checked_seed(seed))
    check_prompt(pipe, "prompt", prompt)
    _check_model(pipe)
    last = pipe.scheduler.config.num_train_timesteps - 1
    check_range("noise_level", noise_level, 0, last)
    check_range("noise_seeds", noise_seeds, 1, 1000)
    check_range("max_tiles", max_tiles, 1, 1024)
    architecture = pipeline_architecture(pipe)
    size = image.shape[0], image.shape[1]
    most_tiles = max_tiles if architecture.can_tile else 1
    whole, tiles = (_plan(pipe, size, most) for most in (1, most_tiles))
    looks = [whole, tiles] if len(tiles) > 1 else [whole]
    calls = noise_seeds * (2 if flip else 1)
    done, total = 0, calls * sum(len(look) for look in looks)

    def check() -> None:
        if progress is not None:
            progress(done, total)

    advice = (
        "Use fewer layers in the trace or fewer max_tiles, or load the model in "
        "float16."
    )
    kept = {**vars(trace), "calls": None, "check": check}
    traces = []
    try:
        with memory_guard(advice), torch.no_grad():
            for look in looks:
                conditions = architecture.conditions(pipe, prompt, look.tile)
                mosaic = Mosaic(look, calls)
                picture = _pixels(image, look.size)
                noises = [_noise(pipe, look, seed + draw) for draw in range(calls)]
                for top, left, mirrored, latents in _encoded(pipe, picture, look, flip):
                    first = noise_seeds if mirrored else 0
                    for call in range(first, first + noise_seeds):
                        noise = _crop(noises[call], look, top, left)
                        noisy = _noised(pipe, latents, noise, noise_level)
                        seen = _seen(pipe, noisy, noise_level, conditions, kept)
                        mosaic.add(seen, call, top, left, mirrored=mirrored)
                        done += 1
                        check()
                traces.append(mosaic.trace(size))
            return Generation(image, reduce(joined, traces), settings)
    finally:
        pipe.maybe_free_model_hooks()


def _plan(pipe: Any, size: tuple[int, int], max_tiles: int) -> Tiles:
    defaults = model_defaults(pipe)
    model = defaults.height, defaults.width
    alignment = pipeline_architecture(pipe).alignment(pipe)
    return plan_tiles(size, model, alignment, max_tiles)


def _encoded(
    pipe: Any, picture: torch.Tensor, tiles: Tiles, flip: bool
) -> Iterator[tuple[int, int, bool, torch.Tensor]]:
    """Yield (top, left, mirrored, latents) of each tile."""
    for top, left in tiles:
        tile = _crop(picture, tiles, top, left)
        yield top, left, False, encode_image(pipe, tile)
        if flip:
            yield top, left, True, encode_image(pipe, tile.flip(-1))


def _noised(
    pipe: Any, latents: torch.Tensor, noise: torch.Tensor, level: int
) -> torch.Tensor:
    if pipeline_architecture(pipe).is_flow:
        share: float = level / pipe.scheduler.config.num_train_timesteps
        return (1 - share) * latents + share * noise.to(latents)
    remaining = float(pipe.scheduler.alphas_cumprod[level])
    kept = math.sqrt(remaining) * latents
    return kept + math.sqrt(1 - remaining) * noise.to(latents)


def _seen(
    pipe: Any, noisy: torch.Tensor, level: int, conditions: Any, kept: dict[str, Any]
) -> Trace:
    """Show noised latents to the model once, and return what it asked."""
    with record(pipe, **kept) as recorder:
        out = pipeline_architecture(pipe).predict(pipe, noisy, level, conditions)
        check_finite(pipe, bool(out.isfinite().all()))
    return recorder.traces[0]


def _noise(pipe: Any, tiles: Tiles, seed: int) -> torch.Tensor:
    """Return noise for the whole picture: where tiles overlap they see the same."""
    height, width = (side // pipe.vae_scale_factor for side in tiles.size)
    generator = torch.Generator().manual_seed(seed % 2**63)
    shape = 1, pipeline_architecture(pipe).image_channels(pipe), height, width
    return torch.randn(shape, generator=generator)


def _crop(whole: torch.Tensor, tiles: Tiles, top: int, left: int) -> torch.Tensor:
    """Return the tile at (top, left), pixels, of the picture or of its latents."""
    factor = tiles.size[0] // whole.shape[-2]  # pixels of a cell
    height, width = (side // factor for side in tiles.tile)
    top, left = top // factor, left // factor
    return whole[..., top : top + height, left : left + width]


def _pixels(image: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    """Return the image scaled to (h, w), shape (1, 3, h, w), from -1 to 1."""
    picture = Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    return pixels.float() / 127.5 - 1


def _check_model(pipe: Any) -> None:
    """Refuse models that take more than an image, or other noise."""
    architecture = pipeline_architecture(pipe)
    if getattr(pipe, "vae", None) is None or architecture.length:
        raise ValueError(
            f"images cannot be traced with {type(pipe).__name__}: it makes videos, or "
            "has no autoencoder of the usual kind. Load another model"
        )
    channels = architecture.image_channels(pipe)
    if channels != architecture.latent_channels(pipe):
        raise ValueError(
            f"the model takes {channels} channels and not an image's "
            f"{architecture.latent_channels(pipe)}: an inpainting model cannot trace "
            "an image, load a text-to-image model"
        )
    scheduler = pipe.scheduler
    config = scheduler.config
    if architecture.is_flow:
        return
    if (
        not hasattr(scheduler, "alphas_cumprod")
        or config.get("use_flow_sigmas")
        or str(config.get("prediction_type")).startswith("flow")
        or config.get("timestep_type") == "continuous"
    ):
        raise ValueError(
            f"images cannot be traced with this model: its scheduler "
            f"({type(scheduler).__name__}) measures noise otherwise than by numbered "
            "time steps (EDM, flow matching). Images that it generates can be "
            "recorded; for other images take a model of Stable Diffusion 1.x, 2.x or XL"
        )


def _check_image(image: Any) -> None:
    shape = tuple(getattr(image, "shape", ()))
    dtype = getattr(image, "dtype", None)
    if dtype != np.uint8 or len(shape) != 3 or shape[-1] != 3 or 0 in shape:
        raise ValueError(
            f"the image is of shape {shape} and type {dtype}: an RGB array of shape "
            "(H, W, 3) and type uint8 is wanted"
        )
