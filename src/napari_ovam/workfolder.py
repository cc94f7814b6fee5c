"""The folder that the command line works in, from one command to the next.

    images/NAME.png  traces/NAME.safetensors  maps/NAME.CLASS.png  labels/NAME.png
    tokens/CLASS.safetensors  classes.json

Maps are 16-bit, 65535 for 1. Ids in `classes.json` are given once and stay.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.atomic import replacing
from napari_ovam.export import ExportItem, LabelClass, check_name
from napari_ovam.png import as_ids, read_ids, read_rgb, write_png

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_CLASSES = "classes.json"


class WorkFolderError(ValueError):
    """A work folder, or a file in it, that is not as it should be."""


class WorkFolder:
    """Images, traces, labels and tokens under one folder.

    Every file is written beside its place and moved there when it is whole.

    Parameters
    ----------
    path
        The folder.
    create
        Make it if it is missing.

    Raises
    ------
    WorkFolderError
        If there is no such folder.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            raise WorkFolderError(f"there is no folder {path}: generate makes one")
        self.path = path

    def names(self, chosen: Sequence[str] = ()) -> list[str]:
        """Return the names of all images, or the chosen ones once they are checked."""
        names = sorted(p.stem for p in (self.path / "images").glob("*.png"))
        if unknown := set(chosen) - set(names):
            raise WorkFolderError(
                f"{self.path} has no image {sorted(unknown)[0]!r}: it has {names}"
            )
        if not names:
            raise WorkFolderError(f"{self.path} holds no images (images/*.png)")
        return list(chosen) or names

    def new_name(self, wanted: str) -> str:
        """Return a name that no image has yet: an image is never replaced."""
        taken = {p.stem for p in (self.path / "images").glob("*")}
        check_name(wanted)
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}-{number}"
        return name

    def trace(self, name: str) -> Path:
        """Return the path of an image's trace, which need not exist."""
        return self._place(f"traces/{name}.safetensors")

    def token(self, name: str) -> Path:
        """Return the path of a class's token, which need not exist."""
        check_name(name)
        return self._place(f"tokens/{name}.safetensors")

    def write_image(self, name: str, image: NDArray[np.uint8], **settings: Any) -> None:
        """Write (H, W, 3) RGB, with the settings in the PNG's text."""
        write_png(self._place(f"images/{name}.png"), image, settings)

    def read_image(self, name: str) -> NDArray[np.uint8]:
        """Return (H, W, 3) RGB."""
        return read_rgb(self.path / "images" / f"{name}.png")

    def write_map(self, name: str, phrase: str, values: NDArray[np.float32]) -> None:
        """Write a map (H, W), 0 to 1."""
        pixels = (values * 65535).round().astype(np.uint16)
        check_name(phrase)
        write_png(self._place(f"maps/{name}.{phrase}.png"), pixels)

    def write_labels(self, name: str, labels: NDArray[Any]) -> None:
        """Write labels (H, W) in 8 bits, or 16 where an id needs it."""
        write_png(self._place(f"labels/{name}.png"), as_ids(name, labels))

    def has_labels(self, name: str) -> bool:
        """Tell whether an image has labels."""
        return (self.path / "labels" / f"{name}.png").is_file()

    def read_labels(self, name: str) -> NDArray[Any]:
        """Return labels (H, W)."""
        return read_ids(self.path / "labels" / f"{name}.png")

    def classes(self) -> list[LabelClass]:
        """Return the class table."""
        path = self.path / _CLASSES
        if not path.is_file():
            return []
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            return [LabelClass(int(e["id"]), str(e["name"])) for e in entries]
        except (ValueError, TypeError, KeyError) as error:
            raise WorkFolderError(
                f'{path} is no class table, [{{"id": 1, "name": "cat"}}]: {error!r}'
            ) from error

    def class_ids(self, names: Sequence[str]) -> list[int]:
        """Return the ids of classes; names that are new get the next free ones."""
        known = {c.name: c.id for c in self.classes()}
        added = dict(known)
        for name in names:
            if name not in added:
                free = max(added.values(), default=0) + 1
                added[name] = free + (free == 255)  # 255 is "unsure"
        if added != known:
            table = [{"id": i, "name": n} for n, i in added.items()]
            text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
            with replacing(self._place(_CLASSES)) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return [added[name] for name in names]

    def items(self) -> Iterator[ExportItem]:
        """Yield the images that have labels, one at a time."""
        found = False
        for name in self.names():
            if self.has_labels(name):
                found = True
                yield ExportItem(name, self.read_image(name), self.read_labels(name))
        if not found:
            raise WorkFolderError(f"{self.path} holds no labels yet: maps makes them")

    def _place(self, place: str) -> Path:
        path = self.path / place
        path.parent.mkdir(exist_ok=True)
        return path
