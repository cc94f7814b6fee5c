"""The worlds that the rule from maps to labels is measured on.

Each yields cases: a picture, the maps of its classes, and a mask that no attention map
had a part in.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

QUALITY = Path(__file__).parents[1] / "quality"
sys.path.insert(0, str(QUALITY))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Pasted scenes have numbers from this one on.
FIRST_PASTED = 1000
# Kinds of recorded maps of U-Nets; those of transformers are counted apart.
_UNET = ("word", "w16", "token", "self")


@dataclass(frozen=True, eq=False)
class Case:
    """Maps (P, H, W), an image (H, W, 3) and labels (H, W): 1..P, 255 for unsure."""

    source: str
    name: str
    maps: NDArray[np.float32]
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def photographs(folder: Path) -> Iterator[Case]:
    """Photographs with made maps, each class alone and all of a picture together.

    `folder` holds index.json with its pictures, masks and degrade.py, which makes maps
    from exact masks.
    """
    degrade = _module(folder / "degrade.py").degrade
    for entry in json.loads((folder / "index.json").read_text())["pictures"]:
        image, labels = (
            _picture(folder, entry["image"]),
            _grey(folder, entry["mask_file"]),
        )
        ids = range(1, len(entry["classes"]) + 1)
        for quality in ("word", "token"):
            maps = [
                degrade(
                    labels == i,
                    image,
                    quality,
                    _seed(entry["name"], name, quality),
                    [labels == other for other in ids if other != i],
                )
                for i, name in zip(ids, entry["classes"], strict=True)
            ]
            for i, each in zip(ids, maps, strict=True):
                own = np.where(labels == 255, 255, labels == i).astype(np.uint8)
                name = f"{entry['name']}/{entry['classes'][i - 1]}"
                yield Case(f"photographs, {quality}", name, each[None], image, own)
            if len(maps) > 1:
                title = f"photographs, {quality}, all classes"
                yield Case(title, entry["name"], np.stack(maps), image, labels)


def recorded(folder: Path) -> Iterator[Case]:
    """Real maps, each class alone: index.json with its maps, pictures and masks.

    As `record_maps.py` writes them from a model.
    """
    for entry in json.loads((folder / "index.json").read_text())["maps"]:
        found = _grey(folder, entry["map"])
        values = found.astype(np.float32) / np.iinfo(found.dtype).max
        kind = "U-Nets" if entry["kind"] in _UNET else "transformers"
        yield Case(
            f"real maps of {kind}",
            entry["name"],
            values[None],
            _picture(folder, entry["image"]),
            _grey(folder, entry["mask"]).astype(np.uint8),
        )


def drawn(archive: str, split: str) -> Iterator[Case]:
    """Composed or generated pictures, by words and by tokens from one annotated.

    With the composed ones come pairs that touch and three objects, pasted from them.
    The maps are those of the embedded model, as the program makes them.
    """
    from pasted import pasted

    from napari_ovam import encode_phrase, joint_map, load_pipeline, optimize_token

    pipe = load_pipeline("tiny", device="cpu")
    composed = archive == "scenes.zip"
    data, kind = traced(pipe, archive)
    words = {name: encode_phrase(pipe, name) for name in data.names}
    tokens: dict[tuple[str, int], Any] = {}
    for name in data.names:
        for draw, scene in enumerate(data.of("annotated", name)[:2]):
            trace = data.trace(scene, kind).fine()
            mask = scene.mask(name)
            tokens[name, draw] = optimize_token([trace], words[name], [mask])
    scenes = data.of(split) + (pasted(data.scenes, split) if composed else [])
    for scene in scenes:
        trace, names = data.trace(scene, kind).fine(), list(scene.classes)
        labels = np.zeros(scene.labels.shape, np.uint8)
        for place, name in enumerate(names, 1):
            labels[scene.labels == scene.classes[name]] = place
        title = "composed" if composed else "generated"
        if scene.number < FIRST_PASTED:
            title += ", alone" if len(names) == 1 else ", in pairs"
        else:
            title += ", touching pairs" if len(names) == 2 else ", three objects"
        for draw in (None, 0, 1):
            used = [
                [words[n]] if draw is None else [tokens[n, draw], words[n]]
                for n in names
            ]
            maps = np.stack([joint_map(trace, each) for each in used])
            source = f"{title}, {'words' if draw is None else 'one-image tokens'}"
            yield Case(
                source,
                f"{scene.number} ({', '.join(names)})",
                maps,
                scene.image,
                labels,
            )


def traced(pipe: Any, archive: str) -> tuple[Any, Any]:
    """Return the scenes of an archive, and how they are traced."""
    from data import PLAIN, Data, Kind, read_scenes, weights_hash

    data = Data(pipe, weights_hash(pipe), read_scenes(QUALITY / archive))
    looked = PLAIN if archive == "scenes.zip" else None
    return data, looked or Kind(branch="cond", calls=(0.25, 0.5, 0.75))


def _seed(*words: str) -> int:
    return zlib.crc32("/".join(words).encode()) % 100_000


def _module(path: Path) -> Any:
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise SystemExit(f"{path} is not there: it makes maps from masks")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _picture(folder: Path, name: str) -> NDArray[np.uint8]:
    return np.array(Image.open(folder / name).convert("RGB"))


def _grey(folder: Path, name: str) -> NDArray[Any]:
    return np.array(Image.open(folder / name))
