"""Compose captioned scenes of emoji on simple backgrounds, with exact masks.

The embedded model is trained on these scenes and everything is measured on them:
their masks come from the sprites' alpha channel, so no attention map had a part
in making them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

FONT_CANDIDATES = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf"),
)
SPRITE_PIXELS = 109  # the font's only bitmap strike

OBJECTS: dict[str, str] = {
    "cat": "\U0001f431",
    "dog": "\U0001f436",
    "monkey": "\U0001f435",
    "lion": "\U0001f981",
    "pig": "\U0001f437",
    "frog": "\U0001f438",
    "panda": "\U0001f43c",
    "fox": "\U0001f98a",
    "owl": "\U0001f989",
    "fish": "\U0001f41f",
    "car": "\U0001f697",
    "bus": "\U0001f68c",
    "bicycle": "\U0001f6b2",
    "boat": "\u26f5",
    "tree": "\U0001f333",
    "flower": "\U0001f33b",
    "apple": "\U0001f34e",
    "pizza": "\U0001f355",
    "guitar": "\U0001f3b8",
    "hat": "\U0001f3a9",
    "umbrella": "\u2602",
    "house": "\U0001f3e0",
    "ball": "\u26bd",
    "star": "\u2b50",
}
BACKGROUNDS: dict[str, str] = {
    "grass": "on the grass",
    "desert": "in the desert",
    "snow": "in the snow",
    "night": "at night",
    "sea": "at the sea",
    "room": "in a room",
}
# (sky or wall, ground), RGB; the horizon lies between them
_COLOURS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "grass": ((150, 205, 245), (95, 175, 75)),
    "desert": ((250, 215, 160), (225, 180, 105)),
    "snow": ((190, 210, 230), (240, 245, 250)),
    "night": ((20, 25, 70), (35, 45, 55)),
    "sea": ((170, 220, 250), (40, 110, 190)),
    "room": ((225, 205, 190), (150, 100, 65)),
}
_OPENINGS = ("", "", "", "a photo of ", "a picture of ", "a drawing of ")


@dataclass(frozen=True, eq=False)
class Scene:
    """One composed picture.

    Attributes
    ----------
    image : uint8, (size, size, 3) RGB
    labels : uint8, (size, size); 0 background, else 1 + index into ``tuple(OBJECTS)``
        of the topmost object whose alpha is at least one half
    caption : str
    objects : names of the objects, in the caption's order
    background : key of `BACKGROUNDS`
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    caption: str
    objects: tuple[str, ...]
    background: str


def class_id(name: str) -> int:
    """Return the label of an object: 1 for the first of `OBJECTS`."""
    return tuple(OBJECTS).index(name) + 1


@lru_cache(maxsize=1)
def sprites() -> dict[str, Image.Image]:
    """RGBA pictures of the objects, cropped to what is drawn.

    Raises
    ------
    FileNotFoundError
        Without the Noto Color Emoji font (Debian: fonts-noto-color-emoji).
    """
    path = next((p for p in FONT_CANDIDATES if p.exists()), None)
    if path is None:
        raise FileNotFoundError(
            "NotoColorEmoji.ttf was not found; install Noto Color Emoji "
            "(Debian: apt-get install fonts-noto-color-emoji)"
        )
    font = ImageFont.truetype(str(path), SPRITE_PIXELS)
    found = {}
    for name, glyph in OBJECTS.items():
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((10, 10), glyph, font=font, embedded_color=True)
        box = canvas.getbbox()
        if box is None:
            raise ValueError(f"the font {path} draws nothing for {name!r}")
        found[name] = canvas.crop(box)
    return found


def caption(rng: np.random.Generator, objects: tuple[str, ...], background: str) -> str:
    """Return a sentence such as "a photo of a cat and a hat on the grass"."""
    nouns = [("an " if o[0] in "aeiou" else "a ") + o for o in objects]
    if len(nouns) > 1:
        nouns = [", ".join(nouns[:-1]) + " and " + nouns[-1]]
    text = str(rng.choice(_OPENINGS)) + nouns[0]
    return text if rng.random() < 0.08 else f"{text} {BACKGROUNDS[background]}"


