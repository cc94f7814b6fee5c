"""Files that napari opens for the annotator: projects, stores, tokens and traces.

They go into the session of the current viewer. For label PNGs see label_png.py.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import napari
import numpy as np

from napari_ovam._qt.layers.marked import KEY
from napari_ovam._qt.session.project_reading import is_project
from napari_ovam.images.zarr_stores import is_store

from .opening import Opening, model_of_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    LayerTuple = tuple[Any, ...]

_LARGEST_HEADER = 100_000_000  # what the safetensors format allows
_NOTHING: list[LayerTuple] = [(None,)]  # npe2's word for "opened, and no layer"


# -- projects -------------------------------------------------------------------


def project_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Return a reader for a project's folder or `project.json`, or an OME-Zarr store.

    None for others. npe2 0.10 offers every folder to every reader that takes folders: a
    name's pattern counts for files only. So napari asks, and a store that a person has
    us open becomes samples; with another reader it becomes layers.
    """
    paths = _paths(path)
    if len(paths) != 1:
        return None
    if is_project(paths[0]):
        return _read_project
    return _read_store if is_store(paths[0]) else None


def _read_store(path: str | Sequence[str]) -> list[LayerTuple]:
    (folder,) = _paths(path)
    how = "import it with napari-ovam import"
    _opening(folder, "an OME-Zarr store", how).store(folder)
    return _NOTHING


def _read_project(path: str | Sequence[str]) -> list[LayerTuple]:
    (folder,) = _paths(path)
    how = "read it with napari_ovam.project.Project.open"
    _opening(folder, "a project", how).project(folder)
    return _NOTHING


def _opening(folder: Path, what: str, otherwise: str) -> Opening:
    """Return what opens a folder in napari's window; `ValueError` if there is none."""
    viewer = napari.current_viewer()
    if viewer is None:
        raise ValueError(
            f"{folder} is {what}: open it in a napari window, or {otherwise}"
        )
    return Opening.of(viewer)


# -- tokens and traces ----------------------------------------------------------


def safetensors_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Return a reader for tokens and traces; None for other safetensors files."""
    paths = _paths(path)
    kinds = {_kind(each) for each in paths}
    return _read_safetensors if kinds <= {"token", "trace"} else None


def _read_safetensors(path: str | Sequence[str]) -> list[LayerTuple]:
    layers: list[LayerTuple] = []
    for each in _paths(path):
        if _kind(each) == "token":
            _open_token(each)
        else:
            layers.append(trace_layer(each))
    return layers or _NOTHING


def _kind(path: Path) -> str:
    """Return "token", "trace" or "" by the file's own metadata."""
    words = str(_metadata(path).get("format", "")).split()
    return words[1] if len(words) == 3 and words[0] == "napari-ovam" else ""


def _metadata(path: Path) -> dict[str, str]:
    """Return a safetensors file's metadata; empty where it is none.

    Read by hand: the library's own reader would import torch, in the GUI thread.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _LARGEST_HEADER:
                return {}
            header = json.loads(file.read(size))
        metadata: dict[str, str] = header.get("__metadata__", {})
    except (OSError, ValueError, AttributeError, struct.error):
        return {}
    return metadata


def _open_token(path: Path) -> None:
    viewer = napari.current_viewer()
    if viewer is None:
        raise ValueError(
            f"{path.name} is a token: open it in a napari window, or read it with "
            "napari_ovam.load_token"
        )
    about = _metadata(path)
    name = about.get("phrase") or about.get("name") or path.stem
    Opening.of(viewer).token(path, name)


def trace_layer(
    path: Path, image: Path | None = None, name: str | None = None
) -> LayerTuple:
    """Return the image of a trace as a layer, and open the trace in the session.

    Parameters
    ----------
    path
        A trace file.
    image
        Its image; by default `NAME.png` beside it, or in a folder `images` beside its
        own. Without one the layer is grey.
    name
        Of the layer; by default the file's.
    """
    try:
        about = json.loads(_metadata(path)["trace"])
        size = int(about["image_size"][0]), int(about["image_size"][1])
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path.name} is not a whole trace file") from error
    file = f"{path.stem}.png"
    places = (
        [image] if image else [path.with_name(file), path.parents[1] / "images" / file]
    )
    found = next((place for place in places if place.is_file()), None)
    pixels = np.full((*size, 3), 128, np.uint8)
    if found is not None:
        from napari_ovam.images.files import read

        pixels = read(found)
        if pixels.shape[:2] != size:
            raise ValueError(
                f"{found.name} has {pixels.shape[:2]} pixels and the trace was "
                f"recorded at {size}: put the image of the trace in its place"
            )
    key = uuid4().hex
    name = name or path.stem
    viewer = napari.current_viewer()
    if viewer is None:
        return pixels, {"name": name, "rgb": True}, "image"
    Opening.of(viewer).trace(key, path, name, pixels, model_of_image(found))
    marks = {KEY: {"sample": key, "role": "image"}}
    return pixels, {"name": name, "rgb": True, "metadata": marks}, "image"


def _paths(path: str | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, str) else [Path(each) for each in path]
