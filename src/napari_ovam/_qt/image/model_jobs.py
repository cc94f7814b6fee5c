"""What finds and gets models, in a job's thread: without Qt and the session."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_ovam._qt.session.state import ModelChoice
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.attention.trace_cache import CacheUsage
    from napari_ovam.diffusion.memory import MemoryEstimate, MemoryOption, MemoryPlan
    from napari_ovam.hub.hub import HubModel
    from napari_ovam.hub.store import LocalModel

# Qt's signals take 32 bits: in units of this many bytes 2 TB can be told.
UNIT = 1000


class Fit(NamedTuple):
    """What a model takes, and what would take less."""

    needed: MemoryEstimate
    options: list[MemoryOption]


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
