"""The commands between projects and data sets: `export`, `import`, `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_ovam.cli import stores
from napari_ovam.cli.common import (
    ByReference,
    Folder,
    Images,
    Statuses,
    listed,
    reported,
    say,
    say_failed,
    say_notes,
    show_progress,
    statuses,
    working_in,
)

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from napari_ovam.datasets.exporters import Exported
    from napari_ovam.workflows.importing import ImportReport


def register(app: typer.Typer) -> None:
    """Add the commands to the program's."""
    app.command()(export)
    app.command("import")(import_)
    app.command()(verify)


def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="A new folder for the dataset.")],
    format: Annotated[
        list[str] | None,
        typer.Option(
            help="indexed, coco, coco-parts, coco-polygons, coco-panoptic, voc, "
            "yolo-seg, yolo-semantic, nnunet, hf, ome-zarr, ome-zarr-0.4, cvat, "
            "labelme, label-studio, datumaro or as-imported; several by commas, or "
            "given again."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Shares of training, validation and test images: 0.8,0.1,0.1."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    status: Statuses = None,
    image: Images = None,
    overwrite: Annotated[bool, typer.Option(help="Replace these formats.")] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Also where each pixel came from.")
    ] = False,
) -> None:
    """Export images and labels as a dataset, read back and compared.

    Formats with polygons say how near these come to the masks; all others are exact.
    """
    with reported(), show_progress("export") as progress:
        from napari_ovam.datasets import exporters
        from napari_ovam.datasets.returning import AS_IMPORTED, RETURNED
        from napari_ovam.project import Project, ProjectError
        from napari_ovam.workflows.returning import more_formats

        shares = None if split is None else exporters.parse_split(split, seed)
        project = Project.open(folder)
        say_notes(project)
        chosen = statuses(status)
        wanted = chosen or ["proposed", "edited", "accepted"]
        items = project.items(image, wanted, history=history)
        if not items:
            which = f" with the status {' or '.join(chosen)}" if chosen else ""
            raise ProjectError(f"{folder} holds no labels{which} to export")
        formats = (listed(format) or ["indexed"]) + [exporters.HISTORY] * history
        for name in formats:
            if loss := {**exporters.LOSSES, AS_IMPORTED: RETURNED}.get(name):
                say(f"{name}: {loss}", err=True)
        done = exporters.export_dataset(
            *(items, project.label_classes(), out, formats),
            overwrite=overwrite,
            split=shares,
            progress=progress,
            more=more_formats(project),
        )
        untouched = sum(project.sample(n).status == "proposed" for n in items.names)
        if untouched:
            say(f"{untouched} of {len(items)} images are untouched proposals")
        _say_exported(done)


def _say_exported(done: Exported) -> None:
    for name, lowest in done.lowest_iou.items():
        say(
            f"{name}: lowest IoU of the polygons {lowest.iou:.4f} "
            f"({lowest.image}, {lowest.class_name!r})"
        )
    for note in done.notes:
        say(note, err=True)
    say(done)


def import_(
    folder: Annotated[
        Path, typer.Argument(help="A project; a new one if there is none.")
    ],
    source: Annotated[
        str,
        typer.Argument(
            help="The data set: a folder, an annotation file, or an OME-Zarr store or "
            "URL."
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="indexed, coco, voc, cvat, labelme, label-studio, datumaro or "
            "ome-zarr."
        ),
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="A class list, where the data set has none of its own."),
    ] = None,
    background: Annotated[
        int, typer.Option(help="The id of the background in indexed masks.")
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option(help="Replace labels that a person made, too.")
    ] = False,
    by_reference: ByReference = False,
    level: stores.Level = None,
    channels: stores.Channels = None,
    planes: stores.Planes = None,
) -> None:
    """Import images and masks of another data set into a project.

    Classes are matched by name, new ones are added. Images are known again by their
    path in the data set. Exits with 2 where something of it was not understood; the
    rest is imported.
    """
    with reported(), show_progress("import") as progress:
        from napari_ovam.datasets.class_lists import read_class_list
        from napari_ovam.datasets.importers import open_source
        from napari_ovam.workflows.importing import import_masks

        listed = None if classes is None else read_class_list(classes)
        # before a folder is made
        if format == "ome-zarr":
            from napari_ovam.datasets.importers.ome_zarr import open_ome_zarr

            choice = stores.read_choice(level, channels, planes)
            found = open_ome_zarr(source, choice)
        else:
            found = open_source(source, format, listed, background=background)
        with working_in(folder, create=True) as project:
            report = import_masks(
                project,
                found,
                overwrite=overwrite,
                by_reference=by_reference,
                progress=progress,
            )
        partly = _say_imported(report)
    say_failed({**report.failed, **partly})


def _say_imported(report: ImportReport) -> dict[str, str]:
    """Say what was imported; return what was not understood in all."""
    for note in report.notes:
        say(note)
    partly = {path: "; ".join(said) for path, said in report.skipped.items()}
    for what, why in report.kept.items():
        say(f"{what}: {why}", err=True)
    say(
        f"{len(report.labelled)} labelled ({len(report.added)} new images), "
        f"{len(report.kept)} left as they were, {len(report.failed)} failed; "
        f"{len(report.new_classes)} new classes"
        + (f"; {len(partly)} not understood in all" if partly else "")
    )
    return partly


def verify(
    folder: Annotated[Path, typer.Argument(help="A project or an export.")],
) -> None:
    """Check hashes, sizes, ids and files of a project or an export.

    Nothing is changed. Exits with 1 and a list where something is wrong.
    """
    with reported(), show_progress("verify") as progress:
        from napari_ovam.project.verify import verify as check

        report = check(folder, progress=progress)
        for note in report.notes:
            say(f"note: {note}")
        for problem in report.problems:
            say(problem, err=True)
        count = len(report.problems)
        say(f"{report.checked} files checked, {count or 'no'} problems")
    if report.problems:
        raise typer.Exit(1)
