"""Pictures of what was done: maps and labels over images, captioned sheets.

How a map looks is decided here, for the panel, the overview, the docs and `overlay`:
each map lies over the picture in its own colour, the more opaque the higher it is. A
line goes around what its threshold takes; outside of it the picture is dimmed where no
map is high. Colours are laid over one another, never added: a light picture is not
blown out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

Panel = tuple[str, "NDArray[np.uint8]"]
Color = tuple[int, int, int]

MAP_COLOR: Color = (255, 160, 0)
"""Of a map of no class."""

_PANEL = 224  # pixels, the side of a picture in a sheet
_GAP = 10
_TEXT = 15
_LINE = 19
_DIMMED = 0.65  # of its light that a picture loses where no map is high
_OPAQUE = 0.8  # of a map where it is highest
_CURVE = 1.2  # above 1: what is seldom 0, the middle of a map, covers little
_STOPS = 65  # of a ramp: straight between two of them
_THIN = 400  # pixels of the shorter side for each pixel of a line


def map_range(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return which values of a map are shown least and most; few go down to 0."""
    low = float(values.min())
    return (low, 1.0) if low < 1 else (0.0, 1.0)


def map_ramp(color: Color) -> NDArray[np.float64]:
    """Return the colours of a map from its least to its highest value.

    (n, 4) RGBA from 0 to 1, at equal steps of the value, straight between them.
    """
    steps = np.linspace(0, 1, _STOPS)[:, None]
    rgb = np.broadcast_to(np.divide(color, 255), (_STOPS, 3))
    return np.concatenate([rgb, _OPAQUE * steps**_CURVE], 1)


def map_cover(
    maps: Iterable[NDArray[np.float32]],
    regions: Iterable[tuple[NDArray[np.bool_], Color]] = (),
) -> NDArray[np.uint8]:
    """Return what lies over a picture and its maps: (H, W, 4) RGBA.

    It draws a line around each region, from outside dark, white, and of a colour, and
    outside of them dims what no map is high on.

    Parameters
    ----------
    maps
        (H, W) from 0 to 1; at least one.
    regions
        (H, W), what a map's threshold takes, and the colour of its class.
    """
    seen = np.maximum.reduce([_stretch(values) for values in maps])
    cover = np.zeros((*seen.shape, 4), np.uint8)
    cover[..., 3] = np.rint(255 * _DIMMED * (1 - seen**_CURVE))
    width = max(1, round(min(seen.shape) / _THIN))
    taken = list(regions)
    for region, _ in taken:
        cover[region, 3] = 0
    for region, _ in taken:
        cover[_grow(region, width) & ~region] = (0, 0, 0, 255)
    for region, color in taken:
        white = _grow(~region, width)
        cover[region & _grow(white, 2 * width)] = (*color, 255)
        cover[region & white] = 255
    return cover


def overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer] | None,
    colours: Mapping[int, Color],
    opacity: float = 0.6,
    *,
    maps: Mapping[int, NDArray[np.float32]] | None = None,
) -> NDArray[np.uint8]:
    """Lay labels, or maps, over an image (H, W, 3): RGB, each id in its colour.

    With labels alone the rest of the image is greyed, so that a colour of the image is
    not taken for one of a class. With maps the image is dimmed where none is high, and
    the labels of their ids are lines around them.

    Parameters
    ----------
    image
        RGB.
    labels
        (H, W) ids, 0 for the background; None beside maps draws no line.
    colours
        By id; an id without one is not drawn.
    opacity
        Of labels, 0 to 1.
    maps
        (H, W) from 0 to 1 by id, as from `class_maps`.
    """
    if maps is not None:
        return _overlay_maps(image, labels, colours, maps)
    if labels is None:
        raise ValueError("labels is None and there are no maps: give one of them")
    grey = image.mean(-1, keepdims=True).repeat(3, -1) * 0.7 + 60
    out = np.where((labels > 0)[..., None], grey, image.astype(float) * 0.5 + grey / 2)
    for label, colour in colours.items():
        inside = labels == label
        out[inside] = (1 - opacity) * out[inside] + opacity * np.array(colour)
    painted: NDArray[np.uint8] = out.clip(0, 255).astype(np.uint8)
    return painted


def _overlay_maps(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer] | None,
    colours: Mapping[int, Color],
    maps: Mapping[int, NDArray[np.float32]],
) -> NDArray[np.uint8]:
    shown = {number: maps[number] for number in maps if number in colours}
    if not shown:
        raise ValueError(f"no map of {list(maps)} has a colour in {list(colours)}")
    regions = [] if labels is None else [(labels == i, colours[i]) for i in shown]
    out = image.astype(float)
    for number, values in shown.items():
        alpha = (_OPAQUE * _stretch(values) ** _CURVE)[..., None]
        out = (1 - alpha) * out + alpha * np.array(colours[number])
    cover = map_cover(shown.values(), regions)
    alpha = cover[..., 3:] / 255
    out = (1 - alpha) * out + alpha * cover[..., :3]
    laid: NDArray[np.uint8] = np.rint(out).astype(np.uint8)
    return laid


def _stretch(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = map_range(values)
    stretched: NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1)
    return stretched


def _grow(region: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return a region with the pixels that touch its sides, `width` times."""
    grown = region.copy()
    for _ in range(width):
        before = grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
    return grown


def sheet(rows: Sequence[tuple[str, Sequence[Panel]]]) -> Image.Image:
    """Draw titled rows of captioned pictures; a caption may have two lines."""
    font = ImageFont.load_default(_TEXT)
    columns = max(len(panels) for _, panels in rows)
    width = columns * (_PANEL + _GAP) + _GAP
    high = _PANEL + 2 * _LINE + 2 * _GAP
    canvas = Image.new(
        "RGB", (width, len(rows) * (high + _LINE + _GAP) + _GAP), "white"
    )
    draw = ImageDraw.Draw(canvas)
    y = _GAP
    for title, panels in rows:
        draw.text((_GAP, y), title, "black", font)
        y += _LINE + _GAP // 2
        for column, (text, picture) in enumerate(panels):
            x = _GAP + column * (_PANEL + _GAP)
            fitted = Image.fromarray(picture)
            scale = _PANEL / max(fitted.size)
            size = (round(fitted.width * scale), round(fitted.height * scale))
            # whole pixels where an image is enlarged: nothing looks finer than it is
            method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
            canvas.paste(fitted.resize(size, method), (x, y))
            draw.multiline_text(
                (x, y + _PANEL + 3), text, (60, 60, 60), font, spacing=3
            )
        y += high
    return canvas.crop((0, 0, width, y + _GAP))
