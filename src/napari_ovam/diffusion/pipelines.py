"""Load Stable Diffusion pipelines: embedded, from the hub, a folder or a file.

Weights come from safetensors files only, and no code of a model repository is ever
run. The safety checker is not loaded: it takes memory and blackens images that are
about to be annotated; who publishes images has to check them otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from napari_ovam.diffusion.architectures import (
    find_architecture,
)
from napari_ovam.diffusion.architectures import (
    pipeline_architecture as pipeline_architecture,
)
from napari_ovam.diffusion.checkpoints import drop_unknown, load_checkpoint
from napari_ovam.diffusion.devices import find_device, find_dtype, memory_guard
from napari_ovam.diffusion.joint.replay import offer_replay
from napari_ovam.diffusion.libraries import check_missing, explain_loading, quiet
from napari_ovam.hub.download import get_model
from napari_ovam.hub.families import ModelError
from napari_ovam.hub.files import (
    DEFAULTS_FILE,
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
from napari_ovam.hub.store import TINY

_TEXT = ("tokenizer", "text_encoder", "scheduler")  # all that encoding a text takes


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
    target = find_device(device)
    return _placed(_load(model, find_dtype(dtype, target)), target)


def load_text_encoder(
    model: str | Path = "tiny",
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
) -> Any:
    """Load what encodes a text alone, a small part of a model.

    Phrases and tokens on traces that exist need no more. Parameters and errors are
    those of `load_pipeline`.

    Returns
    -------
    DiffusionPipeline
        Of the model's class, with its tokenizers and text encoders; of its denoiser
        with the parts that a text passes through, if any, and no autoencoder. Of a
        model with joint attention, whose traces ask it again, the whole.
    """
    target = find_device(device)
    pipe = _load(model, find_dtype(dtype, target), text_only=True)
    architecture = pipeline_architecture(pipe)
    if not architecture.text_alone:
        return _placed(pipe, target)
    with memory_guard(f"Load it with device='cpu', or free {target} first."):
        for module in architecture.text_modules(pipe):
            module.to(target)
    return pipe


def _placed(pipe: Any, target: torch.device) -> Any:
    """Return a whole pipeline on a device, at hand for traces that ask it again."""
    with memory_guard(f"Load it with device='cpu', or free {target} first."), quiet():
        pipe.to(target)
    pipe.set_progress_bar_config(disable=True)
    offer_replay(pipe)
    return pipe


def _load(model: str | Path, dtype: torch.dtype, *, text_only: bool = False) -> Any:
    path = Path(model).expanduser()
    if str(model) == "tiny":
        path = TINY
        if not (path / INDEX).is_file():
            raise ModelError(
                "the embedded model 'tiny' is missing from this installation: install "
                "napari-ovam again, or name another model"
            )
    elif path.is_file():
        return load_checkpoint(path, dtype, text_only=text_only)
    elif path.suffix in (".safetensors", *PICKLES):
        raise ModelError(f"there is no file {str(model)!r}")
    elif not path.is_dir() and is_hub_id(str(model)):
        path = get_model(str(model))
    elif not (path.is_dir() and str(model)):
        raise ModelError(
            f"{str(model)!r} is no model: give 'tiny', a hub id ('owner/name'), a "
            "diffusers folder or a .safetensors file"
        )
    return _load_folder(path, dtype, text_only=text_only)


def _load_folder(folder: Path, dtype: torch.dtype, *, text_only: bool) -> Any:
    """Load a diffusers folder, after everything that can be checked cheaply."""
    index = read_index(folder)
    unneeded: list[str] = []
    text_only = text_only and find_architecture(index["_class_name"]).text_alone
    if text_only:
        unneeded = [
            name
            for name, part in index.items()
            if isinstance(part, list) and not name.startswith(_TEXT)
        ]
        index = {name: part for name, part in index.items() if name not in unneeded}
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
            **{**drop_unknown(index["_class_name"]), **dict.fromkeys(unneeded)},
            **texts,
        )
        if text_only:
            _add_projections(pipe, folder, dtype)
            return pipe
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


def _add_projections(pipe: Any, folder: Path, dtype: torch.dtype) -> None:
    """Add of the denoiser what a text passes through; the rest has no weights."""
    architecture = pipeline_architecture(pipe)
    prefixes = tuple(f"{name}." for name in architecture.text_parts)
    if not prefixes:
        return
    folder /= architecture.part
    kind = getattr(diffusers, read_json(folder / "config.json")["_class_name"])
    with torch.device("meta"):
        part = kind.from_config(kind.load_config(folder)).to(dtype).eval()
    stored: dict[str, torch.Tensor] = {}
    for path in weights_of(folder):
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
            stored |= {name: file.get_tensor(name).to(dtype) for name in names}
    part.load_state_dict(stored, strict=False, assign=True)
    missing = [k for k, t in part.state_dict().items() if t.is_meta]
    check_missing(
        folder.parent, folder.name, [k for k in missing if k.startswith(prefixes)]
    )
    pipe.register_modules(**{architecture.part: part})


def _check_whole(folder: Path, part: torch.nn.Module) -> None:
    stored = {k for p in weights_of(folder) for k in tensor_shapes(p)}
    tensors = part.state_dict()
    # Tensors that are tied are stored once, and libraries rename old ones.
    wanted = {t.data_ptr() or name: name for name, t in tensors.items()}
    missing = {name for name, tensor in tensors.items() if tensor.is_meta}
    if not missing and len(stored) < len(wanted):
        missing = set(wanted.values()) - stored
    check_missing(folder.parent, folder.name, missing)
