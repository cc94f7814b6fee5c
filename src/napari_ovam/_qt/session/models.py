"""The models of a session: loaded when they are needed, in a job's thread."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.hub.recent import remember_model

from .project_reading import as_settings

if TYPE_CHECKING:
    from napari_ovam import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.diffusion.memory import MemoryPlan

    from .state import LiveSample, ModelChoice
    from .worker import Job


class Models:
    """Holds the pipeline used last and the phrases that were encoded.

    Only one long job runs at a time; what is typed may be encoded beside it.

    Attributes
    ----------
    plans
        How a person wants models to be loaded, to take less memory.
    """

    def __init__(self) -> None:
        self.plans: dict[ModelChoice, MemoryPlan] = {}
        self._loaded: tuple[tuple[ModelChoice, MemoryPlan | None], Any] | None = None
        self._encoded: dict[tuple[str, str], Token] = {}
        self._lock = threading.RLock()

    def has(self, choice: ModelChoice) -> bool:
        """Tell whether a model is loaded."""
        return self._loaded is not None and self._loaded[0][0] == choice

    def loaded(self, choice: ModelChoice) -> Any:
        """Return the pipeline of a choice if it is loaded, else None."""
        known = self._loaded
        return known[1] if known is not None and known[0][0] == choice else None

    def get(self, choice: ModelChoice, job: Job) -> Any:
        """Return the pipeline of a choice, loading it as planned where needed."""
        wanted = choice, self.plans.get(choice)
        with self._lock:
            return self._get(wanted, job)

    def _get(self, wanted: tuple[ModelChoice, MemoryPlan | None], job: Job) -> Any:
        choice, _ = wanted
        if self._loaded is None or self._loaded[0] != wanted:
            title = job.title
            job.describe(f"Loading the model {choice.model}", holds=True)
            self._loaded = None  # two models may not fit into memory
            self._loaded = wanted, load_model(*wanted)
            remember_model(choice.model)
            job.describe(title)
        return self._loaded[1]

    def encode(self, choice: ModelChoice, phrase: str, job: Job) -> Token:
        """Return a phrase as a token, from memory where it was encoded before."""
        key = (choice.model, phrase)
        with self._lock:
            if key not in self._encoded:
                from napari_ovam import encode_phrase

                self._encoded[key] = encode_phrase(self.get(choice, job), phrase)
            return self._encoded[key]

    def trace(self, sample: LiveSample, job: Job) -> Trace:
        """Return the trace of a sample, from now on its own: saved, or made now."""
        if sample.trace is None:
            sample.trace = self._trace(sample, job)
        return sample.trace

    def _trace(self, sample: LiveSample, job: Job) -> Trace:
        from napari_ovam.workflows.sample_trace import sample_trace, saved_trace

        project, name = sample.project, sample.key
        sample.settings = as_settings(project.settings(name))
        if (found := saved_trace(project, name)) is not None:
            return found
        pipe = self.get(sample.choice, job)
        job.describe("Getting the trace of the image")
        return sample_trace(project, name, pipe, progress=job.progress)


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
