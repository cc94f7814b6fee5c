"""Labels layers that napari saves: as indexed PNG, and as COCO."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam._qt.layers.label_png import CLASS_TABLE, label_class
from napari_ovam._qt.session.state import UNSURE
from napari_ovam.base.atomic import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam.datasets.exporters import LabelClass


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
        # napari has asked about the target; a file beside it may be somebody else's
        foreign = [place for place in files.values() if place.exists()]
        if foreign and not target.exists():
            raise ValueError(
                f"{foreign[0]} is there already, without {target.name}: move it, or "
                "save under another name"
            )
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
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= 65535:
        raise ValueError(
            f"the labels run from {labels.min()} to {labels.max()}: ids are 0 to 65535"
        )
    return labels.astype(np.uint16)


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
