"""OME-Zarr stores: what `import` wants of one, and `store-labels` writes into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from napari_ovam.cli.common import (
    Folder,
    Images,
    Statuses,
    reported,
    say,
    say_failed,
    say_notes,
    show_progress,
    statuses,
)

# Nothing heavy is imported here: --help and mistakes are answered at once.
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


def store_labels(
    folder: Folder,
    name: Annotated[str, typer.Option(help="Of the labels in the stores.")] = "ovam",
    status: Statuses = None,
    image: Images = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace what this command wrote before.")
    ] = False,
) -> None:
    """Write labels into the OME-Zarr stores that the pictures were imported from.

    They become labels/NAME beside the picture, with its levels. Labels that somebody
    else wrote, or changed since, are never replaced. Exits with 2 where single stores
    could not be written.
    """
    with reported("; each store is as it was, or whole"), show_progress("store") as bar:
        from napari_ovam.project import Project, ProjectError
        from napari_ovam.workflows.stores import write_into_stores

        project = Project.open(folder)
        say_notes(project)
        wanted = statuses(status) or ["proposed", "edited", "accepted"]
        items = project.items(image, wanted)
        report = write_into_stores(
            project, items, name=name, overwrite=overwrite, progress=bar
        )
        if not (report.written or report.failed):
            raise ProjectError(
                f"{folder} holds no labels of pictures that were imported from OME-Zarr"
            )
        for place, count in report.written.items():
            say(f"{place} ({count} planes)" if count > 1 else place)
        if report.others:
            say(f"{len(report.others)} images came from no store", err=True)
    say_failed(report.failed)
