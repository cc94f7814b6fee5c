"""What finds, gets and loads models, in a job's thread: without Qt and the session."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_ovam.attention.trace_cache import CacheUsage
    from napari_ovam.diffusion.memory import MemoryEstimate, MemoryOption, MemoryPlan
    from napari_ovam.hub.hub import HubModel
    from napari_ovam.hub.store import LocalModel

    from .state import ModelChoice
    from .worker import Job

# Qt's signals take 32 bits: in units of this many bytes 2 TB can be told.
UNIT = 1000


class Fit(NamedTuple):
    """What a model takes, and what would take less."""

    needed: MemoryEstimate
    options: list[MemoryOption]


def load_model(choice: ModelChoice, plan: MemoryPlan | None) -> Any:
    """Load a pipeline as planned; without a plan only where it should fit.

    Raises
    ------
    ModelError
        If it is not on this machine, is no model, or takes more memory than is free.
    """
    from napari_ovam import load_pipeline

    _check_is_here(choice.model)
    if plan is not None:
        return plan.load(choice.model, device=choice.device)
    _check_fits(choice)
    return load_pipeline(choice.model, device=choice.device)


def _check_is_here(model: str) -> None:
    """Refuse a model of the hub that nobody has seen the size and licence of."""
    from napari_ovam.hub.families import ModelError
    from napari_ovam.hub.store import find_model

    if model.count("/") != 1 or Path(model).suffix or Path(model).expanduser().exists():
        return  # a path, or no model: loading says which
    if find_model(model) is None:
        raise ModelError(
            f"{model} is not on this computer: press … beside the model, which shows "
            "its size and licence and downloads it"
        )


def _check_fits(choice: ModelChoice) -> None:
    from napari_ovam.diffusion.memory import estimate_memory
    from napari_ovam.hub.families import ModelError

    gc.collect()  # the model before this one
    try:
        needed = estimate_memory(choice.model, device=choice.device)
    except (ValueError, OSError, KeyError, TypeError, IndexError, AttributeError):
        return  # loading it says what is wrong
    if not needed.fits:
        raise ModelError(
            f"{choice.model} takes {needed}, which does not fit: press … beside the "
            "model for what takes less, or to use it all the same"
        )


def fit_of(choice: ModelChoice, plan: MemoryPlan | None) -> Fit:
    """Estimate what a model on this machine takes, as planned."""
    from napari_ovam.diffusion.memory import estimate_memory, memory_options

    needed = estimate_memory(choice.model, device=choice.device, plan=plan)
    return Fit(needed, memory_options(choice.model, needed))


def look_up(model: str, variant: str | None, pickles: bool, job: Job) -> HubModel:
    """Ask the hub what a model is; a cancel does not wait for the hub."""
    from napari_ovam.hub.hub import describe
    from napari_ovam.hub.transfer import patiently

    ask = partial(describe, model, variant=variant, pickles=pickles)
    return patiently(ask, job.check)


def download(model: HubModel, alive: Callable[[], None], job: Job) -> str:
    """Get a model, with progress in `UNIT` bytes, and return its name.

    `alive` may raise `Cancelled`; what has arrived stays.
    """
    from napari_ovam.hub.download import download_model
    from napari_ovam.hub.pickles import convert_pickles

    def progress(done: int, total: int) -> None:
        alive()
        job.progress(done // UNIT, total // UNIT)

    path = download_model(model, progress=progress)
    if model.pickles:
        job.describe("Converting the weights", holds=True)
        convert_pickles(path)
    return model.id


def convert(path: Path, job: Job) -> str:
    """Write the safetensors of a pickled model, and return the name to load."""
    from napari_ovam.hub.pickles import convert_pickles

    job.describe(f"Converting {path.name}", holds=True)
    made = convert_pickles(path)
    return str(path if path.is_dir() or not made else made[0])


def models_here(files: Iterable[str]) -> list[LocalModel]:
    """Return the models on this machine, with the `files` that exist among them."""
    from napari_ovam.hub.recent import model_folders
    from napari_ovam.hub.store import list_models

    named = [path for path in map(Path, files) if path.exists()]
    return list_models([*model_folders(), *named])


def cache_usage() -> CacheUsage:
    """Return what the trace cache holds."""
    from napari_ovam.attention.trace_cache import TraceCache

    return TraceCache().usage()


def empty_cache() -> CacheUsage:
    """Delete all cached traces, and return what is left."""
    from napari_ovam.attention.trace_cache import TraceCache

    cache = TraceCache()
    cache.clear()
    return cache.usage()


def limit_cache(limit: int) -> CacheUsage:
    """Let the trace cache take so many bytes, and return what is left in it."""
    from napari_ovam.attention.trace_cache import TraceCache

    cache = TraceCache()
    cache.set_limit(limit)
    return cache.usage()
