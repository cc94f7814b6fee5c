"""Which files of a hub model are needed: the safe ones, of one variant, no doubles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_ovam.hub.families import ModelError
from napari_ovam.hub.files import DEFAULTS_FILE, INDEX, LEFT_OUT, PICKLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WEIGHTS = (".safetensors", *PICKLES)
# What a component needs beside its weights. No code: none is ever run.
_SMALL = (".json", ".txt", ".model")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
# Which shard holds which tensor: "x.safetensors.index.json", "….index.fp16.json".
_SHARDS = re.compile(r"\.index(\.\w+)?\.json$")


class PickleError(ModelError):
    """Weights that are pickles, which can run code when they are opened."""


@dataclass(frozen=True)
class HubFile:
    """A file of a model on the hub."""

    name: str  # its path in the repository
    size: int  # bytes
    hash: str  # as the hub gives it: SHA-256 of a large file, git's of a small one
    have: int = 0  # bytes of it that are in the cache


def choose_files(
    model: str,
    index: Mapping[str, Any],
    files: Iterable[HubFile],
    variant: str | None = None,
    *,
    pickles: bool = False,
    weights: bool = True,
) -> tuple[list[HubFile], tuple[str, ...]]:
    """Return the files that a pipeline needs, and the variants that there are."""
    files = list(files)
    wanted = [f for f in files if f.name in (INDEX, DEFAULTS_FILE)]
    found: set[str] = set()
    fitting = False
    for name, component in index.items():
        if name in LEFT_OUT or not isinstance(component, list) or not component[0]:
            continue
        inside = [f for f in files if PurePosixPath(f.name).parent.as_posix() == name]
        wanted += [
            f for f in inside if f.name.endswith(_SMALL) and not _SHARDS.search(f.name)
        ]
        heavy = [f for f in inside if f.name.endswith(_WEIGHTS)]
        if not heavy or not weights:  # a tokenizer or a scheduler
            continue
        usable = [f for f in heavy if _is_loaded(f.name, ".safetensors")]
        if not usable:
            usable = [f for f in heavy if _is_loaded(f.name, ".bin")]
            if usable and not pickles:
                raise PickleError(
                    f"{usable[0].name} of {model} is a pickle, which can run code when "
                    "it is opened, and there is no .safetensors of it: choose another "
                    "model, or ask for pickles and convert them"
                )
        variants = {_variant(f.name) for f in usable}
        found |= variants
        # A component may lack the variant: its full weights are taken then.
        take = variant if variant in variants else min(variants, default="")
        fitting = fitting or take == variant
        suffix = ".safetensors" if usable and usable[0].name.endswith("s") else ".bin"
        wanted += [f for f in usable if _variant(f.name) == take]
        wanted += [
            f
            for f in inside
            if _SHARDS.search(f.name) and suffix in f.name and _variant(f.name) == take
        ]
    if variant and not fitting:
        named = ", ".join(repr(v or "full") for v in sorted(found))
        raise ModelError(f"{model} has no variant {variant!r}; it has {named}")
    return wanted, tuple(sorted(found))


def _is_loaded(name: str, suffix: str) -> bool:
    """Tell weights that diffusers loads from copies of them for other programs."""
    stem = PurePosixPath(name).name
    return stem.endswith(suffix) and stem.startswith(
        ("diffusion_pytorch_model", "model", "pytorch_model")
    )


def _variant(name: str) -> str:
    """Return the "fp16" of `model.fp16-00001-of-00002.safetensors`, or ""."""
    stem = _SHARD.sub("", PurePosixPath(name).name)
    parts = _SHARDS.sub(r"\1", stem).split(".")[1:]
    return ".".join(p for p in parts if f".{p}" not in _WEIGHTS)


def common_variant(files: Iterable[HubFile]) -> str:
    """Return the variant that all weights among the files share, or ""."""
    variants = {_variant(f.name) for f in files if f.name.endswith(_WEIGHTS)}
    return variants.pop() if len(variants) == 1 else ""
