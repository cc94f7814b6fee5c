"""The pictures that annotation files name, wherever they lie."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from napari_ovam.datasets.class_lists import whole
from napari_ovam.datasets.importers.search import (
    PICTURES,
    Place,
    kind_of,
    list_around,
    list_files,
    normal,
    pair,
    place_of,
)
from napari_ovam.datasets.importers.source import ImportSourceError, Masks, Picture
from napari_ovam.images.files import image_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Key = tuple[int, int]
"""The number of a JSON, and that of a picture in it."""

_FEW = 8  # files that a name could mean, of which the sizes are looked at


class NamedPictures(NamedTuple):
    """The pictures that a JSON names."""

    place: str  # of the JSON, with "/" between folders
    names: Sequence[str]
    sizes: Sequence[tuple[int, int] | None]  # (H, W), as far as it says them


def make_pictures(
    root: Path,
    files: Sequence[NamedPictures],
    reader: Callable[[Key, tuple[int, int] | None], Callable[[], Masks]],
    problems: list[str],
) -> tuple[list[Picture], list[str]]:
    """Return the pictures that files name, and notes on where they were found.

    They are looked for below a folder, else below the one around it.

    It raises `ImportSourceError` if two files speak of the same picture.

    Parameters
    ----------
    root
        The data set.
    files
        What names pictures.
    reader
        Returns what reads the masks of a picture of some size.
    problems
        Gets a sentence for each folder that cannot be read.
    """
    there = list_files(root, PICTURES, problems)
    base, prefix = root, ""
    notes: list[str] = []
    if not there:
        base, there = list_around(root)
        if there:
            notes = [f"pictures are taken from {base}"]
            prefix = f"{root.resolve().relative_to(base).as_posix()}/"
    moved = [file._replace(place=prefix + file.place) for file in files]
    found, missing = find_pictures(moved, base, there)
    owners: dict[str, str] = {}
    for (number, _), picture in found.items():
        place = files[number].place
        if (other := owners.setdefault(picture, place)) != place:
            raise ImportSourceError(
                f"{other} and {place} both speak of {picture}: give one of them"
            )
    lost = Counter(
        name
        for number, file in enumerate(files)
        for name in {n for i, n in enumerate(file.names) if (number, i) not in found}
    )
    pictures = []
    for number, file in enumerate(files):
        for index, name in enumerate(file.names):
            key = number, index
            where = base / found[key] if key in found else None
            size = file.sizes[index] or size_of_file(where)
            path = found.get(key, name)
            if where is None and lost[name] > 1:  # told apart by their files
                path = (Path(file.place).with_suffix("") / name).as_posix()
            why = missing.get(key, Picture.missing)
            about = Picture(path, where, size, reader(key, size), why)
            pictures.append(replace(about, record=(file.place, index)))
    return pictures, notes


def path_of(name: str) -> str:
    """Return what a file calls a picture as a path with "/" between folders."""
    if url := re.match(r"[A-Za-z][\w+.-]+://", name):
        name = unquote(re.sub(r"[?#].*", "", name[url.end() :]))
    name = re.sub(r"^\s*/?[A-Za-z]:(?=[\\/])", "", name).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "picture"


def read_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Return (H, W) as a file says it; None where it does not."""
    size = whole(height) or 0, whole(width) or 0
    return size if min(size) > 0 else None


def find_pictures(
    jsons: Sequence[NamedPictures], base: Path, there: Sequence[str]
) -> tuple[dict[Key, str], dict[Key, str]]:
    """Return the files of pictures, each JSON by itself; of others why they have none.

    A file that another JSON is likelier to speak of is none of a name without folders.

    Parameters
    ----------
    jsons
        What names them.
    base, there
        The folder, and the places of the pictures in it.
    """
    found: dict[Key, str] = {}
    missing: dict[Key, str] = {}
    places = {file: place_of(file) for file in there}
    likeliest = {folder: _likeliest(folder, jsons) for folder in map(_folder, there)}
    for number, json in enumerate(jsons):
        common = _common([place_of(name).parts[:-1] for name in json.names])
        names = {(number, index): name for index, name in enumerate(json.names)}
        for key, file in _find(json, names, common, base, places, missing).items():
            folder = _folder(file)
            other = likeliest[folder]
            if place_of(names[key], without=common).core or (
                _affinity(folder, json.place) >= _affinity(folder, other)
            ):
                found[key] = file
            else:
                missing[key] = (
                    f"{file} has its name, and belongs to {other}: if it is meant, "
                    f"import {json.place} alone"
                )
    return found, missing


