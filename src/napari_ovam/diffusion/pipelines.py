"""Load Stable Diffusion pipelines: embedded, from the hub, a folder or a file.

Weights come from safetensors files only, and no code of a model repository is ever
run. The safety checker is not loaded: it takes memory and blackens images that are
about to be annotated; who publishes images has to check them otherwise.
"""

from __future__ import annotations

import gc
import inspect
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from safetensors import SafetensorError

from napari_ovam.diffusion.architectures import (
    pipeline_architecture as pipeline_architecture,
)
from napari_ovam.diffusion.architectures.base import ModelError as ModelError
from napari_ovam.hub.files import (
    INDEX,
    LEFT_OUT,
    PICKLES,
    check_tokenizers,
    check_weights,
    download,
    download_config,
    quiet,
    read_index,
    read_json,
    recognise,
    tensor_shapes,
    weights_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULTS_FILE = "ovam_defaults.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WITHOUT: dict[str, Any] = {
    **dict.fromkeys(LEFT_OUT),
    "requires_safety_checker": False,
}
_LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
)


class OutOfMemory(RuntimeError):
    """The device's memory did not suffice; what was allocated has been freed."""


@dataclass(frozen=True)
class ModelDefaults:
    """Generation settings of a model: steps, guidance scale and size in pixels."""

    steps: int
    guidance_scale: float
    height: int
    width: int


def model_defaults(pipe: Any) -> ModelDefaults:
    """Return the settings that suit a pipeline when its user chose none.

    The size is the one the model was trained for. A model folder may hold a file
    `ovam_defaults.json`, an object with any of the keys steps, guidance_scale, height
    and width (pixels), which is used in place of the architecture's own values.
    """
    architecture = pipeline_architecture(pipe)
    defaults = ModelDefaults(
        *architecture.steps_and_guidance(pipe), *architecture.size(pipe)
    )
    path = Path(pipe.name_or_path or "") / DEFAULTS_FILE
    if not path.is_file():
        return defaults
    try:
        return replace(defaults, **read_json(path))
    except TypeError as error:
        raise ModelError(
            f"{path}: {error}; it may hold steps, guidance_scale, height, width"
        ) from error


