"""Pickled weights made into safetensors, for a person who asked for it by name.

They are read by torch's restricted unpickler, which makes tensors and runs no code of
the file. What it refuses stays refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.base.atomic import replacing
from napari_ovam.hub.families import ModelError
from napari_ovam.hub.files import INDEX, PICKLES

if TYPE_CHECKING:
    import torch


def convert_pickles(path: str | Path) -> list[Path]:
    """Write the `.safetensors` of a pickled checkpoint, or of a folder's components.

    It raises `ModelError` if a file holds anything but tensors, or is broken.

    It returns the files written, each beside its pickle and of its name.

    Parameters
    ----------
    path
        A `.ckpt`, `.pt`, `.pth` or `.bin` file, or a diffusers folder. The pickles
        stay where they are, and components that have safetensors are left alone.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise ModelError(f"{path} holds no {INDEX}: name one pickled file of it")
        return [
            _convert(pickle)
            for part in sorted(p for p in path.iterdir() if p.is_dir())
            if not any(part.glob("*.safetensors"))
            for pickle in sorted(part.glob("*.bin"))
        ]
    if path.suffix not in PICKLES:
        raise ModelError(f"{path} is no pickle: give one of {', '.join(PICKLES)}")
    return [_convert(path)]


def _convert(path: Path) -> Path:
    from safetensors.torch import save_file

    # diffusers and transformers look for these names
    name = path.name.replace("pytorch_model", "model", 1)
    if path.name.startswith("diffusion_"):
        name = path.name
    target = path.with_name(name).with_suffix(".safetensors")
    if target.exists():  # it may be another version, from elsewhere
        raise ModelError(f"{target} is there already: use it, or move it away")
    tensors = _tensors(path)
    with replacing(target) as temporary:
        save_file(tensors, temporary, {"format": "pt"})
    return target


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # The unpickler has many errors, and all mean the same.
        raise ModelError(
            f"{path} is not opened: it is broken, or holds more than tensors, which "
            f"could run code ({str(error).splitlines()[0]}): get the model as "
            ".safetensors"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    found = content.items() if isinstance(content, dict) else ()
    # A clone each: safetensors refuses tensors that share memory.
    tensors = {str(k): v.clone() for k, v in found if isinstance(v, torch.Tensor)}
    if not tensors:
        raise ModelError(f"{path} holds no tensors: it is no checkpoint")
    return {k: v.contiguous() for k, v in tensors.items()}
