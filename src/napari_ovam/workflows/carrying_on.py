"""The objects of an image, carried on to those that follow it, as proposals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.segmentation.propagation import propagate
from napari_ovam.workflows.object_token import load_object_token
from napari_ovam.workflows.proposals import (
    ProposalError,
    ProposalReport,
    ProposalSettings,
    save_proposal,
)
from napari_ovam.workflows.sample_trace import saved_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_ovam.project import Project


def carry_on(
    project: Project,
    name: str,
    names: Iterable[str] | None = None,
    *,
    settings: ProposalSettings | None = None,
    progress: Progress = no_progress,
    written: Callable[[str], object] | None = None,
) -> ProposalReport:
    """Look for the objects of an image in those that follow it, one after another.

    As in a stack or film: see `propagate`; saved traces help, and no model is run. What
    a person edited, accepted or rejected is not touched, and it is gone on from there.

    Parameters
    ----------
    name
        The image whose labels are carried on.
    names
        The images to carry them on to, in their order; by default all that follow.
    settings, progress, written
        As for `propose`; labels that were proposed before are made anew.

    Raises
    ------
    ProposalError
        If the image has no labels.
    ProjectError
        If an image is unknown.
    Cancelled
        If `progress` raised it. What was written before that stays.
    """
    settings = settings or ProposalSettings()
    project.sample(name)
    every = [sample.name for sample in project.samples]
    chosen = list(every[every.index(name) + 1 :] if names is None else names)
    labels = project.load_labels(name, to_edit=False)
    if labels is None or not labels.any():
        raise ProposalError(f"{name} has no labels to carry on: make some first")

    proposed: list[str] = []
    kept: dict[str, str] = {}
    failed: dict[str, str] = {}
    before = name, project.load_image(name), saved_trace(project, name)
    objects = load_object_token(project, before[2].model) if before[2] else None
    for done, each in enumerate(chosen):
        progress(done, len(chosen))
        try:
            now = each, project.load_image(each), saved_trace(project, each)
            images, traces = [before[1], now[1]], [before[2], now[2]]
            found = next(propagate(labels, images, traces, objects=objects))
            about = {"from": before[0]}
            reason = save_proposal(
                project,
                each,
                found,
                replace(settings, redo=True),
                proposed_by={"carried_on": about},
                made_by={"by": "carry", **about},
            )
            if reason:
                kept[each] = reason
                theirs = project.load_labels(each, to_edit=False)
                found = found if theirs is None else theirs
            else:
                proposed.append(each)
        except (ValueError, OSError, RuntimeError) as error:
            failed[each] = str(error)  # its labels and status are as they were
            continue
        labels, before = found.astype(np.uint16), now
        if each in proposed and written is not None:
            written(each)
    progress(len(chosen), len(chosen))
    return ProposalReport(tuple(proposed), kept, failed)
