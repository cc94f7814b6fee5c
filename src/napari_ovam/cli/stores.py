"""The command `store-labels`: labels into the OME-Zarr stores of their pictures."""

from __future__ import annotations

from typing import Annotated

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
)
from napari_ovam.cli.exchange import statuses

# Nothing heavy is imported here: --help and mistakes are answered at once.


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
