"""Labels in parts: small enough that one takes about a millisecond."""

from __future__ import annotations

from functools import lru_cache

SIDE = 512
"""Height and width of a tile in pixels."""


@lru_cache(maxsize=16)
def tile_places(shape: tuple[int, int]) -> tuple[tuple[slice, slice], ...]:
    """Return where the tiles of an image of a shape are, row by row."""
    rows, columns = (range(0, length, SIDE) for length in shape)
    return tuple(
        (slice(y, min(y + SIDE, shape[0])), slice(x, min(x + SIDE, shape[1])))
        for y in rows
        for x in columns
    )


def tiles_in(shape: tuple[int, int], box: tuple[slice, slice]) -> list[int]:
    """Return the numbers of the tiles that a box has a part in."""
    (top, bottom), (left, right) = (
        (max(part.start, 0) // SIDE, (min(part.stop, length) - 1) // SIDE + 1)
        for part, length in zip(box, shape, strict=True)
    )
    wide = -(-shape[1] // SIDE)
    return [y * wide + x for y in range(top, bottom) for x in range(left, right)]
