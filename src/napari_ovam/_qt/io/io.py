"""Files that napari opens and saves for the annotator.

Opened: projects, tokens and traces, by drag and drop into the current viewer's session
(label PNGs: see label_png.py). Saved: Labels layers as indexed PNG and as COCO.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import napari
import numpy as np

from napari_ovam._qt.image.images import read_image
from napari_ovam._qt.layers.label_png import CLASS_TABLE, label_class
from napari_ovam._qt.layers.layers import KEY
from napari_ovam._qt.session.edits import as_labels
from napari_ovam._qt.session.opened import is_project
from napari_ovam._qt.session.state import UNSURE
from napari_ovam.base.atomic import replacing

from .opening import Opening, model_of_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_ovam.datasets.exporters import LabelClass

    LayerTuple = tuple[Any, ...]

_LARGEST_HEADER = 100_000_000  # what the safetensors format allows
_NOTHING: list[LayerTuple] = [(None,)]  # npe2's word for "opened, and no layer"


# -- projects -------------------------------------------------------------------


def project_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Return a reader for a project's folder or `project.json`; None for others.

    npe2 0.10 offers every folder to every reader that takes folders: a name's pattern
    counts for files only.
    """
    paths = _paths(path)
    mine = len(paths) == 1 and is_project(paths[0])
    return _read_project if mine else None


def _read_project(path: str | Sequence[str]) -> list[LayerTuple]:
    (folder,) = _paths(path)
    viewer = napari.current_viewer()
    if viewer is None:
        raise ValueError(
            f"{folder} is a project: open it in a napari window, or read it with "
            "napari_ovam.project.Project.open"
        )
    Opening.of(viewer).project(folder)
    return _NOTHING


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
        pixels, _ = read_image(found)
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


# -- saving ---------------------------------------------------------------------


class SaveError(RuntimeError):
    """Labels that cannot be saved. No ValueError: napari keeps those to itself."""


def write_png(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as a PNG of class ids, with its classes beside it.

    `NAME.png` is what the format "indexed" holds, `NAME.classes.json` its table. The
    PNG moves into place last.

    Raises
    ------
    SaveError
        If the labels are not 2D, an id is out of range, or names do not fit.
    """
    target = Path(path)
    return _write(
        target,
        "indexed",
        data,
        meta,
        f"labels/{target.stem}.png",
        {CLASS_TABLE: CLASS_TABLE},
    )


def write_coco(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as COCO instances in one JSON; see the format "coco".

    The image that it names is `NAME.png`, which is not written.
    """
    return _write(Path(path), "coco", data, meta, "annotations.json", {})


def _write(
    target: Path,
    name: str,
    data: Any,
    meta: dict[str, Any],
    main: str,
    beside: dict[str, str],
) -> list[str]:
    """Write a dataset of one item elsewhere, then move the wanted files into place."""
    try:
        return _write_item(target, name, data, meta, main, beside)
    except ValueError as error:
        raise SaveError(str(error)) from error


def _write_item(
    target: Path,
    name: str,
    data: Any,
    meta: dict[str, Any],
    main: str,
    beside: dict[str, str],
) -> list[str]:
    from napari_ovam.datasets.exporters import ExportItem, export_dataset

    labels = _labels(data)
    # The formats hold images as well; this one is not kept.
    blank = np.zeros((*labels.shape, 3), np.uint8)
    item = ExportItem(target.stem, blank, labels)
    written: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = export_dataset(
            [item], layer_classes(labels, meta), Path(scratch) / "out", [name]
        )
        files = {
            folder / name / source: target.with_name(f"{target.stem}.{ending}")
            for source, ending in beside.items()
        }
        for source, place in {**files, folder / name / main: target}.items():
            with replacing(place) as temporary:
                shutil.copyfile(source, temporary)
            written.insert(0, str(place))
    return written


def _labels(data: Any) -> NDArray[np.uint16]:
    """Return a layer's pixels as class ids."""
    labels = np.asarray(data)
    if labels.ndim != 2:
        raise ValueError(
            f"the labels have the shape {labels.shape}: only 2D labels can be saved "
            "here; save one slice"
        )
    return as_labels(labels)


def layer_classes(
    labels: NDArray[np.integer[Any]], meta: dict[str, Any]
) -> list[LabelClass]:
    """Return the classes of a Labels layer: its features' names, colormap's colours.

    An id that has no name is called after its number.
    """
    names: dict[int, str] = {}
    features = meta.get("features")
    if features is not None and {"index", "name"} <= set(features):
        pairs = zip(features["index"], features["name"], strict=True)
        names = {int(i): str(n) for i, n in pairs if str(n).strip()}
    ids = {int(i) for i in np.unique(labels)} | set(names)
    colour = partial(_colour, meta.get("colormap"))
    return [
        label_class(number, names.get(number, f"class {number}"), colour(number))
        for number in sorted(ids - {0, UNSURE})
    ]


def _colour(colormap: Any, number: int) -> list[int]:
    rgba = np.array([1.0, 0, 1, 1])
    if colormap is not None:
        rgba = np.asarray(colormap.map(np.array([number]))).reshape(-1)[:4]
    return [round(255 * float(value)) for value in rgba[:3]]


def _paths(path: str | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, str) else [Path(each) for each in path]
