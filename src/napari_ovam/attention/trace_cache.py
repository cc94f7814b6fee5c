"""Traces that are made again when they are asked for, and kept while there is room.

A trace is exactly determined by its image, the settings that made it and the model, so
none has to be stored for good: what a project did not keep is re-traced, and a cache
with a size limit saves doing so twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_ovam import GenerationSettings, generate, trace_image
from napari_ovam.attention.trace import TraceSettings, quarter_calls
from napari_ovam.attention.trace_files import TraceFileError, load_trace, save_trace
from napari_ovam.base.atomic import replacing
from napari_ovam.base.user_folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import Trace
    from napari_ovam.base.progress import Progress
    from napari_ovam.project import Project

Keep = Literal["all", "few", "none"]

DEFAULT_LIMIT = 5_000_000_000  # bytes
_LIMIT = "limit.json"
# What `trace_image` takes, and a sample's provenance may say.
HOW = ("prompt", "seed", "noise_level", "noise_seeds", "flip", "max_tiles")
_STALE = 3600  # seconds after which what a killed process left is taken away
_TRACE = TraceSettings()


class RetraceError(ValueError):
    """An image that the settings do not make again here: its trace would be wrong."""


@dataclass(frozen=True)
class CacheUsage:
    """What a cache holds: how many traces, of how many bytes, and how many it may."""

    traces: int
    size: int
    limit: int


class TraceCache:
    """Traces in a folder, the ones used longest ago given up first.

    Several processes may use one folder. Nothing that a person made is in it.

    Parameters
    ----------
    folder
        By default `cache_folder()`.
    limit
        Bytes; by default what `set_limit` wrote, or 5 GB.
    """

    def __init__(
        self, folder: str | Path | None = None, limit: int | None = None
    ) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder()
        self._limit = limit

    @property
    def limit(self) -> int:
        """Bytes that the cache may take."""
        if self._limit is not None:
            return self._limit
        try:
            stored = json.loads((self.folder / _LIMIT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return DEFAULT_LIMIT
        return stored if isinstance(stored, int) and stored >= 0 else DEFAULT_LIMIT

    def set_limit(self, limit: int) -> None:
        """Set the limit for this and later sessions; what is above it goes.

        Raises
        ------
        ValueError
            If it is less than 0, which keeps nothing.
        OSError
            If it cannot be written.
        """
        if limit < 0:
            raise ValueError(f"the limit is {limit}: give bytes, 0 to keep nothing")
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / _LIMIT) as temporary:
            temporary.write_text(json.dumps(limit), encoding="utf-8")
        self._limit = None
        self._trim()

    def usage(self) -> CacheUsage:
        """Return what it holds now."""
        sizes = [size for _, size, _ in self._entries()]
        return CacheUsage(len(sizes), sum(sizes), self.limit)

    def clear(self) -> int:
        """Delete all traces in it; return the bytes that became free.

        A trace that is in use is read to its end, except on Windows, where it stays.
        """
        return sum(size for _, size, path in self._entries() if _delete(path))

    def get(self, key: str) -> Trace | None:
        """Return a trace, read layer by layer when used; None if it is not there.

        A file that is damaged is deleted.
        """
        path = self._path(key)
        try:
            trace = load_trace(path)
        except TraceFileError:
            _delete(path)
            return None
        except OSError:
            return None
        with suppress(OSError):  # such as on a disk that can only be read
            os.utime(path)
        return trace

    def put(self, key: str, trace: Trace) -> Path | None:
        """Keep a trace, and give up others for it; None if it is above the limit.

        Raises
        ------
        OSError
            If it cannot be written, such as on a full disk.
        """
        if trace_bytes(trace) > self.limit:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        path = save_trace(trace, self._path(key))
        self._trim(spare=path)
        return path

    def get_or_make(self, key: str, make: Callable[[], Trace]) -> Trace:
        """Return a trace, made and kept if it is not there.

        What cannot be written is not kept, and the trace is returned all the same.
        """
        found = self.get(key)
        if found is not None:
            return found
        made = make()
        with suppress(OSError):
            self.put(key, made)
        return made

    def _path(self, key: str) -> Path:
        if not key.isalnum():
            raise ValueError(f"{key!r} is no key: use trace_key")
        return self.folder / f"{key}.safetensors"

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Return (last used, size, path) of all traces, the oldest first."""
        found = []
        for path in self.folder.glob("*.safetensors"):
            with suppress(OSError):  # another process took it away
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        return sorted(found)

    def _trim(self, spare: Path | None = None) -> None:
        entries = self._entries()
        above = sum(size for _, size, _ in entries) - self.limit
        for _, size, path in entries:
            if above <= 0:
                break
            if path != spare and _delete(path):
                above -= size
        for path in self.folder.glob(".*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()


def kept_part(trace: Trace, keep: Keep) -> Trace | None:
    """Return what is to be stored of a trace.

    Parameters
    ----------
    trace
        What was recorded.
    keep
        "all"; "few", the calls a quarter, half and three quarters of the way through
        those that it holds; "none".

    Raises
    ------
    ValueError
        If `keep` is none of these.
    """
    if keep not in get_args(Keep):
        raise ValueError(f"keep is {keep!r}: give one of {get_args(Keep)}")
    if keep == "none":
        return None
    if keep == "all" or len(trace.calls) <= len(quarter_calls(4)):
        return trace
    places = quarter_calls(len(trace.calls))
    return trace.select(calls=[trace.calls[place] for place in places])


def trace_bytes(trace: Trace) -> int:
    """Return the bytes of a trace's tensors, in memory or on the disk."""
    tensors = [
        tensor
        for layer in trace.layers
        for tensor in (layer.queries, layer.key_weight, layer.key_bias)
        if tensor is not None
    ]
    tensors += [t for layer in trace.self_layers for t in (layer.queries, layer.keys)]
    return sum(tensor.nbytes for tensor in tensors)


def trace_key(
    image: NDArray[np.uint8],
    model: str,
    settings: GenerationSettings | None,
    trace: TraceSettings = _TRACE,
    how: Mapping[str, Any] | None = None,
) -> str:
    """Return the key of a trace: other pixels, settings or models have other keys.

    Parameters
    ----------
    image
        RGB, shape (H, W, 3).
    model
        As `load_pipeline` takes it. Two versions of a hub model share a name: for
        images that it did not make, add the commit to tell them apart.
    settings
        What the image was generated from; None if it was loaded.
    trace
        What is recorded.
    how
        As in `retrace`.
    """
    about: dict[str, Any] = {
        "format": 1,
        "image": hashlib.sha256(image.tobytes()).hexdigest(),
        "shape": image.shape,
        "model": model,
        "settings": dict(how or {}) if settings is None else asdict(settings),
        "trace": {f.name: str(getattr(trace, f.name)) for f in fields(trace)},
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def retrace(
    pipe: Any,
    image: NDArray[np.uint8],
    settings: GenerationSettings | None,
    *,
    trace: TraceSettings = _TRACE,
    how: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Make the trace of an image again: the same queries, bit for bit, on one machine.

    Parameters
    ----------
    pipe
        The model that made, or looked at, the image, in the same precision.
    image
        RGB, shape (H, W, 3).
    settings
        What it was generated from; None if it was loaded, which looks at it again.
    trace
        What to record.
    how
        For an image that was loaded: what `trace_image` was given beside it, such as
        its prompt.
    progress
        As in `generate`.

    Raises
    ------
    RetraceError
        If the settings make another image here, so that the trace would be another's.
    ValueError, GenerationError, OutOfMemory, Cancelled
        As `generate`.
    """
    if settings is None:
        return trace_image(
            pipe, image, trace=trace, progress=progress, **(how or {})
        ).trace
    made = generate(pipe, settings, trace=trace, progress=progress)
    if not np.array_equal(made.image, image):
        raise RetraceError(
            f"the settings of {settings.prompt!r} make another image here (another "
            "model, precision, device or library version): nothing was changed. Load "
            "the model that made it, or trace it as an image that was loaded"
        )
    return made.trace


def sample_trace(
    project: Project,
    name: str,
    load_pipe: Callable[[str], Any],
    *,
    cache: TraceCache,
    trace: TraceSettings = _TRACE,
    progress: Progress | None = None,
) -> Trace:
    """Return the trace of a project's sample: stored, cached, or made again.

    Parameters
    ----------
    project, name
        The sample. A trace that the project stores is taken as it is. Its provenance
        may hold what `trace_image` was given (`HOW`).
    load_pipe
        Loads a model by its name; called only if the trace has to be made.
    cache
        Where a trace that is made is kept.
    trace
        What to record.
    progress
        As in `generate`.

    Raises
    ------
    RetraceError
        As `retrace`.
    ProjectError
        If there is no such sample.
    """
    with suppress(TraceFileError, FileNotFoundError):
        return load_trace(project.trace_path(name))
    image = project.load_image(name)
    about: Mapping[str, Any] = project.sample(name).provenance
    stored = project.settings(name) or {}
    known = {f.name for f in fields(GenerationSettings)}
    made = {key: value for key, value in stored.items() if key in known}
    settings = GenerationSettings(**made) if "prompt" in made else None
    model = str(stored.get("model") or about.get("model") or "tiny")
    how = {key: about[key] for key in HOW if key in about}

    def make() -> Trace:
        return retrace(
            load_pipe(model), image, settings, trace=trace, how=how, progress=progress
        )

    return cache.get_or_make(trace_key(image, model, settings, trace, how), make)


def _delete(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # gone already, or in use (Windows)
        return not path.exists()
    return True