def load_pipeline(
    model: str | Path = "tiny",
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
) -> diffusers.DiffusionPipeline:
    """Load a text-to-image pipeline, ready to generate and to record.

    Parameters
    ----------
    model
        "tiny", the embedded model; a hub id such as
        "stable-diffusion-v1-5/stable-diffusion-v1-5"; a folder in the diffusers
        format; or a single `.safetensors` checkpoint. A checkpoint brings neither its
        configuration nor its tokenizer: they are read from a diffusers folder (weights
        not needed) beside it, either the folder that it lies in or one of its own
        name, and otherwise from the hub, which keeps them for the next time.
    device
        "auto" (CUDA, then MPS, then CPU) or a torch device such as "cuda:1".
    dtype
        "auto" (float16 on CUDA and MPS, float32 elsewhere), a torch dtype or its name.

    Raises
    ------
    ModelError
        If the model is unknown, broken, cannot be reached, would need a pickle or
        remote code, or is of an architecture that is not supported.
    OutOfMemory
        If the model does not fit the device.
    """
    chosen_device = _device(device)
    chosen_dtype = _dtype(dtype, chosen_device)
    path = Path(model).expanduser()
    if str(model) == "tiny":
        path = Path(str(files("napari_ovam"))) / "tiny"
        if not (path / INDEX).is_file():
            raise ModelError(
                "the embedded model 'tiny' is missing from this installation: install "
                "napari-ovam again, or name another model"
            )
        pipe = _load_folder(path, chosen_dtype)
    elif path.is_dir() and str(model):
        pipe = _load_folder(path, chosen_dtype)
    elif path.is_file():
        pipe = _load_checkpoint(path, chosen_dtype)
    elif path.suffix in (".safetensors", *PICKLES):
        raise ModelError(f"there is no file {str(model)!r}")
    elif _HUB_ID.fullmatch(str(model)):
        pipe = _load_folder(download(str(model)), chosen_dtype)
    else:
        raise ModelError(
            f"{str(model)!r} is no model: give 'tiny', a hub id ('owner/name'), a "
            "diffusers folder or a .safetensors file"
        )
    advice = f"Load it with device='cpu', or free {chosen_device} first."
    with memory_guard(advice), quiet():
        pipe.to(chosen_device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def memory_guard(advice: str) -> Iterator[None]:
    """Turn a device's out-of-memory error into `OutOfMemory` and free the cache."""
    message = ""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if "out of memory" not in text and "can't allocate memory" not in text:
            raise
        message = str(error).splitlines()[0]
    # Outside of the handler: its traceback holds the tensors that are to be freed.
    if message:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise OutOfMemory(f"{message} {advice}")


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        mps = torch.backends.mps.is_available()
        return torch.device("mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); "
            "'auto' picks one that can"
        ) from error
    return device


def _dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float16 if device.type in ("cuda", "mps") else torch.float32
    dtype = name if isinstance(name, torch.dtype) else getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(
            f"dtype {name!r} is none: give 'auto', 'float32', 'float16' or 'bfloat16'"
        )
    return dtype


def _load_folder(folder: Path, dtype: torch.dtype) -> Any:
    """Load a diffusers folder, after everything that can be checked cheaply."""
    index = read_index(folder)
    variant = check_weights(folder, index)
    check_tokenizers(folder, index)
    left_out = _accepted(index["_class_name"], _WITHOUT)
    with quiet(), _explained(folder):
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=variant,
            **left_out,
        )
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            stored = {k for p in weights_of(folder / name) for k in tensor_shapes(p)}
            # Tensors that are tied, as in T5, are stored once.
            wanted = {t.data_ptr() or name for name, t in part.state_dict().items()}
            # Libraries leave what they miss random or empty, with a note at most.
            if len(stored) < len(wanted):
                raise ModelError(
                    f"{folder / name} holds {len(stored)} tensors and its "
                    f"configuration asks for {len(wanted)}: download it again"
                )
    return pipe


def _load_checkpoint(path: Path, dtype: torch.dtype) -> Any:
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
    folder = beside[0] if beside else download_config(path, kind.config)
    read_index(folder)
    with quiet(), _explained(path):
        pipe = getattr(diffusers, kind.pipeline).from_single_file(
            str(path),
            config=str(folder),
            dtype=dtype,
            local_files_only=True,
            **_accepted(kind.pipeline, {**_WITHOUT, "image_encoder": None}),
        )
    if not beside and len(kind.predictions) > 1:
        prediction = "epsilon" if _predicts_noise(pipe) else "v_prediction"
        pipe.scheduler = type(pipe.scheduler).from_config(
            pipe.scheduler.config, prediction_type=prediction
        )
    return pipe


def _accepted(pipeline: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that a class of pipelines takes."""
    taken = inspect.signature(getattr(diffusers, pipeline)).parameters
    return {name: value for name, value in arguments.items() if name in taken}


@torch.no_grad()
def _predicts_noise(pipe: Any) -> bool:
    """Tell noise prediction from velocity prediction by one pass over pure noise.

    At the last time step the input is almost nothing but noise: a model that predicts
    noise hands its input back, one that predicts velocity hands back an image.
    """
    unet = pipe.unet
    generator = torch.Generator().manual_seed(0)
    side = 4 * alignment(pipe) // pipe.vae_scale_factor
    noise = torch.randn(1, unet.config.in_channels, side, side, generator=generator)
    text, _ = pipe.encode_prompt("", pipe.device, 1, False)
    step = pipe.scheduler.config.num_train_timesteps - 1
    out = unet(noise.to(text), step, encoder_hidden_states=text).sample.float()
    share = (out.cpu() * noise).sum() / noise.square().sum()
    return bool(share > 0.5)


def alignment(pipe: Any) -> int:
    """Return the pixels that one cell of the model's coarsest grid covers."""
    return pipeline_architecture(pipe).alignment(pipe)


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    try:
        yield
    except _LOAD_ERRORS as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{source} cannot be loaded: {error}") from error
