"""The token that finds any object, learned from the accepted images of a project."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from napari_ovam.attention.targets import iou
from napari_ovam.attention.token_files import TokenFileError, load_token, save_token
from napari_ovam.base.ids import IGNORE
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.diffusion.phrases import encode_phrase
from napari_ovam.diffusion.weights_hash import text_encoder_hash
from napari_ovam.segmentation.click_evidence import Click
from napari_ovam.segmentation.clicks import ClickSegmenter
from napari_ovam.workflows.accepted import Examples, draw_names, usable_images
from napari_ovam.workflows.refitting import Report, optimized, refit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.project import Project
    from napari_ovam.workflows.accepted import Example
    from napari_ovam.workflows.improving import ImproveSettings
    from napari_ovam.workflows.refitting import Refitted

FEWEST = 5
"""So many accepted images with objects it takes."""

_CLICKED = 3  # of the objects of an image, the largest ones


def load_object_token(project: Project, model: str) -> Token | None:
    """Return the token of any object that a project has learned for a text encoder.

    None where it has none, or it is damaged: what is known of the model counts then.

    Parameters
    ----------
    model
        The hash of its weights, as in `Trace`.
    """
    try:
        token = load_token(project.files.object_token)
    except (TokenFileError, OSError):
        return None
    return token if model and token.model == model else None


def learn_objects(
    project: Project,
    pipe: Any,
    *,
    settings: ImproveSettings,
    progress: Progress = no_progress,
) -> Refitted | None:
    """Refit the token of any object; keep it in the project if it is better.

    Objects are what the classes hold that are things, and not stuff. A token is as good
    as what one click in the middle of an object gives, in IoU; it is compared with the
    project's own, or the one of the model, or none.

    Returns
    -------
    Refitted
        None where there are fewer than `FEWEST` accepted images with objects.

    Raises
    ------
    Cancelled
        If `progress` raised it.
    OSError
        If something cannot be read or written.
    """
    things = [entry.id for entry in project.classes if entry.thing]
    usable, _ = usable_images(project, things, lambda: progress(0, 0))
    seed = settings.seed, 0
    several = sorted({name for names in usable.values() for name in names})
    names = draw_names(several, settings.most, seed)
    if len(names) < FEWEST:
        return None
    report = Report(progress, 1)
    used = load_object_token(project, text_encoder_hash(pipe))
    start = encode_phrase(pipe, "object")
    how = settings.layers, settings.trace, report.of_one
    with Examples(project, pipe, *how) as examples:
        found = {name: examples[name] for name in names}
        targets = {name: _target(each, things) for name, each in found.items()}
        names = [name for name in names if {0, 1} <= set(np.unique(targets[name]))]
        if len(names) < FEWEST:
            return None

        def optimize(chosen: Sequence[str]) -> Token:
            masks = [targets[name] for name in chosen]
            traced = [found[name] for name in chosen]
            return optimized(start, traced, masks, settings.optimization, report)

        result = refit(
            names,
            optimize,
            lambda name: _clicked(found[name], things, used),
            lambda token, name: _clicked(found[name], things, token),
            leave_out=settings.leave_out,
            seed=seed,
            used=used,
            report=report,
        )
    if result.better:
        with project.writing():
            token = replace(result.token, name="object")
            save_token(token, project.files.object_token)
    progress(report.total, report.total)
    return result


def _target(example: Example, things: Sequence[int]) -> NDArray[np.uint8]:
    inside = np.isin(example.labels, things).astype(np.uint8)
    inside[example.labels == IGNORE] = IGNORE
    return inside


def _clicked(example: Example, things: Sequence[int], token: Token | None) -> float:
    """Return the mean IoU of the objects of an image after one click on each."""
    segmenter = ClickSegmenter(example.trace, example.image, None, token)
    scores = [
        iou(segmenter([click]).mask, target)
        for click, target in _objects(example.labels, things)
    ]
    return float(np.mean(scores))


def _objects(
    labels: NDArray[Any], things: Sequence[int]
) -> Iterator[tuple[Click, NDArray[np.uint8]]]:
    """Yield a click in the middle of each of the largest objects, and its mask."""
    pieces: list[NDArray[np.bool_]] = []
    for number in things:
        parts, count = label(labels == number, np.ones((3, 3)))
        pieces += [parts == part for part in range(1, count + 1)]
    pieces.sort(key=lambda piece: -int(piece.sum()))
    for piece in pieces[:_CLICKED]:
        depth = distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        target = piece.astype(np.uint8)
        target[labels == IGNORE] = IGNORE
        yield Click(float(row), float(column)), target