def _find(
    json: NamedPictures,
    names: Mapping[Key, str],
    common: int,
    base: Path,
    places: Mapping[str, Place],
    missing: dict[Key, str],
) -> dict[Key, str]:
    """Find the pictures that a JSON names; `common` first folders do not count."""
    own = _folder(json.place)
    if not any(kind_of(name) == "mask" for name in json.names):
        places = {
            file: place
            for file, place in places.items()
            if kind_of(file) != "mask" or (own and file.startswith(own))
        }
    wanted = {key: place_of(name, without=common) for key, name in names.items()}
    hits = _pair(json, base, wanted, places, missing)
    # Some programs quote names as in addresses, others leave the ending away.
    left = {key: name for key, name in names.items() if key not in hits}
    quoted = {key: unquote(name) for key, name in left.items() if "%" in name}
    bare = {key: name for key, name in left.items() if not _ends(name)}
    stems = {f: place_of(f, Path(f).stem) for f in places} if bare else {}
    for again, under in ((quoted, places), (bare, stems)):
        taken = set(hits.values())
        free = {file: place for file, place in under.items() if file not in taken}
        other = {key: place_of(name, without=common) for key, name in again.items()}
        hits |= _pair(json, base, other, free, missing)
    return hits


def size_of_file(file: Path | None) -> tuple[int, int] | None:
    """Return (H, W) of the upright picture; None where it cannot be read."""
    try:
        return None if file is None else image_size(file)
    except ValueError:  # said when it is read
        return None


def _pair(
    json: NamedPictures,
    base: Path,
    wanted: Mapping[Key, Place],
    files: Mapping[str, Place],
    missing: dict[Key, str],
) -> dict[Key, str]:
    """Pair what is wanted with files: by their places, else by the size in the JSON."""
    hits, unclear = pair(wanted, files, partial(_likelier, json.place))
    sized: dict[Key, str] = {}
    for key, could in unclear.items():
        size = json.sizes[key[1]]
        fits = (
            [f for f in could if size_of_file(base / f) in (size, size[::-1])]
            if size and len(could) <= _FEW
            else ()
        )
        if len(fits) == 1:
            sized[key] = fits[0]
        else:
            which = " or ".join(could[:3])
            missing[key] = f"its picture could be {which}: it is not clear which"
    count = Counter(sized.values())
    return hits | {key: file for key, file in sized.items() if count[file] == 1}


def _likelier(json: str, _: Key, file: str) -> int:
    return int(4 * _affinity(_folder(file), json)) + (kind_of(file) != "mask")


def _likeliest(folder: str, jsons: Sequence[NamedPictures]) -> str:
    return max((j.place for j in jsons), key=lambda place: _affinity(folder, place))


@lru_cache(maxsize=65_536)
def _affinity(folder: str, json: str) -> float:
    """Return how likely a JSON speaks of the files of a folder.

    The nearer to the JSON, then if one is named after the other.
    """
    words = _words(Path(json).stem) - {"instances"}
    parts = [_words(part) for part in folder.split("/")[:-1]]
    named = (
        any(part and part <= words for part in parts)
        or any(
            min(len(one), len(other)) > 2 and _starts(one, other)
            for part in parts
            for one in part
            for other in words
        )
        / 2
    )
    places = [tuple(place.split("/")[:-1]) for place in (folder, json)]
    return 2 * _common(places) + named


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", normal(name))) - {""}


def _ends(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURES


def _starts(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _folder(place: str) -> str:
    """Return the folder of a place, with "/" behind it; "" for the first one."""
    folder, slash, _ = place.rpartition("/")
    return folder + slash


def _common(folders: Sequence[tuple[str, ...]]) -> int:
    """Return how many folders all paths begin with."""
    if not folders:
        return 0
    first, last = min(folders), max(folders)
    return next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(len(first), len(last)),
    )
