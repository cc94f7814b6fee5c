"""Reads samples, classes and tokens of a project, in a job's or the loader's thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam._qt.image.images import ABOUT, as_settings
from napari_ovam.project import Project, ProjectError

from .edits import Edits
from .state import LiveSample, ModelChoice

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam import Token
    from napari_ovam.datasets.classes import ProjectClass
    from napari_ovam.project.index import Sample

    from .worker import Job


@dataclass(frozen=True, eq=False)
class Recovered:
    """What an unfinished scratch project holds."""

    path: Path
    classes: list[ProjectClass]
    tokens: dict[int, Token]
    samples: list[LiveSample]
    notes: list[str]


def read_all(path: Path, choice: ModelChoice, job: Job) -> Recovered:
    """Read a project with all its images and traces."""
    from napari_ovam import load_trace

    project = Project.open(path)
    samples, notes = [], list(project.notes)
    entries = project.samples
    for done, entry in enumerate(entries):
        job.progress(done, len(entries))
        try:
            sample = read_sample(project, entry.name, choice)
        except ValueError as error:
            notes.append(f"{error}.")
            continue
        sample.settings = as_settings(project.settings(entry.name))
        try:
            sample.trace = load_trace(project.trace_path(entry.name))
        except (OSError, ValueError):
            notes.append(f"{sample.name} has no trace: load it again to map phrases.")
        samples.append(sample)
    tokens, wrong = read_tokens(project)
    return Recovered(path, list(project.classes), tokens, samples, notes + wrong)


def read_tokens(project: Project) -> tuple[dict[int, Token], list[str]]:
    """Return the tokens of a project's classes by id, and what cannot be read."""
    tokens, notes = {}, []
    for each in project.classes:
        if each.token is None:
            continue  # and torch is not imported for it
        try:
            token = project.load_token(each.id)
        except (OSError, ValueError) as error:
            notes.append(f"{error}.")
            continue
        if token is not None:
            tokens[each.id] = token
    return tokens, notes


def read_sample(
    project: Project, name: str, choice: ModelChoice, **fields: Any
) -> LiveSample:
    """Read image and labels of a sample; not its trace, nor its settings.

    Parameters
    ----------
    project, name
        Where it is.
    choice
        The model of an image that does not say which made it.
    fields
        Further fields of `LiveSample`.

    Raises
    ------
    ValueError
        If a file is missing or broken, or the labels do not fit the image.
    """
    entry = project.sample(name)
    try:
        image, ids = project.load_image(name), project.load_labels(name)
        painted = project.load_painted(name)
    except OSError as error:
        raise ProjectError(f"{name} cannot be read: {error}") from error
    if ids is not None and ids.shape != image.shape[:2]:
        raise ProjectError(
            f"the image of {name} is {image.shape[:2]} pixels now and its labels are "
            f"{ids.shape}: put the image back. Nothing was changed"
        )
    made_by = str(entry.provenance.get("model") or choice.model)
    sample = LiveSample(
        title(entry),
        image,
        ModelChoice(made_by, choice.device),
        absent=set(entry.absent),
        status=entry.status,
        prompt=str(entry.provenance.get("prompt", "")),
        about={k: v for k, v in entry.provenance.items() if k in ABOUT},
        **fields,
    )
    if ids is not None:
        sample.edits = _edits(ids, painted, entry)
    return sample


def title(entry: Sample) -> str:
    """Return what a person calls a sample: its prompt, or its file's name."""
    return str(entry.provenance.get("title") or entry.name)


def _edits(
    ids: NDArray[Any], painted: NDArray[np.bool_] | None, entry: Sample
) -> Edits:
    """Return labels with what a person decided.

    What the maps proposed under it is not known: background until they do so again.
    Labels that came from elsewhere, such as an import, are decided everywhere.
    """
    if painted is None or painted.shape != ids.shape:
        if entry.status in ("new", "proposed"):
            return Edits(ids)
        painted = np.ones(ids.shape, bool)
    return Edits(np.where(painted, 0, ids), ids, painted)
