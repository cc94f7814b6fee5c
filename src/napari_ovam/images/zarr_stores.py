"""Zarr stores: where one is, how long it may take, and what is wrong with it."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.base.waiting import wait_for
from napari_ovam.images.faults import ImageFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_Any = TypeVar("_Any")

SECONDS = 30.0
"""How long a remote store may take for one answer."""

HEADS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
"""The files of which one makes a folder a group or an array."""

_PIP = "pip install 'napari-ovam[zarr]'"


class StoreError(ImageFileError):
    """A store that cannot be read or written; the message names its place."""


def asked(
    place: str,
    call: Callable[[], _Any],
    *,
    seconds: float = SECONDS,
    progress: Progress = no_progress,
) -> _Any:
    """Return what a call returns that reads from a store; a remote one has a limit."""
    if not is_remote(place):
        return call()
    return wait_for(call, place, seconds=seconds, progress=progress)


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr group; other folders and files are not."""
    with suppress(OSError):
        return any((path / head).is_file() for head in ("zarr.json", ".zgroup"))
    return False


def is_remote(place: str) -> bool:
    """Whether a place is an URL of another computer."""
    return "://" in place and not place.startswith("file://")


def stem_of(place: str) -> str:
    """Return the name of a store without its endings."""
    name = place.rstrip("/").replace("\\", "/").rpartition("/")[2]
    for ending in (".zarr", ".ome"):
        name = name.removesuffix(ending)
    return name or "image"


def zarr_library() -> Any:
    """Return the module zarr; `StoreError` says how to get it."""
    try:
        import zarr
    except ImportError as error:
        raise StoreError(f"OME-Zarr needs the package zarr: {_PIP}") from error
    if int(zarr.__version__.partition(".")[0]) < 3:
        raise StoreError(
            f"OME-Zarr needs zarr 3, and {zarr.__version__} is installed: {_PIP}"
        )
    return zarr


@contextmanager
def named(where: str) -> Iterator[None]:
    """Raise whatever breaks inside, while a store is read, as a `StoreError`."""
    try:
        yield
    except (StoreError, TimeoutError):
        raise
    except ModuleNotFoundError as error:  # of fsspec, for a kind of URL
        raise StoreError(
            f"{where} needs a package: pip install {error.name}"
        ) from error
    except Exception as error:  # zarr, its codecs and fsspec raise any kind
        reason = str(error) or type(error).__name__
        raise StoreError(
            f"{where} is broken, cut off or away ({reason[:200]}): copy or save it "
            "again"
        ) from error
