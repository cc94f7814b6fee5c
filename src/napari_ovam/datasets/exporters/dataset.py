"""What is exported: items and classes, checked before a file is written."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_ovam.base.ids import BACKGROUND, IGNORE, is_class_id
from napari_ovam.base.names import check_name
from napari_ovam.datasets.class_colors import Colour, is_color

if TYPE_CHECKING:
    from .polygons import LowestIou

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LabelClass:
    """A class of the labels.

    Parameters
    ----------
    id
        The value of its pixels, 1 to 65535, not 255 (ignore). 0 is the background.
    name
        Any text; it is written to JSON, never used as a path.
    color
        (red, green, blue), 0 to 255 each, or None.
    thing
        Whether its connected parts are objects to count ("thing" in panoptic
        formats) or one region ("stuff": sky, grass).
    """

    id: int
    name: str
    color: tuple[int, int, int] | None = None
    thing: bool = True


@dataclass(frozen=True, eq=False)
class ExportItem:
    """An image and its labels.

    Parameters
    ----------
    name
        The name of the files to write, without an ending; unique in a dataset.
    image
        (H, W, 3) uint8 RGB.
    labels
        (H, W) integers: class ids, 0 = background, 255 = ignore.
    split
        "train", "val" or "test"; "" where the dataset is not split.
    instances
        (H, W) integers: which object each pixel of a class belongs to, 0 elsewhere;
        an object has one class. None takes connected parts.
    provenance
        What made it, as JSON, for formats with room for that; or None.
    history
        For "history": which change set each pixel, (H, W) integers from 1, 0 where
        that is not known, and the changes, as JSON.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]]
    split: str = ""
    instances: NDArray[np.integer[Any]] | None = None
    provenance: Mapping[str, Any] | None = None
    history: tuple[NDArray[np.integer[Any]], Sequence[Mapping[str, Any]]] | None = None

    @property
    def file(self) -> str:
        """The name of its picture, of most formats."""
        return f"{self.name}.png"

    @property
    def ignored(self) -> int:
        """How many pixels are unsure."""
        return int((self.labels == IGNORE).sum())


class Writer(Protocol):
    """One format, writing one dataset into a folder of its own."""

    def add(self, item: ExportItem) -> None:
        """Write one checked item, then read it back and compare."""

    def finish(self) -> "LowestIou | None":
        """Write what describes all items, then read it back and compare.

        Returns where polygons agree least with their masks; None for exact formats.
        """


class WriterFactory(Protocol):
    """A format: what the registry holds."""

    def __call__(self, folder: Path, classes: Sequence[LabelClass]) -> Writer:
        """Start a dataset in `folder`, which exists and is empty."""


class ExportError(RuntimeError):
    """What was read back differs from what was written."""


def check_classes(classes: Sequence[LabelClass]) -> tuple[LabelClass, ...]:
    """Return the classes, ordered by id, their numbers as plain int (for JSON).

    It raises `ValueError` for an id that is out of range, reserved or used twice, for a
    name that is empty or used twice, and for a colour that is not three values of 0 to
    255.
    """
    names: dict[str, int] = {}
    ids: dict[int, str] = {}
    classes = [_plain(entry) for entry in classes]
    for entry in classes:
        name, number = entry.name, entry.id
        if not is_class_id(number):
            raise ValueError(
                f"class {name!r} has the id {number}; use 1 to 65535 without 255 "
                "(0 is the background, 255 means ignore)"
            )
        if number in ids:
            raise ValueError(
                f"classes {ids[number]!r} and {name!r} share the id {number}"
            )
        if not name.strip():
            raise ValueError(
                f"the class with the id {number} has no name; name it first"
            )
        if name in names:
            raise ValueError(
                f"two classes are named {name!r} (ids {names[name]} and {number})"
            )
        if entry.color is not None and not is_color(entry.color):
            raise ValueError(
                f"class {name!r} has the colour {entry.color!r}; use (r, g, b), 0-255"
            )
        ids[number], names[name] = name, number
    return tuple(sorted(classes, key=lambda entry: entry.id))


