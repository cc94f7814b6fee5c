"""Where the trace of a project's sample comes from: one rule for all who want one.

The saved one, if it fits; else the cached one; else it is made again from the settings
that made the image, which gives the same queries; else by looking at the image.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.attention.trace_cache import TraceCache
from napari_ovam.attention.trace_files import TraceFileError, load_trace
from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.base.generation_settings import GenerationSettings
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.diffusion import pipelines
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.generation import GenerationError, generate
from napari_ovam.diffusion.image_traces import trace_image
from napari_ovam.diffusion.weights_hash import text_encoder_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import Trace
    from napari_ovam.project import Project

LOOK = ("noise_level", "noise_seeds", "flip", "max_tiles")
_HOW = ("prompt", "seed", *LOOK)  # what `trace_image` takes, and a provenance may say
_SAMPLED = 16  # of each weight: any training, and any other precision, changes some
_TRACE = TraceSettings()


def sample_trace(
    project: Project,
    name: str,
    pipe: Any,
    *,
    trace: TraceSettings = _TRACE,
    keep: bool = False,
    cache: TraceCache | None = None,
    progress: Progress = no_progress,
) -> Trace:
    """Return the trace of a sample: saved, cached, made again, or by a look at it.

    It raises `ProjectError` if there is no such sample; `ValueError` or
    `GenerationError` or `OutOfMemory` or `Cancelled` as `trace_image`.

    Parameters
    ----------
    project, name
        The sample.
    pipe
        From `load_pipeline`.
    trace
        What to record, where it is made.
    keep
        Whether it is saved in the project then; a saved one that does not fit stays.
    cache
        Where it is kept otherwise; the user's by default.
    progress
        As in `generate`; may raise `Cancelled`.
    """
    found = saved_trace(project, name, text_encoder_hash(pipe))
    if found is not None:
        return found
    image = project.load_image(name)
    settings, how = _origin(project, name, pipe)
    cache = cache or TraceCache()

    def make() -> Trace:
        if settings is not None:
            with suppress(ValueError, GenerationError):  # refused, or made NaNs
                made = generate(pipe, settings, trace=trace, progress=progress)
                if np.array_equal(made.image, image):
                    return made.trace
        return trace_image(pipe, image, trace=trace, progress=progress, **how).trace

    key = _key(image, pipe, settings, how, trace)
    if not keep or project.trace_path(name).is_file():
        return cache.get_or_make(key, make)
    found = cache.get(key) or make()
    project.save_trace(name, found)
    return found


def load_for_traces(
    project: Project,
    names: Iterable[str],
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
) -> Any:
    """Load what words on the traces of samples take.

    The text encoder alone, a tenth of a model or less, where the traces of all are
    saved and fit; else the whole model, to make those that are not.

    Parameters
    ----------
    project, names
        The samples.
    model, device, dtype
        As in `load_pipeline`, with its errors.
    """
    pipe = pipelines.load_text_encoder(model, device=device, dtype=dtype)
    if not pipeline_architecture(pipe).text_alone:
        return pipe  # it is whole
    key = text_encoder_hash(pipe)
    if all(saved_trace(project, name, key) is not None for name in names):
        return pipe
    return pipelines.load_pipeline(model, device=device, dtype=dtype)


def saved_trace(project: Project, name: str, model: str = "") -> Trace | None:
    """Return the trace that a project holds of a sample, if it fits.

    One that is damaged, or of an image of another size or one that was changed since,
    does not; nor one of another text encoder.

    Parameters
    ----------
    project, name
        The sample.
    model
        The text encoder's hash; "" if it is not known.
    """
    if project.picture_changed(name):
        return None
    try:
        found = load_trace(project.trace_path(name))
    except (TraceFileError, OSError):
        return None
    same = not (model and found.model) or found.model == model
    return found if same and found.image_size == project.image_size(name) else None


def _origin(
    project: Project, name: str, pipe: Any
) -> tuple[GenerationSettings | None, dict[str, Any]]:
    """Return what made an image, if this model may have, and how to look at it."""
    about: Mapping[str, Any] = project.sample(name).provenance
    stored = project.settings(name) or {}
    how = {key: about[key] for key in _HOW if key in about}
    how.setdefault("prompt", str(stored.get("prompt") or ""))
    encoder = about.get("text_encoder")
    if "seed" not in stored or encoder not in (None, "", text_encoder_hash(pipe)):
        return None, how
    known = {field.name for field in fields(GenerationSettings)}
    with suppress(TypeError):  # such as without a prompt
        return GenerationSettings(
            **{k: v for k, v in stored.items() if k in known}
        ), how
    return None, how


def _key(
    image: NDArray[np.uint8],
    pipe: Any,
    settings: GenerationSettings | None,
    how: Mapping[str, Any],
    trace: TraceSettings,
) -> str:
    """Return the key of a trace: other pixels, settings or weights have other keys."""
    about = {
        "format": 2,
        "image": hashlib.sha256(image.tobytes()).hexdigest(),
        "shape": image.shape,
        "model": _fingerprint(pipe),
        "settings": None if settings is None else asdict(settings),
        "how": dict(how),
        "trace": {f.name: str(getattr(trace, f.name)) for f in fields(trace)},
    }
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint(pipe: Any) -> str:
    """Return what tells a pipeline's weights and their precision from others'."""
    digest = hashlib.sha256(text_encoder_hash(pipe).encode())
    digest.update(f"{type(pipe).__name__} {pipe.scheduler.config}".encode())
    for weights in pipeline_architecture(pipe).denoiser(pipe).parameters():
        digest.update(f"{weights.dtype} {tuple(weights.shape)}".encode())
        if not weights.is_meta:
            few = weights.detach().reshape(-1)[:_SAMPLED].float().cpu().numpy()
            digest.update(few.tobytes())
    return digest.hexdigest()
