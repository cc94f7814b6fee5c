"""Pairs that touch and three objects, cut out of composed scenes and pasted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from data import Scene
from PIL import Image
from scipy.ndimage import binary_dilation

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

from scenes import BACKGROUNDS, _background, _places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIZE = 128
# Of each split: how many scenes, and the seed of each kind.
COUNTS = {"development": (32, 24), "test": (48, 48)}
SEEDS = {"development": (1, 2), "test": (11, 12)}
SMALLEST = 200


def pasted(scenes: Sequence[Scene], split: str) -> list[Scene]:
    """Return scenes of a split: pairs that touch, then three objects apart."""
    found = []
    for number, touch in ((2, True), (3, False)):
        index = number - 2
        seed, count = SEEDS[split][index], COUNTS[split][index]
        base = (1000 if split == "development" else 3000) + 1000 * index
        found += _made(scenes, split, count, number, touch=touch, seed=seed, base=base)
    return found


def _made(
    scenes: Sequence[Scene],
    split: str,
    count: int,
    number: int,
    *,
    touch: bool,
    seed: int,
    base: int,
) -> list[Scene]:
    rng = np.random.default_rng(seed)
    sprites = _cutouts(scenes, split)
    found: list[Scene] = []
    while len(found) < count:
        names = [str(n) for n in rng.choice(sorted(sprites), number, replace=False)]
        kind = str(rng.choice(list(BACKGROUNDS)))
        image, labels = _paste(rng, [sprites[n] for n in names], kind, touch=touch)
        ids = {name: i for i, name in enumerate(names, 1)}
        if min((labels == i).sum() for i in ids.values()) >= SMALLEST:
            found.append(Scene(base + len(found), split, kind, image, labels, ids))
    return found


def _cutouts(scenes: Sequence[Scene], split: str) -> dict[str, list[Image.Image]]:
    """Return pictures (RGBA) of the objects that are alone in a scene."""
    found: dict[str, list[Image.Image]] = {}
    for scene in scenes:
        if scene.split == split and len(scene.classes) == 1:
            mask = scene.labels > 0
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            pixels = np.dstack([scene.image, mask * np.uint8(255)])[box]
            found.setdefault(next(iter(scene.classes)), []).append(
                Image.fromarray(pixels)
            )
    return found


def _paste(
    rng: np.random.Generator,
    choices: list[list[Image.Image]],
    kind: str,
    *,
    touch: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pixels = np.asarray(_background(rng, kind, SIZE).convert("RGB"), np.float32)
    low, high = (0.34, 0.52) if len(choices) == 2 else (0.28, 0.4)
    sides = rng.uniform(low, high, len(choices)) * SIZE
    sprites = []
    for several, side in zip(choices, sides, strict=True):
        one = several[rng.integers(len(several))]
        scale = side / max(one.size)
        size = (max(1, round(one.width * scale)), max(1, round(one.height * scale)))
        sprites.append(np.asarray(one.resize(size, Image.Resampling.BILINEAR)))
    centres = _places(rng, sides, SIZE)
    if touch:
        centres = _side_by_side(rng, sprites, sides[0], centres)
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for i, (sprite, centre) in enumerate(zip(sprites, centres, strict=True), 1):
        at = np.s_[*(slice(a, a + s) for a, s in _corner(sprite, centre))]
        opacity = sprite[..., 3:] / 255
        pixels[at] += opacity * (sprite[..., :3] - pixels[at])
        labels[at][opacity[..., 0] >= 0.5] = i
    return (pixels + 0.5).astype(np.uint8), labels


def _corner(
    sprite: NDArray[np.uint8], centre: NDArray[np.float64]
) -> list[tuple[int, int]]:
    """Return where it begins and how long it is, down and right, inside the picture."""
    return [
        (min(max(round(c - side / 2), 0), SIZE - side), side)
        for c, side in zip(centre[::-1], sprite.shape[:2], strict=True)
    ]


def _side_by_side(
    rng: np.random.Generator,
    sprites: list[NDArray[np.uint8]],
    side: float,
    otherwise: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Slide the second object towards the first until their masks meet."""
    for _ in range(200):
        first = rng.uniform(side / 2, SIZE - side / 2, 2)
        angle = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        mask = _mask(sprites[0], first)
        if mask is None:
            continue
        around = binary_dilation(mask)
        for distance in range(100, 5, -1):
            second = first + distance * direction
            other = _mask(sprites[1], second)
            if other is not None and (around & other).any():
                if (mask & other).sum() < 40:
                    return np.stack([first, second])
                break
    return otherwise


def _mask(
    sprite: NDArray[np.uint8], centre: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """Return an object's mask in the picture, None where it does not fit in."""
    found = np.zeros((SIZE, SIZE), bool)
    corner = [
        round(c - s / 2) for c, s in zip(centre[::-1], sprite.shape, strict=False)
    ]
    end = [at + s for at, s in zip(corner, sprite.shape, strict=False)]
    if min(corner) < 0 or max(end) > SIZE:
        return None
    found[corner[0] : end[0], corner[1] : end[1]] = sprite[..., 3] >= 128
    return found
