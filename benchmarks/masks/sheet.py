"""A picture of what came out worst: picture, maps, labels, exact masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from worlds import Case

COLOURS = np.array([[0, 0, 0], [230, 97, 1], [26, 133, 255], [0, 158, 115]], np.uint8)
SIDE, GAP, COLUMNS = 128, 4, 2


def save_sheet(rows: Sequence[tuple[Case, NDArray[np.uint8]]], path: Path) -> None:
    """Draw cases with the labels that were found, numbered by column."""
    long = -(-len(rows) // COLUMNS)
    width, height = 4 * (SIDE + GAP) + 30, SIDE + GAP
    sheet = Image.new("RGB", (COLUMNS * width, long * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (case, found) in enumerate(rows):
        left, top = number // long * width + 24, number % long * height
        draw.text((left - 20, top + SIDE // 2), str(number + 1), fill="black")
        colours = COLOURS[1 : len(case.maps) + 1]
        maps = np.einsum("phw,pc->hwc", case.maps, colours).clip(0, 255)
        exact = np.where(case.labels == 255, 0, case.labels)
        for each in (case.image, maps.astype(np.uint8), COLOURS[found], COLOURS[exact]):
            picture = Image.fromarray(each).resize((SIDE, SIDE))
            sheet.paste(picture, (left, top))
            left += SIDE + GAP
    sheet.save(path, quality=82)
