"""What an importer returns: pictures of a data set and their masks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from napari_ovam.base.hashing import hash_file
from napari_ovam.images.files import read
from napari_ovam.images.pixels import turned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.datasets.class_lists import ListedClass

BACKGROUND_WORDS = frozenset({"background", "_background_", "__background__", "bg"})
"""What lists call the background, in small letters."""

UNSURE = -1
UPRIGHT = 1
"""The EXIF orientation that turns nothing."""


class ImportSourceError(ValueError):
    """A data set that cannot be read; the message names its place."""


class BrokenFileError(ImportSourceError):
    """A file that seems to be of the format, and cannot be read."""


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of one picture."""

    # (H, W) int32: places in the list of classes from 1, 0 for the background, or
    # `UNSURE`.
    places: NDArray[np.int32]
    # (H, W) integers that differ between objects, or None where they are not told
    # apart.
    objects: NDArray[Any] | None = None
    # A sentence for each kind of thing that was not understood, or is not to be seen.
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a data set."""

    # Its place in the data set, with "/" between folders: what it is known by. For
    # masks without a picture, what the data set calls it.
    path: str
    file: Path | None
    # (H, W) of its masks, or None where only reading tells.
    mask_size: tuple[int, int] | None
    read_stored: Callable[[], Masks]  # reads its masks as they are stored
    # Why it has no file.
    missing: str = "its picture is neither in the data set nor here"
    # The EXIF orientation by which its masks are turned, as the picture is.
    turn: int = UPRIGHT
    problems: tuple[str, ...] = ()  # as in `Masks`, known without reading
    # Whether nobody has said what is in it: it becomes a sample without labels.
    unlabelled: bool = False
    # What else a sample made of it keeps in its provenance, as JSON.
    about: Mapping[str, Any] = field(default_factory=dict)
    # The file that speaks of it, by its place in the data set, and its number there.
    record: tuple[str, int] | None = None
    # Returns the file of a picture that its record holds.
    read_bytes: Callable[[], bytes] | None = None

    @property
    def masks_alone(self) -> bool:
        """Whether there are masks of it and no pixels."""
        return self.file is None and self.read_bytes is None

    def read_image(self) -> NDArray[np.uint8]:
        """Return the picture, (H, W, 3) RGB, upright.

        It raises `ImportSourceError` if it has no file; and as
        `napari_ovam.images.files.read`.
        """
        if self.file is not None:
            return read(self.file)
        if self.read_bytes is None:
            raise ImportSourceError(self.missing)
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"{PurePosixPath(self.path).stem[:40]} (embedded)"
            file.write_bytes(self.read_bytes())
            return read(file)

    def sha256(self) -> str:
        """Return the SHA-256 of its file, in hexadecimal; "" if it has none."""
        if self.file is not None:
            return hash_file(self.file)
        if self.read_bytes is not None:
            return hashlib.sha256(self.read_bytes()).hexdigest()
        return ""

    def read_masks(self) -> Masks:
        """Return the masks as they lie on the upright picture."""
        masks = self.read_stored()
        objects = masks.objects
        return Masks(
            turned(masks.places, self.turn),
            None if objects is None else turned(objects, self.turn),
            (*self.problems, *masks.problems),
        )


@dataclass(frozen=True, eq=False)
class Source:
    """A data set."""

    # As they were given to `open_source`.
    form: str
    path: Path
    # In the order of the places in `Masks`; their names differ.
    classes: Sequence[ListedClass]
    pictures: Sequence[Picture]  # ordered by path
    notes: Sequence[str] = ()  # sentences: what was taken for what
    # What was not understood of the data set itself, by the file that holds it.
    problems: dict[str, list[str]] = field(default_factory=dict)
    # Its folder, and the places in it of the files that hold its masks: what is kept,
    # so that it can be written again as it came.
    root: Path | None = None
    originals: tuple[str, ...] = ()
    # What the values of mask files mean: places of classes, as in `Masks`. Colours are
    # red·65536 + green·256 + blue.
    values: Mapping[int, int] = field(default_factory=dict)
