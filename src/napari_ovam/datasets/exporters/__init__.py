"""Datasets for training: one module a format, one registry.

A new format is one more module with a `Writer`, and one more entry in `FORMATS`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import length_hint
from pathlib import Path

from napari_ovam.base.ids import BACKGROUND, IGNORE
from napari_ovam.base.names import check_name
from napari_ovam.base.progress import Progress

from .coco import CocoWriter
from .coco_panoptic import CocoPanopticWriter
from .dataset import (
    ExportError,
    ExportItem,
    LabelClass,
    Writer,
    WriterFactory,
    check_classes,
    check_item,
)
from .hf import HfWriter
from .indexed import HistoryWriter, IndexedWriter
from .nnunet import NnunetWriter
from .ome_zarr.writer import OmeZarrWriter
from .polygons import LowestIou
from .report import Exported, describe_item, save_index
from .splitting import Split, parse_split
from .staging import (
    OLD,
    FolderExistsError,
    FolderInUseError,
    check_folder,
    check_ours,
    replace_folder,
    staging_for,
)
from .tools.cvat import CvatWriter
from .tools.datumaro import DatumaroWriter
from .tools.label_studio import LabelStudioWriter
from .tools.labelme import LabelmeWriter
from .voc import VocWriter
from .yolo_seg import YoloSegWriter
from .yolo_semantic import YoloSemanticWriter

__all__ = [
    "BACKGROUND",
    "FORMATS",
    "HISTORY",
    "IGNORE",
    "LOSSES",
    "ExportError",
    "ExportItem",
    "Exported",
    "FolderExistsError",
    "FolderInUseError",
    "LabelClass",
    "LowestIou",
    "Split",
    "Writer",
    "WriterFactory",
    "check_name",
    "export_dataset",
    "parse_split",
]

FORMATS: dict[str, WriterFactory] = {
    "indexed": IndexedWriter,
    "coco": CocoWriter,
    "coco-parts": partial(CocoWriter, parts=True),
    "coco-polygons": partial(CocoWriter, parts=True, polygons=True),
    "coco-panoptic": CocoPanopticWriter,
    "voc": VocWriter,
    "yolo-seg": YoloSegWriter,
    "yolo-semantic": YoloSemanticWriter,
    "nnunet": NnunetWriter,
    "hf": HfWriter,
    "ome-zarr": OmeZarrWriter,
    "ome-zarr-0.4": partial(OmeZarrWriter, version="0.4"),
    "cvat": CvatWriter,
    "labelme": LabelmeWriter,
    "label-studio": LabelStudioWriter,
    "datumaro": DatumaroWriter,
}
"""The formats by name, as the panel and the command line list them."""

_NO_WORD = "unsure pixels belong to no mask"
LOSSES: dict[str, str] = {
    "indexed": "objects are not told apart",
    "coco": f"{_NO_WORD}; a class is one mask, whatever its objects",
    "coco-parts": _NO_WORD,
    "coco-polygons": f"{_NO_WORD}; masks become polygons",
    "coco-panoptic": "unsure pixels are void, as the background is",
    "voc": "images become JPEGs; objects are connected parts, 254 an image at most",
    "yolo-seg": f"{_NO_WORD}; masks become polygons of connected parts",
    "yolo-semantic": "objects are not told apart; ids count from 1",
    "nnunet": "objects are not told apart; ids count from 1",
    "hf": "objects are not told apart",
    "cvat": f"{_NO_WORD}; classes have names and no ids",
    "labelme": "classes have names; no ids and no colours",
    "label-studio": f"{_NO_WORD}; classes have names and no ids",
    "datumaro": f"{_NO_WORD}; ids count from 0",
}
"""What the formats do not hold, to be said before one exports."""

HISTORY = "history"
"""What is written beside a dataset on request: where each pixel came from."""

_WRITERS: dict[str, WriterFactory] = {**FORMATS, HISTORY: HistoryWriter}


def export_dataset(
    items: Iterable[ExportItem],
    classes: Sequence[LabelClass],
    out: str | os.PathLike[str],
    formats: Sequence[str] | str = ("indexed",),
    *,
    overwrite: bool = False,
    split: Split | None = None,
    progress: Progress | None = None,
    more: Mapping[str, WriterFactory] | None = None,
) -> Exported:
    """Write images and labels as a dataset, each format in a folder of its own.

    Everything is written beside its final place, read back, compared pixel by pixel,
    and only then moved into place: an error, a cancel or a full disk leaves `out` as
    it was. `ovam.json` in each folder says what made it, with a hash of every file.

    Parameters
    ----------
    items
        Images with labels; read once, one at a time, so a generator will do.
    classes
        The classes of the labels, also those that no item uses.
    out
        The folder; `out/indexed`, `out/coco` and so on are written.
    formats
        Names in `FORMATS`, and `HISTORY`.
    overwrite
        Replace what earlier exports of these formats wrote in an existing `out`: the
        files that their `ovam.json` lists. All others stay.
    split
        Deal the images to train, validation and test. None keeps each item's own.
    progress
        Called as (done, total) after each item; total is 0 where `items` has no
        length. May raise `Cancelled`.
    more
        Further formats by name, such as a project's own.

    Returns
    -------
    Exported
        `out`, a path with two attributes more: `lowest_iou`, of formats with polygons,
        and `notes`, what else is to be said.

    Raises
    ------
    ValueError
        For an unknown format, classes that a format cannot hold, classes or items
        that do not fit together, an item name that is used twice, and
        (`FolderExistsError`) for an `out` with files in it, a format's folder that no
        export made or in which a file was changed since, or (`FolderInUseError`) one
        that another export writes to. Nothing is written then.
    ExportError
        Where a file reads back differently.
    """
    out = Path(out)
    classes = check_classes(classes)
    formats = [formats] if isinstance(formats, str) else formats
    known: dict[str, WriterFactory] = {**_WRITERS, **(more or {})}
    unknown = [name for name in formats if name not in known]
    if unknown or not formats:
        raise ValueError(f"unknown formats {unknown}; choose from {', '.join(FORMATS)}")
    check_folder(out, overwrite=overwrite)
    with staging_for(out) as staging:
        check_folder(out, overwrite=overwrite)  # another export may have made it
        for name in formats:
            check_ours(out / name)
        existed = out.is_dir()
        new = staging / "new"
        new.mkdir()
        writers = {name: known[name] for name in formats}
        lowest, notes = _write(items, classes, new, writers, split, progress)
        if existed:
            for name in dict.fromkeys(formats):
                replace_folder(out / name, new / name, staging / f"{OLD}{name}")
        else:
            new.rename(out)
    result = Exported(out)
    result.lowest_iou, result.notes = lowest, notes
    return result


def _write(
    items: Iterable[ExportItem],
    classes: Sequence[LabelClass],
    folder: Path,
    formats: Mapping[str, WriterFactory],
    split: Split | None,
    progress: Progress | None,
) -> tuple[dict[str, LowestIou], tuple[str, ...]]:
    writers: dict[str, Writer] = {}
    for name, start in formats.items():
        (folder / name).mkdir()
        writers[name] = start(folder / name, classes)
    ids = frozenset(entry.id for entry in classes)
    total = length_hint(items)
    names: set[str] = set()
    about = []
    checked = _checked(items, ids)
    dealt = checked if split is None else split.deal(checked)
    for done, item in enumerate(dealt, start=1):
        # Some file systems take "Cat.png" and "cat.png" for one file.
        if item.name.casefold() in names:
            raise ValueError(
                f"two items are named {item.name!r}; file names must differ"
            )
        names.add(item.name.casefold())
        for writer in writers.values():
            writer.add(item)
        about.append(describe_item(item))
        if progress is not None:
            progress(done, total)
    if not names:
        raise ValueError("there are no items to export; choose at least one")
    lowest = {}
    notes: list[str] = []
    for name, writer in writers.items():
        found = writer.finish()
        notes += getattr(writer, "notes", ())
        save_index(folder / name, name, classes, about, found)
        if found is not None:
            lowest[name] = found
    return lowest, tuple(notes)


def _checked(items: Iterable[ExportItem], ids: frozenset[int]) -> Iterator[ExportItem]:
    for item in items:
        check_item(item, ids)
        yield item
