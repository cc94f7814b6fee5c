"""Load single-file checkpoints, in the layouts that programs write them in."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.libraries import check_missing, explain_loading
from napari_ovam.hub.download import get_model
from napari_ovam.hub.families import ModelError
from napari_ovam.hub.files import (
    INDEX,
    LEFT_OUT,
    PICKLES,
    Checkpoint,
    read_index,
    recognise,
)

if TYPE_CHECKING:
    from pathlib import Path


def load_checkpoint(path: Path, dtype: torch.dtype, *, text_only: bool = False) -> Any:
    """Load a `.safetensors` checkpoint, with the configuration beside it or its kind's.

    With `text_only`, neither its UNet nor its autoencoder.

    It raises `ModelError` if it is none, lacks tensors, or its configuration cannot be
    had.
    """
    if path.suffix in PICKLES:
        raise ModelError(
            f"{path} is a pickle, which can run code when it is opened: get the model "
            "as .safetensors"
        )
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path} is neither a .safetensors checkpoint nor a diffusers folder"
        )
    kind = recognise(path)
    beside = [p for p in (path.with_suffix(""), path.parent) if (p / INDEX).is_file()]
    folder = beside[0] if beside else _get_configuration(path, kind.config)
    read_index(folder)
    left_out = ["image_encoder", *(("unet", "vae") if text_only else ())]
    with explain_loading(path):
        pipe = getattr(diffusers, kind.pipeline).from_single_file(
            str(path),
            config=str(folder),
            dtype=dtype,
            local_files_only=True,
            **drop_unknown(kind.pipeline, **dict.fromkeys(left_out)),
            **_load_old_text_encoder(path, kind, folder, dtype),
        )
        for name, part in pipe.components.items():
            if isinstance(part, torch.nn.Module):
                tensors = part.state_dict()
                check_missing(path, name, [k for k, t in tensors.items() if t.is_meta])
        if text_only:
            return pipe
        prediction = kind.prediction
        if prediction is None and not beside and kind.is_ambiguous:
            prediction = "epsilon" if _predicts_noise(pipe) else "v_prediction"
        if prediction is not None:
            pipe.scheduler = _schedule(pipe.scheduler, prediction, kind.zero_snr)
    return pipe


def drop_unknown(pipeline: str, **more: Any) -> dict[str, Any]:
    """Return the arguments by which a class leaves out what is never loaded."""
    taken = inspect.signature(getattr(diffusers, pipeline)).parameters
    without = {**dict.fromkeys(LEFT_OUT), "requires_safety_checker": False, **more}
    return {name: value for name, value in without.items() if name in taken}


def _get_configuration(path: Path, model: str) -> Path:
    try:
        return get_model(model, weights=False)
    except ModelError as error:
        raise ModelError(
            f"{path} holds weights only; its configuration and tokenizer are those of "
            f"{model}, which could not be had: {error} Or put the .json and .txt files "
            f"of that model into the folder {path.with_suffix('')}"
        ) from error


def _load_old_text_encoder(
    path: Path, kind: Checkpoint, folder: Path, dtype: torch.dtype
) -> dict[str, Any]:
    """Load CLIP under the names of its first versions, without "text_model."."""
    if not kind.old_text:
        return {}
    config = transformers.CLIPTextConfig.from_pretrained(folder / "text_encoder")
    encoder = transformers.CLIPTextModel(config)
    inner = "text_model." if hasattr(encoder, "text_model") else ""
    with safe_open(path, framework="pt") as file:
        tensors = {
            inner + name.removeprefix(kind.old_text): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
            if name.startswith(kind.old_text)
        }
    missing = encoder.load_state_dict(tensors, strict=False).missing_keys
    check_missing(path, "text_encoder", [n for n in missing if "position_ids" not in n])
    return {"text_encoder": encoder.to(dtype).eval()}


def _schedule(scheduler: Any, prediction: str, zero_snr: bool) -> Any:
    """Return a scheduler for what a model predicts, and up to pure noise."""
    kind = type(scheduler)
    options: dict[str, Any] = {"prediction_type": prediction}
    if zero_snr:  # Lin et al., 2024, arXiv 2305.08891: begin at the last time step
        options |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        if "rescale_betas_zero_snr" not in inspect.signature(kind).parameters:
            kind = diffusers.EulerDiscreteScheduler
    return kind.from_config(scheduler.config, **options)


@torch.no_grad()
def _predicts_noise(pipe: Any) -> bool:
    """Tell noise prediction from velocity prediction by one pass over pure noise.

    At the last time step the input is almost nothing but noise: a model that predicts
    noise hands its input back, one that predicts velocity hands back an image.
    """
    unet = pipe.unet
    generator = torch.Generator().manual_seed(0)
    side = 4 * pipeline_architecture(pipe).alignment(pipe) // pipe.vae_scale_factor
    noise = torch.randn(1, unet.config.in_channels, side, side, generator=generator)
    text, _ = pipe.encode_prompt("", pipe.device, 1, False)
    step = pipe.scheduler.config.num_train_timesteps - 1
    out = unet(noise.to(text), step, encoder_hidden_states=text).sample.float()
    share = (out.cpu() * noise).sum() / noise.square().sum()
    return bool(share > 0.5)
