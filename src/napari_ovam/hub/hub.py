"""Models on the Hugging Face hub: what they are before a download, and getting them.

They are kept in the hub's own cache, where other programs find them.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, get_session, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from napari_ovam.base.atomic import replacing
from napari_ovam.base.progress import Cancelled, no_progress
from napari_ovam.hub.files import INDEX, PICKLES, ModelError, architecture_of
from napari_ovam.hub.hub_files import HubFile, PickleError, choose_files, common_variant
from napari_ovam.hub.transfer import fetch, part_path, patiently

__all__ = [
    "HubFile",
    "HubModel",
    "PickleError",
    "describe",
    "download_model",
]

if TYPE_CHECKING:
    from napari_ovam.base.progress import Progress

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TIMEOUT = 10.0  # seconds to wait for the hub's first answer


@dataclass(frozen=True)
class HubModel:
    """What the hub says of a model, and which of its files are needed.

    Attributes
    ----------
    id
        "owner/name".
    commit
        The version that the hub gives now.
    architecture
        As `napari_ovam.hub.files.Architecture.name`.
    licence
        As its card says, such as "creativeml-openrail-m"; "" where it says none.
    gated
        Whether its terms have to be accepted first.
    variant
        "" for the full weights, "fp16" for the half-precision ones.
    variants
        Those that the hub has, "" first.
    files
        What a download takes: neither other variants, nor single-file checkpoints of
        the same weights, nor the safety checker.
    """

    id: str
    commit: str
    architecture: str
    licence: str
    gated: bool
    variant: str
    variants: tuple[str, ...]
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
    cache_dir: str | Path | None = None,
    endpoint: str | None = None,
) -> HubModel:
    """Ask the hub what a model is; nothing is downloaded.

    Parameters
    ----------
    model
        A hub id, "owner/name".
    variant
        "fp16" for half-precision weights, "" for full ones; None takes the full ones
        where there are any.
    pickles
        Take weights that are pickles where there are no others.
    cache_dir, endpoint
        Another cache than the hub's own, another server than huggingface.co.

    Raises
    ------
    ModelError
        If there is no such model, it is of no supported architecture, lacks the
        variant, or the hub cannot be reached.
    PickleError
        If a part of it is there as a pickle only, unless `pickles`.
    """
    try:
        info = HfApi(endpoint=endpoint).model_info(
            model, files_metadata=True, timeout=_TIMEOUT
        )
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
            hf_hub_url(model, INDEX, revision=info.sha, endpoint=endpoint),
            headers=build_hf_headers(),
            timeout=_TIMEOUT,
            follow_redirects=True,
        )
        answer.raise_for_status()
        index = answer.json()
        if not isinstance(index, dict):
            raise ModelError(f"{INDEX} of {model} holds no JSON object")
    except Exception as error:
        raise _explained(model, error) from error
    architecture = architecture_of(index.get("_class_name")).name
    chosen, variants = choose_files(model, index, sizes.values(), variant, pickles)
    for file in chosen:  # it becomes a file name here
        if not _HASH.fullmatch(file.hash):
            raise ModelError(
                f"the hub gives no hash for {file.name} of {model}: try again later"
            )
    blobs = _folder(model, cache_dir) / "blobs"
    return HubModel(
        id=model,
        commit=str(info.sha),
        architecture=architecture,
        licence=_licence(info),
        gated=bool(info.gated),
        variant=variant or common_variant(chosen),
        variants=variants,
        files=tuple(
            HubFile(f.name, f.size, f.hash, _have(blobs / f.hash, f.size))
            for f in chosen
        ),
    )


def download_model(
    model: str | HubModel,
    *,
    variant: str | None = None,
    pickles: bool = False,
    progress: Progress = no_progress,
    cache_dir: str | Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """Download a model from the hub; what is here already is not fetched again.

    Parameters
    ----------
    model
        A hub id, or what `describe` said of it.
    variant, pickles, cache_dir, endpoint
        As in `describe`.
    progress
        Called about ten times a second with (bytes here, all bytes). It may raise
        `Cancelled`: what has arrived stays, and the next call goes on from there.

    Returns
    -------
    Path
        A diffusers folder for `load_pipeline`.

    Raises
    ------
    ModelError
        As `describe`; or if a file arrived damaged, or the connection broke off.
    OSError
        If the disk is too small or cannot be written.
    Cancelled
        If `progress` raised it.
    """
    if isinstance(model, str):
        look_up = partial(
            describe,
            model,
            variant=variant,
            pickles=pickles,
            cache_dir=cache_dir,
            endpoint=endpoint,
        )
        model = patiently(look_up, lambda: progress(0, 1))
    folder = _folder(model.id, cache_dir)
    _check_disk(model, folder)
    headers = build_hf_headers()
    locks = folder.parent / ".locks" / folder.name
    before, place = 0, Path()
    # The index first: an unfinished download is recognised by it.
    for file in sorted(model.files, key=lambda f: (f.name != INDEX, f.size)):
        target = folder / "blobs" / file.hash
        report = partial(_report, progress, before, model.size)
        # Finds the file under its hash, and puts it in its place in the cache.
        link = partial(
            hf_hub_download,
            model.id,
            file.name,
            revision=model.commit,
            cache_dir=cache_dir,
            endpoint=endpoint,
        )
        try:
            if not target.exists():
                fetch(
                    hf_hub_url(
                        model.id, file.name, revision=model.commit, endpoint=endpoint
                    ),
                    target,
                    lock=locks / f"{file.hash}.lock",
                    size=file.size,
                    headers=headers,
                    report=report,
                )
            path = patiently(link, partial(report, file.size))
        except Cancelled:
            raise
        except Exception as error:
            raise _explained(model.id, error) from error
        if file.name == INDEX:
            place = Path(path).parent
        before += file.size
        progress(before, model.size)
    # Last: until then, an older version that is here stays the one that is loaded.
    ref = folder / "refs" / "main"
    ref.parent.mkdir(parents=True, exist_ok=True)
    with replacing(ref) as temporary:
        temporary.write_text(model.commit, encoding="utf-8")
    return place


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _folder(model: str, cache_dir: str | Path | None) -> Path:
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    return cache / repo_folder_name(repo_id=model, repo_type="model")


def _have(blob: Path, size: int) -> int:
    if blob.exists():
        return size
    part = part_path(blob)
    return min(part.stat().st_size, size) if part.exists() else 0


def _licence(info: Any) -> str:
    card = info.card_data or {}
    licence = card.get("license") or next(
        (
            t.removeprefix("license:")
            for t in info.tags or ()
            if t.startswith("license:")
        ),
        "",
    )
    if licence == "other":
        return str(card.get("license_name") or card.get("license_link") or licence)
    return ", ".join(licence) if isinstance(licence, list) else str(licence)


def _check_disk(model: HubModel, folder: Path) -> None:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if (free := shutil.disk_usage(there).free) < model.missing:
        raise OSError(
            f"{model.id} needs {model.missing / 1e9:.1f} GB more and {there} has "
            f"{free / 1e9:.1f} GB: make room, or set HF_HOME to a larger disk"
        )


def _gated(model: str) -> str:
    return (
        f"{model} is gated: accept its terms on https://huggingface.co/{model}, then "
        "log in with `hf auth login`"
    )


def _explained(model: str, error: Exception) -> Exception:
    """Return the error that says what happened and what to do."""
    if isinstance(error, (ModelError, Cancelled)):
        return error
    if isinstance(error, HFValidationError):
        return ModelError(f"{model!r} is no hub id ('owner/name'): {error}")
    if isinstance(error, GatedRepoError):
        return ModelError(_gated(model))
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(
            f"the hub has no model {model!r} that you may read: check the spelling, "
            "or log in with `hf auth login` if it is private"
        )
    if isinstance(error, EntryNotFoundError):
        return ModelError(f"{model} lacks a file that it lists: {error}")
    if isinstance(error, OfflineModeIsEnabled):
        return ModelError(
            f"{model} cannot be looked up: HF_HUB_OFFLINE is set. Unset it, or choose "
            "one of the models that are on this computer (`napari-ovam models list`)"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return ModelError(_gated(model))
    if isinstance(error, HfHubHTTPError) or status is not None:
        return ModelError(f"the hub refused {model}: {error}")
    if isinstance(error, json.JSONDecodeError):
        return ModelError(f"{INDEX} of {model} is not valid JSON: {error}")
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return error
    # Each version of the hub's client has its own errors for a missing network.
    return ModelError(
        f"the hub cannot be reached for {model} ({type(error).__name__}: {error}): "
        "check the network and try again, what has arrived is kept; or choose one of "
        "the models that are on this computer (`napari-ovam models list`)"
    )
