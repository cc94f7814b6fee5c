"""What the Hugging Face hub says of a model, before anything is downloaded."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from napari_ovam.hub.errors import explain
from napari_ovam.hub.families import ModelError, find_family
from napari_ovam.hub.files import INDEX, PICKLES
from napari_ovam.hub.hub_files import HubFile, choose_files, common_variant
from napari_ovam.hub.transfer import part_path

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TIMEOUT = 10.0  # seconds to wait for the hub's first answer


@dataclass(frozen=True)
class HubModel:
    """What the hub says of a model, and which of its files are needed."""

    id: str  # "owner/name"
    commit: str  # the version that the hub gives now
    architecture: str  # as `napari_ovam.hub.families.Family.name`
    # As its card says, such as "creativeml-openrail-m"; "" where it says none.
    licence: str
    gated: bool  # whether its terms have to be accepted first
    variant: str  # "" for the full weights, "fp16" for the half-precision ones
    variants: tuple[str, ...]  # those that the hub has, "" first
    # What a download takes: neither other variants, nor single-file checkpoints of the
    # same weights, nor the safety checker.
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes that a download would take."""
        return sum(file.size - file.have for file in self.files)

    @property
    def pickles(self) -> tuple[str, ...]:
        """Files that are pickles: there only if they were asked for."""
        return tuple(f.name for f in self.files if f.name.endswith(PICKLES))


def describe(
    model: str,
    *,
    variant: str | None = None,
    pickles: bool = False,
    weights: bool = True,
) -> HubModel:
    """Ask the hub what a model is; nothing is downloaded.

    It raises `ModelError` if there is no such model, it is of no supported
    architecture, lacks the variant, or the hub cannot be reached; `PickleError` if a
    part of it is there as a pickle only, unless `pickles`.

    Parameters
    ----------
    model
        A hub id, "owner/name".
    variant
        "fp16" for half-precision weights, "" for full ones; None takes the full ones
        where there are any.
    pickles
        Take weights that are pickles where there are no others.
    weights
        Without them only configurations and tokenizers are taken.
    """
    try:
        info = HfApi().model_info(model, files_metadata=True, timeout=_TIMEOUT)
        sizes = {
            s.rfilename: HubFile(
                s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else s.blob_id or ""
            )
            for s in info.siblings or ()
        }
        if INDEX not in sizes:
            raise ModelError(
                f"{model} is no diffusers pipeline: it lacks {INDEX}. Name a model "
                "that has it, or download its .safetensors checkpoint yourself and "
                "name that file"
            )
        answer = get_session().get(
            hf_hub_url(model, INDEX, revision=info.sha),
            headers=build_hf_headers(),
            timeout=_TIMEOUT,
            follow_redirects=True,
        )
        answer.raise_for_status()
        index = answer.json()
        if not isinstance(index, dict):
            raise ModelError(f"{INDEX} of {model} holds no JSON object")
    except Exception as error:
        raise explain(model, error) from error
    architecture = find_family(index.get("_class_name")).name
    chosen, variants = choose_files(
        model, index, sizes.values(), variant, pickles=pickles, weights=weights
    )
    for file in chosen:  # it becomes a file name here
        if not _HASH.fullmatch(file.hash):
            raise ModelError(
                f"the hub gives no hash for {file.name} of {model}: try again later"
            )
    blobs = cache_folder(model) / "blobs"
    return HubModel(
        id=model,
        commit=str(info.sha),
        architecture=architecture,
        licence=_licence(info),
        gated=bool(info.gated),
        variant=variant or common_variant(chosen),
        variants=variants,
        files=tuple(replace(f, have=_have(blobs / f.hash, f.size)) for f in chosen),
    )


def cache_folder(model: str) -> Path:
    """Return the folder of a model in the hub's cache, which need not exist."""
    name = repo_folder_name(repo_id=model, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / name


def _have(blob: Path, size: int) -> int:
    if blob.exists():
        return size
    part = part_path(blob)
    return min(part.stat().st_size, size) if part.exists() else 0


def _licence(info: Any) -> str:
    card = info.card_data or {}
    tags = (tag.partition("license:")[2] for tag in info.tags or ())
    licence = card.get("license") or next(filter(None, tags), "")
    if licence == "other":
        return str(card.get("license_name") or card.get("license_link") or licence)
    return ", ".join(licence) if isinstance(licence, list) else str(licence)
