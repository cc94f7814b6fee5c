"""Trace files: one `.safetensors` each, read layer by layer and never unpickled."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_ovam.attention.streams import TextStream
from napari_ovam.attention.trace import (
    LayerTrace,
    SelfTrace,
    Trace,
    block_of,
    choose_layers,
    tensors_of,
)
from napari_ovam.base.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

_FORMAT = "napari-ovam trace 1"
_NORM = ("key_norm", "norm_eps")  # only where keys are normalised
_STREAM_FORMAT = "napari-ovam trace 2"  # of models that make keys again
_BROKEN = (
    *(SafetensorError, ValueError, LookupError, TypeError, AttributeError),
    RecursionError,
)


class TraceFileError(ValueError):
    """A file that is no whole trace; the message names its path."""


def save_trace(trace: Trace, path: str | Path) -> Path:
    """Write a trace; a file of that name is replaced only by a whole new one.

    Returns
    -------
    Path
        The path, which should end in `.safetensors`.

    Raises
    ------
    OSError
        If the file cannot be written, such as on a full disk.
    """
    path = Path(path)
    tensors: dict[str, torch.Tensor] = {}
    storages = set[int]()
    for name, tensor in trace_tensors(trace).items():
        tensor = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory
        if (place := tensor.untyped_storage().data_ptr()) in storages:
            tensor = tensor.clone()
        storages.add(place)
        tensors[name] = tensor
    about = {
        "image_size": trace.image_size,
        "model": trace.model,
        "branch": trace.branch,
        "calls": trace.calls,
        "layers": [_about_layer(layer) for layer in trace.layers],
        "stream": None if trace.stream is None else trace.stream.about,
        "self_layers": [_about_layer(layer) for layer in trace.self_layers],
    }
    kind = _FORMAT if trace.stream is None else _STREAM_FORMAT
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, {"format": kind, "trace": json.dumps(about)})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(f"{path} could not be written: {error}") from error
    return path


def load_trace(path: str | Path, *, layers: Iterable[str | int] | None = None) -> Trace:
    """Read a trace, or some of its layers.

    On the CPU the tensors are mapped, not read: each layer comes from the disk when it
    is first used.

    Parameters
    ----------
    path
        A file that `save_trace` wrote.
    layers
        Names of layers or longer sides of grids, as in `Trace.select`. Others are not
        read.

    Raises
    ------
    TraceFileError
        If the file is not a whole trace.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the trace holds no such layer.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no trace file {path}")
    with _opened(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") not in (_FORMAT, _STREAM_FORMAT):
            raise TraceFileError(
                f"{path} is no trace of this version: its format is "
                f"{metadata.get('format')!r}, {_FORMAT!r} is wanted"
            )
        about = json.loads(metadata["trace"])
        grids = {
            str(entry["name"]): (int(entry["grid"][0]), int(entry["grid"][1]))
            for entry in about["layers"]
        }
    names = set(grids) if layers is None else choose_layers(layers, grids)
    with _opened(path) as file:
        return _read(file, about, {block_of(name) for name in names})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file, and name what goes wrong with it.

    Raises
    ------
    TraceFileError
        If what is read is broken.
    OSError
        If it cannot be opened, as where another program deleted it meanwhile.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except TraceFileError:
        raise
    except _BROKEN as error:
        raise TraceFileError(_broken(path, error)) from error
    except RuntimeError as error:  # of what maps it into memory
        raise OSError(f"{path} cannot be opened: {error}") from error


def _read(file: Any, about: dict[str, Any], blocks: set[str]) -> Trace:
    def parts(entry: dict[str, Any], *names: str) -> dict[str, Any]:
        name = entry["name"]
        tensors = {part: file.get_tensor(f"{name}.{part}") for part in names}
        grid, scale = tuple(entry["grid"]), float(entry["scale"])
        return {"name": name, "grid": grid, "scale": scale, **tensors}

    def wanted(kind: str) -> list[dict[str, Any]]:
        return [entry for entry in about[kind] if block_of(entry["name"]) in blocks]

    stored = set(file.keys())
    more = ("key_bias", "norm_weight", "norm_bias")
    stream = None
    if about.get("stream"):
        parts_of = {k.removeprefix("stream."): file.get_tensor(k) for k in stored}
        stream = TextStream.from_file(parts_of, about["stream"], blocks)
    return Trace(
        layers=stream.layers
        if stream
        else tuple(
            LayerTrace(
                **parts(
                    entry,
                    "queries",
                    "key_weight",
                    *[part for part in more if f"{entry['name']}.{part}" in stored],
                ),
                **{k: entry[k] for k in _NORM if k in entry},
            )
            for entry in wanted("layers")
        ),
        self_layers=tuple(
            SelfTrace(**parts(entry, "queries", "keys"))
            for entry in wanted("self_layers")
        ),
        image_size=(int(about["image_size"][0]), int(about["image_size"][1])),
        model=about["model"],
        branch=about["branch"],
        calls=tuple(about["calls"]),
        stream=stream,
    )


def trace_tensors(trace: Trace) -> dict[str, torch.Tensor]:
    """Return all tensors that are kept of a trace, by their names."""
    tensors = {
        f"{layer.name}.{part}": tensor
        for layer in trace.all_layers
        for part, tensor in tensors_of(layer).items()
    }
    if trace.stream is not None:
        kept = trace.stream.tensors.items()
        tensors |= {f"stream.{name}": tensor for name, tensor in kept}
    return tensors


def _about_layer(layer: LayerTrace | SelfTrace) -> dict[str, Any]:
    about = {"name": layer.name, "grid": layer.grid, "scale": layer.scale}
    if getattr(layer, "key_norm", None):
        about |= {name: getattr(layer, name) for name in _NORM}
    return about


def _broken(path: Path, error: Exception) -> str:
    return f"{path} is not a whole trace file ({error}): record or copy it again"