def _background(rng: np.random.Generator, kind: str, size: int) -> Image.Image:
    top, bottom = (
        np.clip(np.array(c) + rng.integers(-10, 11, 3), 0, 255) for c in _COLOURS[kind]
    )
    horizon = int(size * rng.uniform(0.4, 0.65))
    shade = np.linspace(-12, 12, size)[:, None, None]
    pixels = np.where(np.arange(size)[:, None, None] < horizon, top, bottom) + shade
    canvas = Image.fromarray(
        np.broadcast_to(np.clip(pixels, 0, 255), (size, size, 3)).astype(np.uint8)
    )
    draw = ImageDraw.Draw(canvas)
    unit = size / 64
    if kind == "night":
        for _ in range(12):
            x, y = rng.uniform(0, size), rng.uniform(0, horizon)
            draw.rectangle((x, y, x + unit * 0.6, y + unit * 0.6), fill=(240, 240, 200))
    elif kind == "sea":
        for y in np.arange(horizon + 4 * unit, size, 7 * unit):
            draw.line((0, y, size, y), fill=(85, 150, 220), width=max(1, int(unit)))
    elif kind == "room":
        draw.rectangle((0, horizon - unit, size, horizon + unit), fill=(245, 240, 235))
    return canvas


def _transform(
    rng: np.random.Generator, sprite: Image.Image, longest: float
) -> Image.Image:
    scale = longest / max(sprite.size)
    sprite = sprite.resize(
        (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale))),
        Image.Resampling.LANCZOS,
    )
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.rotate(
        float(rng.uniform(-8, 8)), Image.Resampling.BICUBIC, expand=True
    )
    alpha = sprite.getchannel("A")
    sprite = ImageEnhance.Brightness(sprite).enhance(float(rng.uniform(0.92, 1.08)))
    sprite.putalpha(alpha)
    return sprite


def _places(
    rng: np.random.Generator, sides: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Centres that keep objects inside the picture and mostly apart."""
    best, least = np.zeros((len(sides), 2)), np.inf
    for _ in range(40):
        centres = np.stack(
            [rng.uniform(s / 2, max(size - s / 2, s / 2 + 1e-6), 2) for s in sides]
        )
        overlap = 0.0
        for i in range(len(sides)):
            for j in range(i):
                reach = (sides[i] + sides[j]) / 2
                gap = np.maximum(reach - np.abs(centres[i] - centres[j]), 0)
                overlap += float(gap.prod()) / float(min(sides[i], sides[j]) ** 2)
        if overlap < least:
            best, least = centres, overlap
        if overlap < 0.05:
            break
    return best


def compose(
    seed: int,
    *,
    size: int = 128,
    objects: tuple[str, ...] | None = None,
    background: str | None = None,
) -> Scene:
    """Compose one scene; the same arguments give the same pixels.

    Parameters
    ----------
    seed : seed of everything that is random in the scene
    size : side in pixels. Scenes of 64 pixels hold relatively larger objects than
        those of 128, so that both show objects at about the same scale in pixels.
    objects : names from `OBJECTS`; None draws one (60 %), two (34 %) or three (6 %)
    background : key of `BACKGROUNDS`; None draws one

    Raises
    ------
    ValueError
        If an object or background has no such name.
    """
    rng = np.random.default_rng(seed)
    if objects is None:
        count = int(rng.choice([1, 2, 3], p=[0.60, 0.34, 0.06]))
        objects = tuple(str(o) for o in rng.choice(list(OBJECTS), count, replace=False))
    background = background or str(rng.choice(list(BACKGROUNDS)))
    unknown = [o for o in objects if o not in OBJECTS]
    if unknown or background not in BACKGROUNDS:
        raise ValueError(f"no such object or background: {unknown or background!r}")
    canvas = _background(rng, background, size).convert("RGBA")
    low, high = {1: (0.42, 0.72), 2: (0.34, 0.52)}.get(len(objects), (0.28, 0.4))
    if size < 128:
        low, high = low * 1.3, min(high * 1.3, 0.92)
    sides = rng.uniform(low, high, len(objects)) * size
    labels = np.zeros((size, size), np.uint8)
    for name, side, centre in zip(
        objects, sides, _places(rng, sides, size), strict=True
    ):
        sprite = _transform(rng, sprites()[name], float(side))
        corner = (
            round(centre[0] - sprite.width / 2),
            round(centre[1] - sprite.height / 2),
        )
        layer = Image.new("RGBA", (size, size))
        layer.paste(sprite, corner)
        canvas = Image.alpha_composite(canvas, layer)
        labels[np.asarray(layer)[..., 3] >= 128] = class_id(name)
    return Scene(
        np.asarray(canvas.convert("RGB")).copy(),
        labels,
        caption(rng, objects, background),
        objects,
        background,
    )
