"""Which files of a data set are masks, and which picture each of them belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_ovam.base.words import shorten
from napari_ovam.datasets.importers.search import (
    JPEGS,
    MASKS,
    PICTURES,
    kind_of,
    list_around,
    list_files,
    pair,
    place_of,
    stem_of_mask,
    stem_of_picture,
)
from napari_ovam.datasets.importers.source import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_ovam.datasets.importers.source import Masks

# How a mask may be called after its picture: "a.jpg.png", "a.png", "a_mask.png".
_NAMES = (
    (lambda mask: Path(mask).stem, lambda picture: Path(picture).name),
    (lambda mask: Path(mask).stem, lambda picture: Path(picture).stem),
    (stem_of_mask, stem_of_picture),
)


def find_masks(root: Path, problems: list[str]) -> tuple[list[str], list[str]]:
    """Return the places of masks and pictures in a folder.

    A mask is what lies in a folder with a word such as masks or labels, else what has
    such a word in its name beside a picture of that name, else all that is not in a
    folder of pictures.
    """
    files = list_files(root, PICTURES | MASKS, problems)
    masks = [file for file in files if kind_of(file) == "mask"]
    if not masks:
        stems = {file.rpartition("/")[0] + "/" + Path(file).stem for file in files}
        masks = [
            file
            for file in files
            if stem_of_mask(file) != Path(file).stem
            and f"{file.rpartition('/')[0]}/{stem_of_mask(file)}" in stems
        ]
    if not masks:
        masks = [file for file in files if not kind_of(file)]
    there = set(masks)
    pictures = [f for f in files if f not in there and suffix(f) in PICTURES]
    blurred = [file for file in masks if suffix(file) in JPEGS]
    if blurred:
        problems.append(
            f"masks as JPEG are not read, which blurs ids: save {shorten(blurred)} as "
            "PNG"
        )
    return [file for file in masks if suffix(file) in MASKS], pictures


def join(
    root: Path,
    masks: Sequence[str],
    pictures: Sequence[str],
    size_of: Callable[[Path], tuple[int, int] | None],
    reader: Callable[[str], Callable[[], Masks]],
    notes: list[str],
) -> list[Picture]:
    """Give each mask the picture that it belongs to, or a reason why it has none.

    Parameters
    ----------
    root
        The data set.
    masks, pictures
        Their places in it.
    size_of
        Returns (H, W) of a mask's file.
    reader
        Returns what reads a mask, by its place.
    notes
        Gets a sentence for pictures that have no mask.
    """
    base, prefix = root, ""
    if not pictures:
        base, files = list_around(root)
        pictures = [f for f in files if kind_of(f) == "picture"]
        prefix = f"{root.name}/" if pictures else ""
    found: dict[str, str] = {}
    unclear: dict[str, list[str]] = {}
    for name_of_mask, name_of_picture in _NAMES:
        taken = set(found.values())
        more, doubtful = pair(
            {
                mask: place_of(prefix + mask, name_of_mask(mask))
                for mask in masks
                if mask not in found and mask not in unclear
            },
            {p: place_of(p, name_of_picture(p)) for p in pictures if p not in taken},
            lambda _, file: int(kind_of(file) == "picture"),
        )
        found |= more
        unclear |= doubtful
    if left := sorted(set(pictures) - set(found.values())):
        notes.append(f"{len(left)} pictures have no mask: {shorten(left)}")
    return [
        Picture(
            found.get(mask, mask),
            base / found[mask] if mask in found else None,
            size_of(root / mask),
            reader(mask),
            f"its picture could be {' or '.join(unclear[mask][:3])}: it is not clear "
            "which"
            if mask in unclear
            else Picture.missing,
            record=(mask, 0),
        )
        for mask in masks
    ]


def suffix(path: str) -> str:
    """Return the ending of a path in small letters."""
    return Path(path).suffix.lower()