def _plain(entry: LabelClass) -> LabelClass:
    """Return a class with plain numbers in the place of NumPy's."""
    color = None if entry.color is None else tuple(map(_plain_number, entry.color))
    number, thing = _plain_number(entry.id), bool(entry.thing)
    return LabelClass(number, entry.name, cast("Colour | None", color), thing)


def _plain_number(value: Any) -> Any:
    return int(value) if isinstance(value, np.integer) else value


def check_item(item: ExportItem, ids: frozenset[int]) -> None:
    """Check one item against the ids of the classes.

    It raises `ValueError` for a name that is no plain file name, for an unknown split,
    for arrays of the wrong type or shape, and for labels whose ids have no class.
    """
    check_name(item.name)
    where = f"item {item.name!r}"
    if item.split and item.split not in SPLITS:
        raise ValueError(
            f"{where} is in the split {item.split!r}; use {', '.join(SPLITS)} or ''"
        )
    image, labels = item.image, item.labels
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"{where}: the image is {_describe(image)}; use (H, W, 3) uint8 RGB"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 2:
        raise ValueError(
            f"{where}: the labels are {_describe(labels)}; use (H, W) integers"
        )
    if image.shape[:2] != labels.shape:
        raise ValueError(
            f"{where}: the image is {image.shape[:2]} but its labels are "
            f"{labels.shape}; bring the labels to the size of the image"
        )
    if not labels.size:
        raise ValueError(f"{where} has no pixels: {labels.shape}")
    unknown = sorted({int(i) for i in np.unique(labels)} - ids - {BACKGROUND, IGNORE})
    if unknown:
        raise ValueError(
            f"{where}: the labels hold ids without a class: "
            f"{', '.join(map(str, unknown))}; add the classes or erase the pixels"
        )
    if item.instances is not None:
        _check_instances(where, item.instances, labels)


def _check_instances(
    where: str, instances: NDArray[Any], labels: NDArray[np.integer[Any]]
) -> None:
    if instances.shape != labels.shape or not np.issubdtype(
        instances.dtype, np.integer
    ):
        raise ValueError(
            f"{where}: the instances are {_describe(instances)}; use {labels.shape}"
        )
    inside = (labels != BACKGROUND) & (labels != IGNORE)
    if not np.array_equal(instances > 0, inside):
        raise ValueError(
            f"{where}: the instances are not where the labels have a class"
        )
    pairs = np.unique(np.stack([instances[inside], labels[inside]], 1), axis=0)
    if len(pairs) != len(np.unique(pairs[:, 0])):
        raise ValueError(
            f"{where}: an instance has more than one class; split it first"
        )


def save_png(path: Path, pixels: NDArray[Any], palette: bytes | None = None) -> None:
    """Write an (H, W) or (H, W, 3) array as PNG, read it back and compare.

    With a palette (256 times red, green, blue), `pixels` are its indices. Folders are
    made where they are missing.
    """
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        image.save(file, format="PNG")
    with Image.open(path) as written:
        check_same(path, np.asarray(written), pixels)
        if palette is not None and bytes(written.getpalette() or ()) != palette:
            raise _differs(path)


def save_text(path: Path, text: str) -> str:
    """Write a text, read it back, compare, and return what was read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", "backslashreplace", newline="\n")
    found = path.read_text(encoding="utf-8")
    if found != text:
        raise _differs(path)
    return found


def save_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, read them back and compare."""
    save_text(path, "".join(f"{line}\n" for line in lines))


def save_json(path: Path, content: Any) -> None:
    """Write JSON, read it back and compare. Keys must be text."""
    text = json.dumps(content, ensure_ascii=False, indent=1)
    if json.loads(save_text(path, text)) != content:
        raise _differs(path)


def check_same(path: Path, found: NDArray[Any], expected: NDArray[Any]) -> None:
    """Raise ExportError where the pixels read from `path` are not the expected."""
    if not np.array_equal(found, expected):
        raise _differs(path)


def _differs(path: Path) -> ExportError:
    return ExportError(
        f"{path.name} reads back differently from what was written; export again"
    )


def _describe(array: NDArray[Any]) -> str:
    return f"{array.shape} {array.dtype}"
