"""What an export says of itself: how near polygons come, and what is in the folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from napari_ovam import __version__
from napari_ovam.base.hashing import hash_file

from .dataset import ExportItem, LabelClass, save_text
from .polygons import LowestIou

INDEX = "ovam.json"
"""In the folder of each format: what `verify` compares with, and may be replaced."""

PROGRAM = "napari-ovam"
BROKEN = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)

if TYPE_CHECKING:
    _Path = Path
else:  # up to Python 3.11 only the system's own class can be derived from
    _Path = type(Path())


class Exported(_Path):
    """The folder of an export, a path like any other.

    Attributes
    ----------
    lowest_iou
        Of the formats that hold polygons, by their names. All others are exact.
    notes
        Sentences: what was left out.
    """

    lowest_iou: Mapping[str, LowestIou] = MappingProxyType({})
    notes: tuple[str, ...] = ()


def describe_item(item: ExportItem) -> dict[str, Any]:
    """Return what the index says of an item."""
    about: dict[str, Any] = {"name": item.name}
    if item.ignored:
        about["ignore_pixels"] = item.ignored
    if item.split:
        about["split"] = item.split
    if item.provenance is not None:
        about["provenance"] = dict(item.provenance)
    return about


def save_index(
    folder: Path,
    form: str,
    classes: Sequence[LabelClass],
    items: Sequence[Mapping[str, Any]],
    lowest: LowestIou | None,
) -> None:
    """Write what made a dataset, and the SHA-256 and size of each file in it.

    It raises `ExportError` if it reads back differently; `ValueError` if the provenance
    of an item is no JSON.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            place = path.relative_to(folder).as_posix()
            files[place] = {"sha256": hash_file(path), "bytes": path.stat().st_size}
    about = {
        "program": f"{PROGRAM} {__version__}",
        "format": form,
        "classes": [asdict(entry) for entry in classes],
        "lowest_iou": None if lowest is None else asdict(lowest),
        "items": list(items),
        "files": files,
    }
    try:
        text = json.dumps(about, ensure_ascii=False, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the provenance of an item is not JSON: {error}") from error
    save_text(folder / INDEX, text)


def read_listed_files(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the SHA-256 and size of each file that an export wrote, by its place.

    It raises one of `BROKEN` where no export says so in the folder.
    """
    content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    if not str(content["program"]).startswith(PROGRAM):
        raise ValueError(f"it is of {content['program']!r}")
    return {
        str(place): (str(about["sha256"]), int(about["bytes"]))
        for place, about in content["files"].items()
    }


def listed_files(folder: Path) -> dict[str, tuple[str, int]] | None:
    """Return what `read_listed_files` does; None where no export says so."""
    try:
        return read_listed_files(folder)
    except BROKEN:
        return None


def is_as_listed(path: Path, listed: tuple[str, int]) -> bool:
    """Whether a file still has its SHA-256 and size."""
    digest, size = listed
    return path.stat().st_size == size and hash_file(path) == digest
