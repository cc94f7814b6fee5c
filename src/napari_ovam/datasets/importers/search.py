"""Files of a data set, found by searching: no layout is taken for granted."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from napari_ovam.images.files import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from typing import TypeVar

    _W = TypeVar("_W", bound=Hashable)

JPEGS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"})
PICTURES = JPEGS | {*PICTURE_SUFFIXES, ".pnm"}
MASKS = PICTURES - JPEGS - {".avif", ".jp2"} | {".npy"}
_PROJECT = "project.json"  # a project of ours is no part of a data set
_MOST_FILES = 1_000_000
_MOST_PAIRS = 250_000
# Words of folders and files, after a split at capitals; the last one in a name counts.
_MASK_WORD = (
    r"masks?|labels?(?:ids?|tr|ts)?|\w*annots?|annotations?|anns?|gt(?:fine)?s?|"
    r"groundtruths?|segs?|segm?|segmentations?|segmaps?|targets?"
)
_PICTURE_WORD = r"images?(?:tr|ts)?|imgs?|photos?|pictures?|pics?|inputs?|rgb|frames?"
_KIND = re.compile(
    rf"(?<![a-z])(?:(?P<mask>{_MASK_WORD})|(?P<picture>{_PICTURE_WORD}))(?![a-z])"
)
_MASK_AFFIX = re.compile(
    rf"^(?:{_MASK_WORD})[-_. ]+(?=.)|(?<=.)(?:[-_. ]+(?:{_MASK_WORD}))+$", re.IGNORECASE
)
_PICTURE_AFFIX = re.compile(
    rf"(?<=.)[-_. ]+(?:{_PICTURE_WORD}|leftimg8bit|0000)$", re.IGNORECASE
)

Kind = Literal["mask", "picture", ""]


class Place(NamedTuple):
    """Where a file is, or where a data set says it is."""

    folders: tuple[str, ...]  # in normal form
    core: tuple[str, ...]  # those that say more than what is in them
    parts: tuple[str, ...]  # all folders and the name as they stand
    name: str


def list_files(root: Path, suffixes: Iterable[str], problems: list[str]) -> list[str]:
    """Return the places of files below a folder, sorted, with "/" between folders.

    Links are followed, real folders first, each folder once: by the name of its only
    link if that alone says what is in it. Hidden files, those that macOS leaves beside
    others, and projects of this program are left out.

    Parameters
    ----------
    root
        The folder.
    suffixes
        Endings in small letters; capitals are found as well.
    problems
        Gets a sentence for each folder that cannot be read.
    """
    wanted, found = frozenset(suffixes), []
    seen: dict[Path, str] = {}
    names: dict[str, list[str]] = defaultdict(list)  # of links, by the real place
    folders = [(root, "")]
    links: list[tuple[Path, str]] = []
    while folders or links:
        folder, place = folders.pop() if folders else links.pop(0)
        try:
            real = folder.resolve()
            if (there := seen.get(real)) is not None:
                names[there].append(place)
                continue
            entries = sorted(folder.iterdir())
        except (OSError, RuntimeError) as error:
            problems.append(f"the folder {place or '.'} cannot be read: {error}")
            continue
        seen[real] = place
        if folder != root and any(entry.name == _PROJECT for entry in entries):
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(
                    (entry, f"{place}{entry.name}/")
                )
            elif entry.suffix.lower() in wanted and entry.is_file():
                found.append(place + entry.name)
        if len(found) > _MOST_FILES:
            problems.append(f"only the first {_MOST_FILES} files were looked at")
            break
    for there, (link, *others) in names.items():
        if not others and kind_of(link) and not kind_of(there) and there not in link:
            found = [
                link + file[len(there) :] if file.startswith(there) else file
                for file in found
            ]
    return sorted(found)


def list_around(root: Path) -> tuple[Path, list[str]]:
    """Return the folder around a part of a data set, and the pictures below it.

    All of them where the part is a folder such as annotations; else those in folders
    such as images, as others may be other data sets. The person's home is none.
    """
    home = Path.home().resolve()
    for folder in (root.resolve(), root.resolve().parent):
        around = folder.parent
        if around in (home, *home.parents):
            break
        found = list_files(around, PICTURES, [])
        if kind_of_folder(folder.name) != "mask":
            found = [f for f in found if kind_of_folder(f.split("/")[0]) == "picture"]
        if found:
            return around, found
    return root, []


@lru_cache(maxsize=65_536)
def normal(text: str) -> str:
    """Return a name as two are compared: in small letters, one form, without spaces."""
    text = unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", text).strip()


def place_of(path: str, name: str | None = None, *, without: int = 0) -> Place:
    """Return the place that a path says, perhaps under another name.

    Parameters
    ----------
    path
        With "/" between folders; "." and ".." are left out.
    name
        By default the path's last part.
    without
        How many of the first folders do not count.
    """
    *folders, last = path.split("/")
    folders = [f for f in folders if f not in ("", ".", "..")]
    name = last if name is None else name
    parts, folders = (*folders, name), folders[without:]
    core = (f for f in folders if f != "data" and not kind_of_folder(f))
    return Place(tuple(map(normal, folders)), tuple(map(normal, core)), parts, name)


@lru_cache(maxsize=65_536)
def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()


@lru_cache(maxsize=65_536)
def kind_of_folder(name: str) -> Kind:
    """Return what a folder of that name holds, as far as its words say."""
    words = re.sub(r"\d+", " ", _words(name)).replace("_", " ")
    last: Kind = ""
    for match in _KIND.finditer(words):
        last = "mask" if match["mask"] else "picture"
    return last


def kind_of(path: str) -> Kind:
    """Return what a file is as its folders say, the nearest with such a word first."""
    kinds = (kind_of_folder(folder) for folder in reversed(path.split("/")[:-1]))
    return next(filter(None, kinds), "")


def stem_of_mask(path: str) -> str:
    """Return the stem of a mask's name without what says that it is one."""
    stem = Path(path).stem
    return _MASK_AFFIX.sub("", stem) or stem


