"""Ids of masks as they stand in files: nothing is scaled, cut or wrapped on the way."""

from __future__ import annotations

import tokenize
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.ids import IGNORE
from napari_ovam.base.words import shorten
from napari_ovam.datasets.importers.source import UNSURE, ImportSourceError
from napari_ovam.images.faults import MAX_PIXELS
from napari_ovam.images.files import image_size, is_tiff, opened, page_count
from napari_ovam.images.png import stored_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_BROKEN_ARRAY = (ValueError, OSError, EOFError, SyntaxError, tokenize.TokenError)
_TABLE = 1 << 16
_MOST_UNKNOWN = 256


def read_mask(path: Path) -> NDArray[np.int64]:
    """Read the ids of a mask, (H, W).

    It raises `ImportSourceError` or `ImageFileError` if it is broken, in colour, of
    several pages, or holds values that are no ids.

    Parameters
    ----------
    path
        A grey or palette picture of up to 32 bits, one in colour whose channels are
        equal, or a NumPy array of integers, bool or whole floats.
    """
    values = _array(path) if path.suffix.lower() == ".npy" else _pixels(path)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != 2:
        raise ImportSourceError(
            f"{path.name} is {values.shape}: a mask is one (H, W) channel of ids"
        )
    if not values.size:
        raise ImportSourceError(f"{path.name} is {values.shape}: it holds no pixel")
    if values.dtype.kind == "f":
        odd = ~np.isfinite(values) | (np.round(values) != values)
        if odd.any():
            bad = values[odd][0]
            raise ImportSourceError(
                f"{path.name} holds {bad:g}: ids are whole numbers, so these may be "
                "probabilities or another picture"
            )
        if np.abs(values).max() > 2**53:
            raise ImportSourceError(f"{path.name} holds ids beyond 2^53")
    elif values.dtype.kind not in "iub":
        raise ImportSourceError(f"{path.name} holds {values.dtype}, which are no ids")
    if values.dtype == np.uint64 and values.max() > 2**63 - 1:
        raise ImportSourceError(f"{path.name} holds the id {values.max()}")
    return values.astype(np.int64)


def mask_size(path: Path) -> tuple[int, int] | None:
    """Return (H, W) of a mask; None where it cannot be read."""
    try:
        if path.suffix.lower() == ".npy":
            height, width = read_mask(path).shape
            return height, width
        if is_tiff(path):
            return image_size(path)
        with opened(path) as picture:
            return picture.height, picture.width
    except ValueError:  # said when it is read
        return None


def values_of(ids: NDArray[np.int64]) -> dict[int, int]:
    """Return how many pixels each id has, by id."""
    if ids.size and ids.min() >= 0 and ids.max() < _TABLE:
        count = np.bincount(ids.ravel())
        return {int(i): int(count[i]) for i in np.flatnonzero(count)}
    found, count = np.unique(ids, return_counts=True)
    return dict(zip(found.tolist(), count.tolist(), strict=True))


def places_of(
    ids: NDArray[np.int64], known: Mapping[int, int], unknown: int
) -> tuple[NDArray[np.int32], dict[int, int]]:
    """Return the place of each pixel, and the ids that have none with their pixels.

    Parameters
    ----------
    ids
        (H, W).
    known
        Places by id.
    unknown
        The place of all other ids.
    """
    count = values_of(ids)
    found = np.array(sorted(count), np.int64)
    table = np.array([known.get(i, unknown) for i in found.tolist()], np.int32)
    places = table[np.searchsorted(found, ids)] if count else ids.astype(np.int32)
    return places, {i: n for i, n in count.items() if i not in known}


def find_places(
    path: Path,
    values: NDArray[np.int64],
    known: Mapping[int, int],
    what: str = "ids",
    shown: Callable[[int], object] = int,
    *,
    spoken: bool = False,
) -> tuple[NDArray[np.int32], list[str]]:
    """Return the places of a mask's values, (H, W), and what is to be said of them.

    It raises `ImportSourceError` if they are nearly all of no class.

    Parameters
    ----------
    path, values
        The mask's file, and what it holds.
    known
        Places by value; others are unsure.
    what, shown
        What values are called, and how one is shown.
    spoken
        Whether it was said that 255 means unsure.
    """
    places, unknown = places_of(values, known, UNSURE)
    some = bool((places > 0).any())
    if unknown:
        few, pixels = shorten(map(shown, unknown)), sum(unknown.values())
        said = f"{what} without a class: {few} ({pixels} pixels)"
        if not some or len(unknown) > _MOST_UNKNOWN:
            raise ImportSourceError(f"{path.name} holds {said}")
        return places, [f"{said}, which are unsure ({IGNORE}) now"]
    unsure = int((places == UNSURE).sum())
    if some or spoken or not unsure:
        return places, []
    return places, [f"no class: {unsure} pixels are {IGNORE}, which means unsure"]


def _array(path: Path) -> NDArray[Any]:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ImportSourceError(f"{path.name} holds several arrays: give one")
        if values.size > MAX_PIXELS:
            raise ImportSourceError(
                f"{path.name} is {values.shape}: {MAX_PIXELS // 10**6} million pixels "
                "are the limit"
            )
        return np.array(values)
    except ImportSourceError:
        raise
    except _BROKEN_ARRAY as error:
        raise ImportSourceError(f"{path.name} is no NumPy array: {error}") from error


def _pixels(path: Path) -> NDArray[Any]:
    if page_count(path) > 1:
        raise ImportSourceError(f"{path.name} holds several pages: a mask is one")
    if is_tiff(path):
        from napari_ovam.images.tiff import read_values  # the panel starts without it

        if (values := read_values(path)) is not None:
            return _grey(path, values)
    with opened(path) as picture:
        pixels = stored_values(path, picture)
        if pixels.ndim == 3 and picture.mode not in ("LA", "RGB", "RGBA"):
            pixels = np.asarray(picture.convert("RGBA"))
    return _grey(path, pixels) if pixels.ndim == 3 else pixels


def _grey(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the only channel of (H, W, channels), the last perhaps for opacity."""
    count = pixels.shape[2]
    colours = pixels[..., : count - (count in (2, 4))]
    if (colours != colours[..., :1]).any():
        raise ImportSourceError(
            f"{path.name} is in colour: a mask is one channel of ids; where "
            "colours are classes, choose 'voc'"
        )
    alpha = pixels[..., -1]
    if count in (2, 4) and colours[alpha == 0].any():
        raise ImportSourceError(
            f"{path.name} has ids where it is transparent: save it without that"
        )
    if count in (2, 4) and not np.ptp(colours) and np.ptp(alpha):
        raise ImportSourceError(
            f"{path.name} holds {colours.flat[0]} everywhere, and more or less "
            "transparency: if that is the mask, save it as grey"
        )
    return colours[..., 0]


def doubt_palette(path: Path, count: Mapping[int, int]) -> list[str]:
    """Return a sentence where the colours of a palette contradict its ids.

    Programs that make palettes smaller give the background another id than 0.
    """
    if path.suffix.lower() == ".npy":
        return []
    colours = None
    with suppress(ValueError), opened(path) as picture:
        colours = picture.getpalette("RGB") if picture.mode == "P" else None
    painted = np.array(colours or [], np.uint8).reshape(-1, 3)
    black = [i for i in count if 0 <= i < len(painted) and not painted[i].any()]
    if not len(painted) or not painted[0].any() or 0 not in count or not black:
        return []
    return [
        f"its palette paints {black[0]} black and 0 not: ids are read as they stand; "
        "where colours are classes, choose 'voc'"
    ]
