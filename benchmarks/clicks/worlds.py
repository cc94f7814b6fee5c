"""The worlds that click prompts are measured on.

Each yields objects: a picture, the trace of the embedded model, a mask that no map had
a part in, and the token of its class, where the model knows the class.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.ndimage import label

QUALITY = Path(__file__).parents[1] / "quality"
sys.path.insert(0, str(QUALITY))

from data import PLAIN, WORK, Data, Kind, read_scenes, weights_hash  # noqa: E402

from napari_ovam import (  # noqa: E402
    encode_phrase,
    load_pipeline,
    load_trace,
    save_trace,
    trace_image,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_ovam import Token, Trace

SPLITS = ("development", "test")


@dataclass(frozen=True, eq=False)
class Target:
    """An object to be clicked: its mask (H, W) has 0, 1, and 255 for unsure."""

    world: str
    name: str
    image: NDArray[np.uint8]
    trace: Trace
    mask: NDArray[np.uint8]
    token: Token | None


class Worlds:
    """The objects of a split; traces are made once and kept on disk."""

    def __init__(self, split: str, every: int = 1) -> None:
        self.every = every
        self.pipe = load_pipeline("tiny", device="cpu")
        self.split = split
        self._key = weights_hash(self.pipe)

    def drawn(self, archive: str, *, alone: bool = False) -> Iterator[Target]:
        """Yield objects of composed (scenes.zip) or generated pictures (generated.zip).

        `alone`: only of pictures that hold one.
        """
        composed = archive == "scenes.zip"
        data = Data(self.pipe, self._key, read_scenes(QUALITY / archive))
        kind = PLAIN if composed else Kind(branch="cond", calls=(0.25, 0.5, 0.75))
        # Tokens are not made here: the annotated generated pictures are for choosing.
        part = self.split
        if not composed and part == "development":
            part = "annotated"
        scenes = [s for s in data.of(part) if not alone or len(s.classes) == 1]
        for scene in scenes[:: self.every]:
            trace = data.trace(scene, kind).fine()
            for name in scene.classes:
                yield Target(
                    "composed" if composed else "generated",
                    f"{scene.number} {name}",
                    scene.image,
                    trace,
                    scene.mask(name),
                    self._word(name),
                )

    def photographs(self, folder: Path) -> Iterator[Target]:
        """Yield the largest piece of each class, every other picture a split's.

        Other pieces of the class are unsure: a click asks for this one.
        """
        entries = json.loads((folder / "index.json").read_text())["pictures"]
        for entry in entries[SPLITS.index(self.split) :: 2][:: self.every]:
            image = np.array(Image.open(folder / entry["image"]).convert("RGB"))
            labels = np.array(Image.open(folder / entry["mask_file"]))
            trace = self._trace(entry["name"], image)
            for number, name in enumerate(entry["classes"], 1):
                pieces, count = label(labels == number, np.ones((3, 3)))
                if not count:
                    continue
                largest = 1 + np.bincount(pieces.ravel())[1:].argmax()
                mask = np.where((labels == 255) | (pieces > 0), 255, 0)
                mask[pieces == largest] = 1
                yield Target(
                    "photographs",
                    f"{entry['name']} {name}",
                    image,
                    trace,
                    mask.astype(np.uint8),
                    None,
                )

    def _word(self, name: str) -> Any:
        return encode_phrase(self.pipe, name)

    def _trace(self, name: str, image: NDArray[np.uint8]) -> Trace:
        path = WORK / self._key / "photographs" / f"{name}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_trace(trace_image(self.pipe, image).trace, path)
        return load_trace(path).to("cpu")
