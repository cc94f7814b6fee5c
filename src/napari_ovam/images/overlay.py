"""Pictures of what was done: maps as heat, labels over images, captioned sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Panel = tuple[str, "NDArray[np.uint8]"]

_PANEL = 224  # pixels, the side of a picture in a sheet
_GAP = 10
_TEXT = 15
_LINE = 19
# Dark to bright, even in lightness, so that more attention always looks brighter.
_HEAT = np.array(
    [(8, 6, 30), (74, 16, 102), (158, 42, 99), (224, 92, 62), (252, 178, 60),
     (250, 252, 170)],
    dtype=float,
)  # fmt: skip


def heat(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a map (H, W) of values from 0 to 1 as heat: (H, W, 3) RGB."""
    place = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    stops = np.arange(len(_HEAT))
    channels = [np.interp(place, stops, _HEAT[:, c]) for c in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer],
    colours: Mapping[int, tuple[int, int, int]],
    opacity: float = 0.6,
) -> NDArray[np.uint8]:
    """Lay labels (H, W) over an image (H, W, 3), each id in its colour.

    The rest of the image is greyed, so that a colour of the image is not taken for
    one of a class.
    """
    grey = image.mean(-1, keepdims=True).repeat(3, -1) * 0.7 + 60
    out = np.where((labels > 0)[..., None], grey, image.astype(float) * 0.5 + grey / 2)
    for label, colour in colours.items():
        inside = labels == label
        out[inside] = (1 - opacity) * out[inside] + opacity * np.array(colour)
    painted: NDArray[np.uint8] = out.clip(0, 255).astype(np.uint8)
    return painted


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
