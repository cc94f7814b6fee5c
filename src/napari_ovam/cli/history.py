"""`history`: where the labels of an image came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_ovam.cli.common import Folder, read_numbers, reported, say


def history(
    project: Folder,
    image: Annotated[str, typer.Argument(help="The name of an image in it.")],
    at: Annotated[
        str | None, typer.Option(help="ROW,COLUMN of a pixel, in place of all changes.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="A folder that gets the labels after each change, made again."
        ),
    ] = None,
) -> None:
    """Say where the labels of an image came from, in the order in which they did."""
    with reported():
        from napari_ovam.images.png import as_ids, write_png
        from napari_ovam.project import Project, ProjectError

        work = Project.open(project)
        labels, found = work.load_labels(image, to_edit=False), work.load_history(image)
        if labels is None:
            raise ProjectError(f"{image} has no labels")
        shape = (labels.shape[0], labels.shape[1])
        if at is not None:
            row, column = (int(x) for x in read_numbers("--at", at, 2))
            if not (0 <= row < shape[0] and 0 <= column < shape[1]):
                raise ProjectError(f"{at} is outside of {image}, which is {shape}")
            label = int(labels[row, column])
            entry = work.classes.get(label)
            name = entry.name if entry is not None else f"label {label}"
            say(f"{name}, {found.at(row, column, label) or 'from nobody knows where'}")
            return
        for number, change in enumerate(found.changes, start=1):
            say(f"{number:4} {change.count:9} pixels {change.tell()}")
        unknown = int((found.labels(shape) != labels).sum())
        known = "All pixels are" if not unknown else f"{unknown} pixels are not"
        say(f"{known} as these changes make them")
        if replay is not None:
            replay.mkdir(parents=True, exist_ok=True)
            for number, (_, made) in enumerate(found.replay(shape), start=1):
                write_png(replay / f"{image}-{number:04}.png", as_ids(image, made))
            say(replay)
