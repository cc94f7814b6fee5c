"""The colours that new classes get."""

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
