"""What is decided with all pictures of a data set in view: how their masks lie."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_ovam.datasets.importers.source import UPRIGHT
from napari_ovam.images.files import image_size, read_orientation

if TYPE_CHECKING:
    from napari_ovam.datasets.importers.source import Picture, Source


def settle(source: Source) -> Source:
    """Return a data set in order, each picture with the turn that its masks need.

    A mask of the size of the stored pixels is turned with the picture, one of the size
    of the upright picture is not. Where both are one size, the other pictures of the
    data set say which; where none does, it is left as it is, and said.
    """
    stored = upright = 0
    doubtful: list[int] = []  # where a turn keeps the size
    pictures = [replace(p, path=_as_text(p.path)) for p in source.pictures]
    pictures.sort(key=lambda picture: picture.path)
    for number, picture in enumerate(pictures):
        orientation, size = _orientation(picture)
        if orientation == UPRIGHT or picture.mask_size is None:
            continue
        pictures[number] = replace(picture, turn=orientation)
        if orientation < 5 or size[0] == size[1]:
            doubtful.append(number)
        elif picture.mask_size == size:
            upright += 1
            pictures[number] = picture
        else:
            stored += 1
    for number in doubtful:
        lie = "stored" if stored > upright else "turned"
        known = pictures[number]
        if lie == "turned":
            known = replace(known, turn=UPRIGHT)
        if bool(stored) == bool(upright):
            said = (
                f"EXIF turns the picture, and its mask is taken to be of the {lie} "
                "pixels: the sizes do not tell"
            )
            known = replace(known, problems=(*known.problems, said))
        pictures[number] = known
    return replace(source, pictures=pictures)


def _as_text(path: str) -> str:
    """Return a path that is text, the same wherever the data set is imported again.

    Names that the system's encoding does not have come as surrogates of their bytes.
    """
    with suppress(UnicodeEncodeError):  # others, as a JSON may hold
        path = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return path.encode(errors="backslashreplace").decode()


def _orientation(picture: Picture) -> tuple[int, tuple[int, int]]:
    try:
        if picture.file is not None:
            return read_orientation(picture.file), image_size(picture.file)
    except ValueError:  # said when it is read
        pass
    return UPRIGHT, (0, 0)
