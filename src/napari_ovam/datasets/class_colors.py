"""The colours of classes, and those that new ones get."""

from collections.abc import Sequence

Colour = tuple[int, int, int]

# Okabe and Ito's colours, told apart by colour-blind people too; black and grey left
# out, four of our own added.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (140, 86, 205),
    (120, 200, 60),
    (250, 120, 120),
    (60, 220, 210),
)


def default_color(number: int) -> Colour:
    """Return the colour of the class with an id where nobody chose one."""
    return PALETTE[(number - 1) % len(PALETTE)]


def is_color(values: Sequence[object]) -> bool:
    """Whether these are (red, green, blue), whole numbers from 0 to 255."""
    return len(values) == 3 and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in values
    )
