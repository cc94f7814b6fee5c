"""`click`: an object of a sample by places in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_ovam.cli.common import (
    Device,
    Dtype,
    Folder,
    Model,
    read_numbers,
    reported,
    say,
    show_progress,
    working_in,
)

# Nothing heavy is imported here: --help and mistakes are answered at once.
if TYPE_CHECKING:
    from napari_ovam import Click, ClickMask
    from napari_ovam.project import Project
    from napari_ovam.segmentation.click_evidence import Box


def click(
    project: Folder,
    image: Annotated[str, typer.Argument(help="The name of an image in it.")],
    name: Annotated[
        str, typer.Option("--class", help="What it becomes; a new class if need be.")
    ],
    at: Annotated[
        list[str] | None,
        typer.Option(help="ROW,COLUMN in pixels, from 0,0, where the object is."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--not", help="ROW,COLUMN where it is not; after all --at."),
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="TOP,LEFT,BOTTOM,RIGHT around the object.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A PNG that gets the mask (255), in place of the labels."),
    ] = None,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Add an object to the labels of an image, by clicks or a box.

    What the class has there already is corrected. The class's word or token helps.
    """
    with reported(), working_in(project) as work:
        clicks = [*_clicks("--at", at, True), *_clicks("--not", without, False)]
        corners = None
        if box is not None:
            top, left, bottom, right = read_numbers("--box", box, 4)
            corners = (top, left), (bottom, right)
        work.sample(image)  # named before a model is loaded
        import numpy as np

        from napari_ovam.cli.maps import choose_classes
        from napari_ovam.images.png import write_png
        from napari_ovam.workflows.sample_trace import load_for_traces

        pipe = load_for_traces(work, [image], model, device=device, dtype=dtype)
        (number,) = choose_classes(work, [name], tokens=None)
        labels = work.load_labels(image)
        if labels is None:
            labels = np.zeros(work.load_image(image).shape[:2], np.uint8)
        found = _found(work, pipe, image, number, labels == number, clicks, corners)
        said = f"{found.mask.sum()} pixels of {name}"
        if out is not None:
            write_png(out, found.mask.astype(np.uint8) * 255)
            say(f"{out}: {said}")
            return
        wide = labels.astype(np.uint16)  # the class may be the first above 255
        changed = np.where(found.begin & ~found.mask, 0, wide)
        changed[found.mask & ~found.begin] = number
        places = [[each.row, each.column, each.positive] for each in clicks]
        about = {"by": "click", "clicks": places, "box": corners}
        work.save_labels(image, changed, "edited", made_by=about)
        work.save()
        say(f"{image}: {said}")


def _found(
    work: Project,
    pipe: Any,
    image: str,
    number: int,
    mask: Any,
    clicks: list[Click],
    box: Box | None,
) -> ClickMask:
    from napari_ovam import segment_clicks
    from napari_ovam.workflows.object_token import load_object_token
    from napari_ovam.workflows.proposals import class_sources
    from napari_ovam.workflows.sample_trace import sample_trace

    with show_progress("click") as progress:
        trace = sample_trace(work, image, pipe, keep=True, progress=progress)
    how = {
        "box": box,
        "mask": mask,
        "token": class_sources(work, pipe, [number])[number],
        "objects": load_object_token(work, trace.model),
    }
    return segment_clicks(trace, work.load_image(image), clicks, **how)


def _clicks(option: str, texts: list[str] | None, positive: bool) -> list[Click]:
    from napari_ovam import Click

    places = [read_numbers(option, text, 2) for text in texts or ()]
    return [Click(row, column, positive) for row, column in places]