def stem_of_picture(path: str) -> str:
    """Return the stem of a picture's name without what says that it is one."""
    stem = Path(path).stem
    return _PICTURE_AFFIX.sub("", stem) or stem


def pair(
    wanted: Mapping[_W, Place],
    files: Mapping[str, Place],
    prefer: Callable[[_W, str], int] = lambda _, __: 0,
) -> tuple[dict[_W, str], dict[_W, list[str]]]:
    """Give each of what is wanted its own file, where it is clear which one it is.

    Names are the same without case and Unicode form. Folders may lack on one side, but
    do not contradict each other. Where several fit, the one with more folders in common
    is taken, then the one of exactly the same names, then the preferred one; and only
    if nothing else that is wanted fits it as well.

    It returns the file of each; the files that each could have where that is not clear.

    Parameters
    ----------
    wanted, files
        Their places.
    prefer
        Which file is likelier: the larger, the more.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for file, place in files.items():
        by_name[normal(place.name)].append(file)
    groups: dict[str, list[_W]] = defaultdict(list)
    for each, place in wanted.items():
        groups[normal(place.name)].append(each)
    found: dict[_W, str] = {}
    unclear: dict[_W, list[str]] = {}
    for name, those in groups.items():
        here = by_name.get(name, [])
        exact = _exact({w: wanted[w] for w in those}, {f: files[f] for f in here})
        found |= exact
        left = [w for w in those if w not in exact]
        taken = set(exact.values())
        free = [f for f in here if f not in taken]
        if len(left) * len(free) > _MOST_PAIRS:
            unclear |= dict.fromkeys(left, free)
            continue
        several = len({wanted[w].folders for w in those}) > 1
        scores = {
            w: {
                f: (*fit, prefer(w, f))
                for f in free
                if (fit := _fit(wanted[w], files[f], several=several)) is not None
            }
            for w in left
        }
        found |= _assign(scores)
        unclear |= {w: sorted(row) for w, row in scores.items() if row}
    return found, unclear


def _exact(wanted: Mapping[_W, Place], files: Mapping[str, Place]) -> dict[_W, str]:
    """Pair what is at one place on both sides, where it is the only one there."""
    there: dict[Hashable, list[str]] = defaultdict(list)
    for file, place in files.items():
        there[place.core, place.name].append(file)
    those: dict[Hashable, list[_W]] = defaultdict(list)
    for each, place in wanted.items():
        if place.core:
            those[place.core, place.name].append(each)
    return {
        who[0]: there[place][0]
        for place, who in those.items()
        if len(who) == 1 and len(there.get(place, ())) == 1
    }


def _fit(one: Place, other: Place, *, several: bool) -> tuple[int, int] | None:
    """Return how well two places agree; None where they contradict each other.

    With `several`, folders tell things of that name apart: some have to agree.
    """
    same = (a == b for a, b in zip(one.parts[::-1], other.parts[::-1], strict=False))
    exact = sum(takewhile(bool, same))
    best = -1
    for a, b in ((one.folders, other.folders), (one.core, other.core)):
        common = min(len(a), len(b))
        if a[len(a) - common :] != b[len(b) - common :]:
            continue
        if several and common < len(a) and not common:
            continue
        best = max(best, common)
    return None if best < 0 else (best, exact)


def _assign(scores: dict[_W, dict[str, tuple[int, int, int]]]) -> dict[_W, str]:
    """Take pairs that are the best for both, again and again; `scores` shrinks."""
    found: dict[_W, str] = {}
    while True:
        columns: dict[str, list[tuple[tuple[int, int, int], _W]]] = defaultdict(list)
        for each, row in scores.items():
            for file, score in row.items():
                columns[file].append((score, each))
        hits = {}
        for each, row in scores.items():
            best = [f for f, score in row.items() if score == max(row.values())]
            if len(best) != 1:
                continue
            rivals = [w for s, w in columns[best[0]] if s >= row[best[0]]]
            if rivals == [each]:
                hits[each] = best[0]
        if not hits:
            return found
        found |= hits
        gone = set(hits.values())
        for each in hits:
            del scores[each]
        for row in scores.values():
            for file in gone & row.keys():
                del row[file]
