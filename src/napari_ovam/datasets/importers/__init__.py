"""Data sets of other programs, as pictures and masks that are read one by one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ovam.base.ids import BACKGROUND, LARGEST_ID
from napari_ovam.datasets.importers.indexed import open_indexed
from napari_ovam.datasets.importers.settle import settle
from napari_ovam.datasets.importers.source import (
    UNSURE,
    ImportSourceError,
    Masks,
    Picture,
    Source,
)
from napari_ovam.datasets.importers.voc import open_voc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam.datasets.class_lists import ListedClass

__all__ = [
    "FORMATS",
    "UNSURE",
    "ImportSourceError",
    "Masks",
    "Picture",
    "Source",
    "open_source",
]

_OPENERS = {
    "coco": ("coco", "open_coco"),
    "cvat": ("tools.cvat", "open_cvat"),
    "labelme": ("tools.labelme", "open_labelme"),
    "label-studio": ("tools.label_studio", "open_label_studio"),
    "datumaro": ("tools.datumaro", "open_datumaro"),
}
"""Modules of annotation files and their functions, loaded where they are used."""

FORMATS = ("indexed", "voc", *_OPENERS, "ome-zarr")
"""What `open_source` opens."""


def open_source(
    path: str | Path,
    form: str,
    classes: Sequence[ListedClass] | None = None,
    *,
    background: int = BACKGROUND,
) -> Source:
    """Open a data set; masks are read when they are imported.

    It raises `ImportSourceError` if the form is unknown, or this is no such data set.

    Parameters
    ----------
    path
        See `open_indexed`, `open_voc`, `open_coco`, `open_cvat`, `open_labelme`,
        `open_label_studio`, `open_datumaro` and `open_ome_zarr`.
    form
        In `FORMATS`.
    classes
        Where the data set says none of its own.
    background
        The id of the background in indexed masks.
    """
    if form not in FORMATS:
        raise ImportSourceError(
            f"the format is {form!r}: give one of {', '.join(FORMATS)}"
        )
    if form == "ome-zarr":
        from napari_ovam.datasets.importers.ome_zarr import open_ome_zarr

        return open_ome_zarr(path)
    path = Path(path)
    if not path.exists():
        raise ImportSourceError(f"there is no {path}")
    if form in _OPENERS:
        module, name = _OPENERS[form]
        opener = getattr(import_module(f"{__name__}.{module}"), name)
        source = opener(path, classes)
    elif not path.is_dir():
        raise ImportSourceError(f"{path} is a file: give the folder of the data set")
    elif form == "voc":
        source = open_voc(path, classes)
    else:
        source = open_indexed(path, classes, background)
    if len(source.classes) >= LARGEST_ID:  # one of the ids means unsure
        raise ImportSourceError(
            f"{path} names {len(source.classes)} classes: labels hold {LARGEST_ID - 1}"
        )
    return settle(source)
