"""Load Stable Diffusion pipelines: embedded, from the hub, a folder or a file.

Weights come from safetensors files only, and no code of a model repository is ever
run. The safety checker is not loaded: it takes memory and blackens images that are
about to be annotated; who publishes images has to check them otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from napari_ovam.diffusion.architectures import (
    pipeline_architecture as pipeline_architecture,
)
from napari_ovam.diffusion.checkpoints import drop_unknown, load_checkpoint
from napari_ovam.diffusion.devices import find_device, find_dtype, memory_guard
from napari_ovam.diffusion.libraries import check_missing, explain_loading, quiet
from napari_ovam.diffusion.replay import offer_replay
from napari_ovam.hub.download import get_model
from napari_ovam.hub.families import ModelError
from napari_ovam.hub.files import (
    INDEX,
    PICKLES,
    check_tokenizers,
    check_weights,
    is_hub_id,
    read_index,
    read_json,
    tensor_shapes,
    variant_of,
    weights_of,
)

DEFAULTS_FILE = "ovam_defaults.json"


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
    chosen_device = find_device(device)
    chosen_dtype = find_dtype(dtype, chosen_device)
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
        pipe = load_checkpoint(path, chosen_dtype)
    elif path.suffix in (".safetensors", *PICKLES):
        raise ModelError(f"there is no file {str(model)!r}")
    elif is_hub_id(str(model)):
        pipe = _load_folder(get_model(str(model)), chosen_dtype)
    else:
        raise ModelError(
            f"{str(model)!r} is no model: give 'tiny', a hub id ('owner/name'), a "
            "diffusers folder or a .safetensors file"
        )
    advice = f"Load it with device='cpu', or free {chosen_device} first."
    with memory_guard(advice), quiet():
        pipe.to(chosen_device)
    pipe.set_progress_bar_config(disable=True)
    offer_replay(pipe)
    return pipe


def _load_folder(folder: Path, dtype: torch.dtype) -> Any:
    """Load a diffusers folder, after everything that can be checked cheaply."""
    index = read_index(folder)
    variant = check_weights(folder, index)
    check_tokenizers(folder, index)
    with explain_loading(folder):
        texts = {
            name: _load_text_encoder(folder / name, part[1], dtype)
            for name, part in index.items()
            if isinstance(part, list) and part[0] == "transformers"
            if (folder / name).is_dir() and weights_of(folder / name)
        }
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=variant,
            **drop_unknown(index["_class_name"]),
            **texts,
        )
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name not in texts:
            _check_whole(folder / name, part)
    return pipe


def _load_text_encoder(folder: Path, kind: str, dtype: torch.dtype) -> Any:
    """Load a part of transformers, which fills up what is missing at random."""
    part, info = getattr(transformers, kind).from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        variant=variant_of(weights_of(folder)) or None,
        output_loading_info=True,
    )
    check_missing(folder.parent, folder.name, info["missing_keys"])
    return part


def _check_whole(folder: Path, part: torch.nn.Module) -> None:
    stored = {k for p in weights_of(folder) for k in tensor_shapes(p)}
    tensors = part.state_dict()
    # Tensors that are tied are stored once, and libraries rename old ones.
    wanted = {t.data_ptr() or name: name for name, t in tensors.items()}
    missing = {name for name, tensor in tensors.items() if tensor.is_meta}
    if not missing and len(stored) < len(wanted):
        missing = set(wanted.values()) - stored
    check_missing(folder.parent, folder.name, missing)
