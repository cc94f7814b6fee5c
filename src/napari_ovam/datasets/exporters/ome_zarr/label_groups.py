"""Labels beside the picture that they are of, in its own store.

A group is written under another name in the store, read back, and moved into place. One
that somebody else wrote, or changed since, stays: the group itself says what we wrote.
"""

from __future__ import annotations

import glob
import json
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam import __version__
from napari_ovam.base.hashing import hash_file
from napari_ovam.base.names import check_name
from napari_ovam.base.words import shorten
from napari_ovam.datasets.exporters.report import PROGRAM
from napari_ovam.datasets.exporters.staging import FolderExistsError
from napari_ovam.images.ome_zarr_write import (
    About,
    Frame,
    change_metadata,
    list_labels,
    write_pyramid,
)
from napari_ovam.images.zarr_stores import StoreError, zarr_library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam.images.ome_zarr import OmeImage

_OURS = "napari-ovam"
_HEADS = ("zarr.json", ".zattrs")
_LEFT = 3600.0  # seconds after which nobody writes to a folder any more


def write_label_group(
    image: OmeImage,
    name: str,
    pixels: NDArray[Any],
    meaning: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write labels into the store of their picture, as `labels/NAME`; return the place.

    They get the levels of the picture. A full disk or an error leaves the store as it
    was.

    It raises `FolderExistsError` if a group of that name is there that was not written
    here or was changed since, or that was and `overwrite` is False; `StoreError` if the
    store is remote, or the labels read back differently; `OSError` if it cannot be
    written.

    Parameters
    ----------
    image
        Of `open_images`.
    name
        Of the group.
    pixels
        Integers, of the shape of one of its levels without the channels.
    meaning
        `image-label`: see `describe_classes`.
    overwrite
        Replace what was written here before.
    """
    target = label_place(image, name)
    labels, picture = target.parent, target.parents[1]
    _clear(picture, name, target)
    check_label_group(target, overwrite=overwrite)
    known = image.label_names()
    mark = f".{name}.{uuid.uuid4().hex}"
    work = picture / f"{mark}.tmp"  # beside its place, on the same disk
    try:
        frame = label_frame(image)
        about = About(name, {"image-label": dict(meaning)})
        list_labels(work, [name], image.version)
        write_pyramid(work / name, pixels, frame, about, image.version)
        _sign(work / name)
        if labels.exists():
            _replace(target, work / name, picture / f"{mark}.old")
            if name not in known:
                change_metadata(labels, image.version, {"labels": [*known, name]})
        else:
            work.rename(labels)
        _consolidate(picture)
    except BaseException:
        for pause in (0, 0.1, 0.5):  # threads of zarr may still write to it
            time.sleep(pause)
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return target


def remove_label_group(image: OmeImage, name: str) -> None:
    """Delete labels that were written here, if they are there.

    To be called after `check_label_group`, which says whether they may be.
    """
    target, known = label_place(image, name), image.label_names()
    if target.exists():
        left = [each for each in known if each != name]
        change_metadata(target.parent, image.version, {"labels": left})
        shutil.rmtree(target)
        _consolidate(target.parents[1])


def label_place(image: OmeImage, name: str) -> Path:
    """Return where the labels of a picture are, or would be.

    It raises `StoreError` if that is not on a disk; `ValueError` if it is no file name.
    """
    if image.remote:
        raise StoreError(
            f"{image.where} is remote: copy it to a disk to write labels into it"
        )
    check_name(name)
    return Path(image.place.removeprefix("file://"), image.path, "labels", name)


def check_label_group(folder: Path, *, overwrite: bool) -> None:
    """Raise `FolderExistsError` where a group must not be replaced."""
    if not folder.exists():
        return
    said = _read_attributes(folder).get(_OURS)
    if not isinstance(said, Mapping):
        raise FolderExistsError(
            f"{folder} was not written by {PROGRAM}: it stays. Choose another name "
            "for the labels"
        )
    listed = said.get("files")
    listed = dict(listed) if isinstance(listed, Mapping) else {}
    now = _hashes(folder)
    changed = [
        place for place in {**listed, **now} if listed.get(place) != now.get(place)
    ]
    if changed:
        raise FolderExistsError(
            f"{shorten(sorted(changed), 3)} in {folder} changed since "
            f"{PROGRAM} wrote it. It stays: choose another name for the labels, or "
            "move it away"
        )
    if not overwrite:
        raise FolderExistsError(
            f"{folder} is there already: allow overwriting, or choose another name for "
            "the labels"
        )


def label_frame(image: OmeImage) -> Frame:
    """Return where labels of a picture lie: its levels, without the channels."""
    keep = [n for n in range(len(image.axes)) if n != image.axis("channel")]
    axes = tuple(image.axes[number] for number in keep)
    return Frame(axes, tuple(each.on_axes(keep) for each in image.levels))


def _replace(target: Path, new: Path, old: Path) -> None:
    """Move `new` to `target`; what was there comes back where that fails."""
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _clear(picture: Path, name: str, target: Path) -> None:
    """Put back what a killed program had not replaced yet; delete what it left."""
    for old in picture.glob(f".{glob.escape(name)}.*.old"):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    for left in picture.glob(f".{glob.escape(name)}.*.tmp"):
        if time.time() - left.stat().st_mtime > _LEFT:
            shutil.rmtree(left, ignore_errors=True)


def _consolidate(picture: Path) -> None:
    """Bring copies of the metadata in groups above the labels up to date."""
    zarr = zarr_library()
    for folder in (picture, *picture.parents):
        if not any((folder / head).is_file() for head in ("zarr.json", ".zgroup")):
            return
        consolidated = (folder / ".zmetadata").is_file()
        with suppress(OSError, ValueError, AttributeError):
            content = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
            consolidated = consolidated or bool(content.get("consolidated_metadata"))
        if consolidated:
            zarr.consolidate_metadata(folder)


# -- what we wrote -------------------------------------------------------------------


def _sign(folder: Path) -> None:
    """Write into a group what is in it, to know it again."""
    head = next(folder / name for name in _HEADS if (folder / name).is_file())
    content = json.loads(head.read_text(encoding="utf-8"))
    attributes = content if head.name == ".zattrs" else content["attributes"]
    attributes[_OURS] = {
        "program": f"{PROGRAM} {__version__}",
        "files": _hashes(folder),
    }
    head.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_attributes(folder: Path) -> Mapping[str, Any]:
    for name in _HEADS:
        with suppress(OSError, ValueError, AttributeError):
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            found = content if name == ".zattrs" else content.get("attributes")
            return found if isinstance(found, Mapping) else {}
    return {}


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files of a group, its head without our own word."""
    found = {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder
    }
    said = {k: v for k, v in _read_attributes(folder).items() if k != _OURS}
    text = json.dumps(said, sort_keys=True)
    return {**found, "attributes": sha256(text.encode()).hexdigest()}
