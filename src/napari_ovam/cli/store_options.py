"""What the options of `import` want of an OME-Zarr store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from napari_ovam.datasets.importers.ome_zarr import Choice

Level = Annotated[
    int | None,
    typer.Option(
        help="ome-zarr: the size to take, 0 is the full one; by default the first that "
        "is not too large."
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(help="ome-zarr: those that make the picture, such as 0,2."),
]
Planes = Annotated[
    list[str] | None,
    typer.Option(help="ome-zarr: those of a stack, such as z=10:20; all else."),
]


def read_choice(
    level: int | None, channels: str | None, planes: list[str] | None
) -> Choice:
    """Return what the options of `import` want of a store.

    It raises `ValueError` if they are no numbers.
    """
    from napari_ovam.datasets.importers.ome_zarr import Choice

    try:
        numbers = None if channels is None else [int(n) for n in channels.split(",")]
    except ValueError:
        raise ValueError(
            f"--channels is {channels!r}: give numbers from 0, with commas"
        ) from None
    ranges = {}
    for text in planes or ():
        axis, _, found = text.partition("=")
        first, colon, last = found.partition(":")
        try:
            start = int(first)
            ranges[axis.strip()] = range(start, int(last) if colon else start + 1)
        except ValueError:
            raise ValueError(
                f"--planes is {text!r}: give an axis and a place, or first:end, such "
                "as z=10 or z=10:20"
            ) from None
    return Choice(level, numbers, ranges)
