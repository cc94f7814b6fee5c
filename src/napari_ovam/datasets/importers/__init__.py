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

_TOOLS = {"cvat": "xml", "labelme": "json", "label-studio": "json", "datumaro": "json"}
"""Endings of annotation files; the module in `tools` of that name reads them."""

FORMATS = ("indexed", "voc", "coco", *_TOOLS, "ome-zarr")
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
        See `open_indexed`, `open_voc`, `open_coco` and `open_ome_zarr`; of annotation
        tools a file, or a folder with one or several: see the modules in `tools`.
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
    if form == "coco":
        from napari_ovam.datasets.importers.coco import open_coco

        source = open_coco(path)
    elif form in _TOOLS:
        from napari_ovam.datasets.importers.annotated import open_files

        read = import_module(f"{__name__}.tools.{form.replace('-', '_')}").read
        ending = f".{_TOOLS[form]}"
        source = open_files(form, path, ending, read, together=form == "labelme")
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
