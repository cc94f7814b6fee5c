"""The models on this machine: where they are, how large, and whether they are whole."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from napari_ovam.hub.families import ModelError, find_family
from napari_ovam.hub.files import (
    INDEX,
    LEFT_OUT,
    PICKLES,
    check_weights,
    read_index,
    recognise,
    weights_of,
)
from napari_ovam.hub.recent import model_folders, recent_models

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Source = Literal["embedded", "hub", "folder", "file"]

TINY = Path(str(files("napari_ovam"))) / "tiny"
"""The embedded model."""

_DEPTH = 3  # folders below one that a person named


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine."""

    name: str  # what `load_pipeline` takes: "tiny", a hub id, or a path
    source: Source  # where it was found
    path: Path  # the diffusers folder or the checkpoint
    size: int  # bytes on the disk
    # As `napari_ovam.hub.families.Family.name`; "" where it is not known.
    architecture: str = ""
    # Why it cannot be loaded and what to do, "" for a model that is whole.
    problem: str = ""
    # Its place among the models used last, from 0; None if it was not used.
    recent: int | None = None

    @property
    def complete(self) -> bool:
        """Whether it can be loaded as it is."""
        return not self.problem


def list_models(folders: Iterable[str | Path] | None = None) -> list[LocalModel]:
    """Return what is on this machine: embedded, hub cache, folders, recent ones.

    Only file sizes and headers are read. Models of the hub that are of other kinds,
    such as language models, are left out.

    It returns the embedded one, the recent ones by their last use, then all others by
    name.

    Parameters
    ----------
    folders
        Where a person keeps models; by default those of `model_folders`. Diffusers
        folders, `.safetensors` checkpoints and pickled ones are found down to three
        folders below; files that are no model are listed with what they are.
    """
    found = {model.path: model for model in _embedded()}
    for model in _cached():
        found.setdefault(model.path, model)
    for folder in model_folders() if folders is None else folders:
        for path in _walk(Path(folder).expanduser()):
            found.setdefault(path, inspect_model(path))
    recent = recent_models()
    for name in recent:
        path = Path(name).expanduser()
        # "tiny" and hub ids are no absolute paths, and are known by now
        if path.is_absolute() and path.exists():
            found.setdefault(path, inspect_model(path))
    return sorted(
        (_placed(model, recent) for model in found.values()),
        key=lambda m: (
            m.source != "embedded",
            len(recent) if m.recent is None else m.recent,
            m.name.casefold(),
        ),
    )


def find_model(name: str) -> LocalModel | None:
    """Return the model on this machine that `load_pipeline` takes by this name."""
    path = Path(name).expanduser()
    if name == "tiny":
        return next(_embedded(), None)
    if path.exists():
        return inspect_model(path)
    return next(_cached(name), None)


def inspect_model(path: Path) -> LocalModel:
    """Return what a diffusers folder or a checkpoint is, whole or not."""
    if path.is_dir():
        return _folder(str(path), "folder", path)
    name = problem = ""
    if path.suffix in PICKLES:
        problem = (
            f"{path.name} is a pickle, which can run code when it is opened: get the "
            "model as .safetensors, or convert it (`napari-ovam models convert`)"
        )
    else:
        try:
            name = find_family(recognise(path).pipeline).name
        except ModelError as error:
            problem = str(error)
    return LocalModel(str(path), "file", path, path.stat().st_size, name, problem)


def human_size(size: float) -> str:
    """Return bytes as people read them, such as "3.4 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def _embedded() -> Iterator[LocalModel]:
    if TINY.is_dir():
        yield _folder("tiny", "embedded", TINY)


def _cached(only: str | None = None) -> Iterator[LocalModel]:
    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
    except (CacheNotFound, ValueError, OSError):
        return  # none yet
    for repo in cache.repos:
        # The version that the name stands for, or that of an unfinished download.
        revisions = sorted(
            repo.revisions, key=lambda r: ("main" in r.refs, r.last_modified)
        )
        if repo.repo_type != "model" or only not in (None, repo.repo_id):
            continue
        if not revisions or not (revisions[-1].snapshot_path / INDEX).is_file():
            continue
        newest = revisions[-1]
        model = _folder(repo.repo_id, "hub", newest.snapshot_path)
        if model.problem and "main" not in newest.refs:
            waiting = sum(
                part.stat().st_size
                for part in (repo.repo_path / "blobs").glob("*.incomplete")
            )
            problem = (
                "its download was stopped: get it again (`napari-ovam models get "
                f"{repo.repo_id}`), which goes on from there"
            )
            model = replace(model, size=model.size + waiting, problem=problem)
        yield model


def _folder(name: str, source: Source, path: Path) -> LocalModel:
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    architecture = problem = ""
    try:
        index = read_index(path)
        architecture = find_family(index.get("_class_name")).name
        check_weights(path, index)
        _check_shards(path, index)
    except ModelError as error:
        problem = str(error)
    return LocalModel(name, source, path, size, architecture, problem)


def _check_shards(folder: Path, index: Any) -> None:
    """Check that every shard is there which the list of shards names."""
    for name, component in index.items():
        if name in LEFT_OUT or not isinstance(component, list):
            continue
        here = {path.name for path in weights_of(folder / name)}
        lists = [*(folder / name).glob("*.safetensors.index*.json")]
        for path in lists:
            try:
                wanted = set(json.loads(path.read_text("utf-8"))["weight_map"].values())
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ModelError(f"{path} is broken: download it again") from error
            # The list of a variant that was not wanted names none of those here.
            if (missing := wanted - here) and (wanted & here or len(lists) == 1):
                raise ModelError(
                    f"{folder / name} lacks {sorted(missing)[0]}: download it again"
                )


def _walk(folder: Path) -> Iterator[Path]:
    """Return the models in a folder that a person named, or the one that it is."""
    if folder.is_file():
        yield folder
        return
    base = len(folder.parts)
    seen = set[Path]()  # links may lead in circles
    for root, names, inside in os.walk(folder, followlinks=True):
        here = Path(root)
        if (real := here.resolve()) in seen:
            names.clear()
            continue
        seen.add(real)
        names.sort()
        if INDEX in inside:
            names.clear()
            yield here
            continue
        if len(here.parts) - base >= _DEPTH:
            names.clear()
        yield from (
            here / name
            for name in sorted(inside)
            if name.endswith((".safetensors", *PICKLES))
        )


def _placed(model: LocalModel, recent: list[str]) -> LocalModel:
    for place, name in enumerate(recent):
        if name == model.name or Path(name) == model.path:
            return replace(model, recent=place)
    return model
