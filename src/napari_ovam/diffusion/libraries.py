"""What diffusers and transformers say while they load a model."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import diffusers
import transformers

from napari_ovam.hub.families import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' notes and progress bars."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in libraries]
    try:
        for log in libraries:
            log.set_verbosity_error()
            log.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # on old configurations
            yield
    finally:
        for log, (verbosity, had_bars) in zip(libraries, before, strict=True):
            log.set_verbosity(verbosity)
            if had_bars:
                log.enable_progress_bar()


@contextmanager
def explain_loading(source: Path) -> Iterator[None]:
    """Turn what goes wrong inside the libraries into a `ModelError`, quietly."""
    try:
        with quiet():
            yield
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        reason = str(error)
        if "meta tensor" in reason:
            reason = (
                "tensors are missing that its configuration asks for: get the model "
                "again, in a version that is whole"
            )
        raise ModelError(f"{source} cannot be loaded: {reason}") from error


def check_missing(source: Path, part: str, missing: Iterable[str]) -> None:
    """Refuse a part of a model of which tensors are missing, by their names."""
    if names := sorted(missing):
        raise ModelError(
            f"{source} lacks {len(names)} tensors of its {part}, such as {names[0]}: "
            "get the model again, in a version that is whole"
        )
