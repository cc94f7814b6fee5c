"""Compose the scenes of the quality benchmark, with seeds that training never uses.

    python benchmarks/quality/make_scenes.py

Needs the emoji font; the benchmark itself needs only the archive that this writes.
Every class is in `SINGLES` scenes alone and in `PAIRS` scenes with another class, of
each split, and the backgrounds are spread evenly.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "training"))

from scenes import BACKGROUNDS, OBJECTS, Scene, class_id, compose  # noqa: E402
from train import TEST_SEEDS  # noqa: E402

OUT = HERE / "scenes.zip"
FIRST_SEED = TEST_SEEDS + 100_000
# Scenes of each class: alone, with another class.
SPLITS = {"annotated": (4, 6), "development": (2, 2), "test": (4, 4)}
# An object that another one hides but for a few pixels measures nothing.
SMALLEST = 200


def plan(rng: np.random.Generator) -> list[tuple[str, tuple[str, ...]]]:
    """Return (split, objects) of every scene."""
    found: list[tuple[str, tuple[str, ...]]] = []
    names, used = list(OBJECTS), set[frozenset[str]]()
    for split, (singles, pairs) in SPLITS.items():
        rounds = []
        while len(rounds) < pairs:
            order = [str(name) for name in rng.permutation(names)]
            matches = list(zip(order[::2], order[1::2], strict=True))
            if not used & {frozenset(match) for match in matches}:
                used |= {frozenset(match) for match in matches}
                rounds.append(matches)
        found += [(split, (name,)) for _ in range(singles) for name in names]
        found += [(split, match) for matches in rounds for match in matches]
    return found


def scene_of(seed: int, objects: tuple[str, ...], background: str) -> tuple[int, Scene]:
    """Return the first scene from a seed on in which every object is visible."""
    while True:
        scene = compose(seed, objects=objects, background=background)
        areas = [(scene.labels == class_id(name)).sum() for name in objects]
        if min(areas) >= SMALLEST:
            return seed, scene
        seed += 1_000_000


def main() -> None:
    rng = np.random.default_rng(0)
    index = []
    seen = Counter[tuple[str, ...]]()
    with zipfile.ZipFile(OUT, "w", zipfile.ZIP_STORED) as archive:
        for number, (split, objects) in enumerate(plan(rng)):
            places = [str(place) for place in rng.permutation(list(BACKGROUNDS))]
            background = min(
                places,
                key=lambda place: (
                    sum(seen[split, name, place] ** 2 for name in objects),
                    seen[split, place],
                ),
            )
            seen.update([(split, name, background) for name in objects])
            seen[split, background] += 1
            seed, scene = scene_of(FIRST_SEED + number, objects, background)
            for kind, pixels in (("image", scene.image), ("labels", scene.labels)):
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "PNG", optimize=True)
                # A fixed date: the same scenes make the same archive.
                info = zipfile.ZipInfo(f"{number:03d}.{kind}.png")
                archive.writestr(info, file.getvalue())
            index.append(
                {
                    "split": split,
                    "seed": seed,
                    "background": background,
                    "caption": scene.caption,
                    "classes": {name: class_id(name) for name in objects},
                }
            )
        archive.writestr(zipfile.ZipInfo("scenes.json"), json.dumps(index, indent=1))
    print(f"{len(index)} scenes, {OUT.stat().st_size / 1e6:.2f} MB: {OUT}")


if __name__ == "__main__":
    main()
