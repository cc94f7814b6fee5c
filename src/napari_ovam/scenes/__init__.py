"""A few composed scenes with exact masks, to try and to measure on.

They were composed by `training/ship_scenes.py` from Noto Color Emoji (SIL Open Font
License 1.1); the masks are the emoji's own outlines, no attention map made them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with its exact mask."""

    name: str  # what is to be seen, such as "cat-hat-room"
    caption: str  # a sentence that describes it
    image: NDArray[np.uint8]  # RGB, shape (128, 128, 3)
    labels: NDArray[np.uint8]  # shape (128, 128): class ids, 0 for the background
    classes: Mapping[int, str]  # names by id, of the objects in this scene


def load_scenes() -> list[Scene]:
    """Return all scenes that the package ships."""
    folder = files(__name__)

    def read(name: str) -> NDArray[np.uint8]:
        with folder.joinpath(name).open("rb") as file, Image.open(file) as picture:
            return np.array(picture)

    return [
        Scene(
            entry["name"],
            entry["caption"],
            read(f"{entry['name']}.png"),
            read(f"{entry['name']}.labels.png"),
            {int(label): name for label, name in entry["classes"].items()},
        )
        for entry in json.loads(folder.joinpath("scenes.json").read_text())
    ]
