"""The commands for pictures as they are: `add`, and `pictures` that were left there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_ovam.cli.common import (
    ByReference,
    Folder,
    Images,
    Page,
    reported,
    say,
    say_failed,
    show_progress,
    working_in,
)
from napari_ovam.cli.project import Out, say_added


def add(
    images: Annotated[
        list[Path],
        typer.Argument(help="Image files, and folders that are searched for some."),
    ],
    out: Out,
    by_reference: ByReference = False,
    page: Page = None,
) -> None:
    """Add pictures to a project, without a look at them: `propose` looks later.

    What it holds already is not added again. With --by-reference no copies are made:
    the project points at the files, and a folder that is given can move as a whole.
    Exits with 2 where single files could not be added.
    """
    with reported("; what was added is in the project"), show_progress("add") as bar:
        from napari_ovam.workflows.adding import add_file, pictures_in

        files = [
            (file, path if path.is_dir() else file.parent)
            for path in images
            for file in (pictures_in(path) if path.is_dir() else [path])
        ]
        if not files:
            raise ValueError(f"{', '.join(map(str, images))}: no pictures are in it")
        failed: dict[str, str] = {}
        with working_in(out, create=True) as project:
            for done, (file, folder) in enumerate(files):
                bar(done, len(files))
                left_in = folder if by_reference else None
                try:
                    name, new = add_file(project, file, page=page, left_in=left_in)
                except ValueError as error:
                    failed[str(file)] = str(error)
                    continue
                say_added(project, name, new=new)
    say_failed(failed)


def pictures(
    folder: Folder,
    locate: Annotated[
        Path | None,
        typer.Option(help="Where missing pictures are now: a folder to search."),
    ] = None,
    take_changed: Annotated[
        bool,
        typer.Option(
            "--take-changed", help="Take pictures that were changed as they are now."
        ),
    ] = False,
    image: Images = None,
) -> None:
    """Say how pictures are that were added by reference: moved, changed, missing.

    Moved ones are found again by their content. Labels are kept whatever is said.
    Exits with 2 where pictures are missing.
    """
    with reported(), show_progress("pictures") as bar, working_in(folder) as project:
        if locate is not None:
            found = project.locate_pictures(locate, bar)
            say(f"{len(found.moved)} pictures found in {locate}")
        report = project.look_at_pictures(bar)
        project.save()  # where moved ones are
        chosen = report.changed if image is None else set(report.changed) & set(image)
        for name in report.changed:
            taken = take_changed and name in chosen
            what = "taken as it is now" if taken else "changed"
            say(f"{name}: {what}, {project.image_file(name)}")
        if take_changed:
            project.take_pictures(chosen)
        left = sum(project.reference(s.name) is not None for s in project.samples)
        say(f"{left} of {len(project.samples)} pictures are left where they are")
        missing = {n: f"missing, {project.image_file(n)}" for n in report.missing}
    say_failed(missing)
