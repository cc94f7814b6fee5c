"""Mask files of data sets, with corrected pixels in them."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_ovam.base.ids import BACKGROUND, IGNORE
from napari_ovam.datasets.exporters.dataset import ExportError
from napari_ovam.datasets.exporters.palette import (
    pack_colors,
    unpack_color,
    voc_palette,
)
from napari_ovam.datasets.importers.masks import places_of, read_mask
from napari_ovam.datasets.importers.shapes import number_objects
from napari_ovam.datasets.importers.source import UNSURE
from napari_ovam.datasets.importers.voc import read_colours
from napari_ovam.images.files import opened
from napari_ovam.images.png import stored_values

from .reconcile import match_objects

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .kept import Kept

_SHADES = 256


LISTS = ("labelmap.txt", "classes.json", "id2label.json")
"""Names of files that list the classes of masks."""


class MaskValues:
    """What the values of a data set's masks mean, and which value a class has.

    Parameters
    ----------
    kept
        The data set.
    ids
        Class ids as they are now by place; the last one is that of `UNSURE`.
    """

    def __init__(self, kept: Kept, ids: NDArray[np.integer[Any]]) -> None:
        self.colours = kept.form == "voc"
        self.values = kept.values
        self.ids = ids
        # Where several values mean one class, the one that was said last is in use.
        self.value_of = {int(ids[place]): v for v, place in kept.values.items()}
        self.new: dict[int, int] = {}  # values that classes got now

    def read(self, path: Path) -> NDArray[np.int64]:
        """Return the values of a mask, (H, W)."""
        return read_colours(path) if self.colours else read_mask(path)

    def labels(self, values: NDArray[np.int64]) -> NDArray[np.integer[Any]]:
        """Return the class ids of values as they were imported, (H, W)."""
        return self.ids[places_of(values, self.values, UNSURE)[0]]

    def corrected(
        self, values: NDArray[np.int64], labels: NDArray[np.integer[Any]], name: str
    ) -> NDArray[np.int64]:
        """Return values that mean labels; those that do already stay.

        It raises `ValueError` if a class has no value, and can get none.
        """
        changed = self.labels(values) != labels
        found = values.copy()
        used = Counter(values[~changed].tolist())
        for class_id in np.unique(labels[changed]).tolist():
            where = changed & (labels == class_id)
            found[where] = self._value(class_id, used, name)
        return found

    def _value(self, class_id: int, used: Counter[int], name: str) -> int:
        same = [v for v, p in self.values.items() if int(self.ids[p]) == class_id]
        if common := [value for value in same if used[value]]:
            return max(common, key=lambda value: used[value])
        if class_id in self.value_of:
            return self.value_of[class_id]
        if class_id in (BACKGROUND, IGNORE):
            what = "unsure pixels" if class_id == IGNORE else "the background"
            raise ValueError(f"{name}: the data set has no value for {what}")
        numbers = [class_id, *range(1, IGNORE)]  # its own id if that is free
        known = {*self.values, *self.new.values()}
        free = (self._as_value(n) for n in numbers if n < IGNORE or not self.colours)
        value = next((value for value in free if value not in known), None)
        if value is None:
            raise ValueError(
                f"{name}: the data set has no value left for the class {class_id}"
            )
        self.value_of[class_id] = self.new[class_id] = value
        return value

    def _as_value(self, number: int) -> int:
        if not self.colours:
            return number
        return int(pack_colors(voc_palette()[number]))

    def extend_list(self, place: str, text: str, names: Mapping[int, str]) -> str:
        """Return a list of classes of the data set with those that are new.

        Parameters
        ----------
        place
            Of the list.
        text
            What it says.
        names
            Of classes by their ids.
        """
        file = place.rpartition("/")[2]
        if file == "labelmap.txt":
            lines = [
                f"{names[i]}:{','.join(map(str, unpack_color(v)))}::\n"
                for i, v in self.new.items()
            ]
            return "".join([text, "" if text.endswith("\n") else "\n", *lines])
        content = json.loads(text)
        if isinstance(content, dict) and isinstance(content.get("classes"), list):
            content["classes"] += [
                {"id": value, "name": names[i], "color": None}
                for i, value in self.new.items()
            ]
        elif isinstance(content, dict):  # id2label.json
            content |= {str(value): names[i] for i, value in self.new.items()}
        return json.dumps(content, ensure_ascii=False, indent=1)


def correct_objects(
    before: NDArray[np.int64],
    then: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    objects: NDArray[np.integer[Any]],
    name: str,
) -> NDArray[np.int64]:
    """Return the colours of objects, (H, W); what is as it was keeps its own.

    It raises `ValueError` if VOC's palette has no colour left.

    Parameters
    ----------
    before
        (H, W) colours of objects as they were.
    then, labels
        (H, W) class ids as they were, and as they are.
    objects
        (H, W): the object of each pixel of a class now, from 1.
    name
        Of the picture.
    """
    inside = (then != BACKGROUND) & (then != IGNORE)
    seen, known = number_objects(before, then, inside)
    wanted = np.where((labels == BACKGROUND) | (labels == IGNORE), 0, objects)
    match = match_objects(seen.astype(np.int64), wanted.astype(np.int64), -1)
    values = {now: known[was - 1][0] for was, now in match.items()}
    palette = pack_colors(voc_palette())
    free = [v for v in palette[1:IGNORE].tolist() if v not in {p[0] for p in known}]
    after = before.copy()
    changed = labels != then
    after[changed & (labels == BACKGROUND)] = 0
    after[changed & (labels == IGNORE)] = palette[IGNORE]
    for number in np.unique(wanted[wanted > 0]).tolist():
        if number not in values and not free:
            raise ValueError(f"{name} has more objects than the 254 that 'voc' holds")
        value = values[number] if number in values else free.pop(0)
        after[wanted == number] = value
    return after


def write_values(
    old: Path,
    new: Path,
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    *,
    colours: bool,
) -> None:
    """Write a mask as it was, but for the values that changed.

    It raises `ExportError` if the kind of file cannot hold them.

    Parameters
    ----------
    old, new
        The mask that was, and where to write.
    before, after
        (H, W) values of both.
    colours
        Whether they are colours: red·65536 + green·256 + blue. Grey pixels have those
        of VOC's palette.
    """
    changed = before != after
    if old.suffix.lower() == ".npy":
        array = np.load(old, allow_pickle=False)
        flat = array.reshape(before.shape)
        flat[changed] = after[changed].astype(array.dtype)
        with new.open("wb") as file:
            np.save(file, array)
        return
    with opened(old) as picture:
        form, mode, palette = picture.format, picture.mode, picture.getpalette()
        stored = np.array(stored_values(old, picture))
    if stored.ndim == 2 and colours:
        known = palette if mode == "P" and palette else voc_palette().ravel().tolist()
        stored[changed] = _in_palette(after[changed], known, old.name)
    elif stored.ndim == 2:
        stored[changed] = after[changed].astype(stored.dtype)
    else:
        parts = (after >> 16, after >> 8 & 255, after & 255)
        for channel, part in enumerate(parts[: stored.shape[2]]):
            stored[..., channel][changed] = part[changed]
    image = Image.fromarray(stored)
    if palette and mode == "P":
        image.putpalette(palette)
    image.save(new, format=form, **({"lossless": True} if form == "WEBP" else {}))


def _in_palette(
    colours: NDArray[np.int64], palette: list[int], name: str
) -> NDArray[np.integer[Any]]:
    """Return the places of colours in a palette."""
    rows = pack_colors(np.reshape(palette, (-1, 3))).tolist()
    places = {c: place for place, c in reversed(list(enumerate(rows)))}
    missing = sorted(set(colours.tolist()) - set(places))
    if missing:
        raise ExportError(f"{name}: its palette has not the colour #{missing[0]:06x}")
    return np.array([places[c] for c in colours.tolist()], np.uint8)
