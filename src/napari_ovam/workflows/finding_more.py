"""Find more like this: an object of one image is looked for in others, as proposals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_ovam.attention.optimize import optimize_token
from napari_ovam.attention.targets import labels_to_target
from napari_ovam.base.progress import Cancelled, Progress, no_progress
from napari_ovam.workflows.accepted import Examples
from napari_ovam.workflows.proposals import (
    ProposalError,
    ProposalReport,
    ProposalSettings,
    class_sources,
    propose,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_ovam.project import Project


def find_more(
    project: Project,
    pipe: Any,
    name: str,
    number: int,
    names: Iterable[str] | None = None,
    *,
    settings: ProposalSettings | None = None,
    progress: Progress = no_progress,
    written: Callable[[str], object] | None = None,
) -> ProposalReport:
    """Propose labels for images, where a class is what it is in one of them.

    A token is optimized on that image alone, and finds the class with its phrase; the
    class keeps its own. All other active classes are looked for as ever, and what a
    person edited, accepted or rejected is not touched: see `propose`.

    Parameters
    ----------
    name, number
        The image, whose labels a person edited or accepted, and the class in it.
    names
        The images to look at; by default all others, the following ones first.
    settings, progress, written
        As for `propose`; labels that were proposed before are made anew.

    Raises
    ------
    ProposalError
        If the labels of the image are only proposed, or do not hold the class beside
        something else; or as `propose` raises it.
    ClassError, ProjectError
        If the class or an image is unknown.
    Cancelled
        If `progress` raised it.
    OSError
        If something cannot be read.
    """
    settings = settings or ProposalSettings()
    entry, sample = project.classes[number], project.sample(name)
    if sample.status not in ("accepted", "edited"):
        raise ProposalError(
            f"the labels of {name} are {sample.status}: correct or accept them, then "
            f"look for more like its {entry.name}"
        )
    ids = dict.fromkeys([*(each.id for each in project.classes.active), number])
    sources = class_sources(project, pipe, ids)
    how = settings.layers, settings.trace, lambda: progress(0, 0)
    with Examples(project, pipe, *how) as examples:
        example = examples[name]
        try:
            token = optimize_token(
                example.trace,
                sources[number][-1],
                labels_to_target(example.labels, number),
                progress=lambda *_: progress(0, 0),
            )
        except ValueError as error:  # nothing of it is there, or nothing else
            raise ProposalError(
                f"{name} does not show what {entry.name} is: {error}"
            ) from error
    if token.info["cancelled"]:
        raise Cancelled
    every = [each.name for each in project.samples]
    place = every.index(name)
    return propose(
        project,
        pipe,
        every[place + 1 :] + every[:place] if names is None else names,
        classes=ids,
        tokens={number: token},
        settings=replace(settings, redo=True),
        progress=progress,
        written=written,
    )
