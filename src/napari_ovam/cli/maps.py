"""What `maps` and `optimize` do with the classes and labels of a project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.attention.optimize import OptimizationSettings, optimize_token
from napari_ovam.attention.targets import labels_to_target
from napari_ovam.base.names import slug
from napari_ovam.diffusion.phrases import encode_phrase
from napari_ovam.images.png import write_png
from napari_ovam.project import ProjectError
from napari_ovam.project.class_tokens import give_token
from napari_ovam.segmentation.class_maps import class_iou, class_maps, seen
from napari_ovam.workflows.proposals import (
    ProposalReport,
    ProposalSettings,
    class_sources,
    propose,
)
from napari_ovam.workflows.sample_trace import sample_trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_ovam.attention.tokens import Token
    from napari_ovam.base.progress import Progress
    from napari_ovam.datasets.project_class import ProjectClass
    from napari_ovam.project import Project

_REVIEWED = ("edited", "accepted")


@dataclass(frozen=True)
class Optimized:
    """A token that was stored: its file, and the IoU of phrase and token."""

    path: Path
    before: float
    after: float


def choose_classes(
    project: Project, phrases: Sequence[str], *, tokens: bool | None
) -> list[int]:
    """Return the ids of the classes of phrases; new ones are added.

    Parameters
    ----------
    tokens
        Whether they are found by their tokens, where they have one. None leaves that
        as it is.
    """
    ids, known = [], project.classes
    for phrase in phrases:
        entry = known.by_name(phrase) or known.find(phrase) or known.add(phrase)
        if tokens is not None:
            source = "token" if tokens and entry.token else "phrase"
            entry = project.classes.change(entry.id, source=source)
        ids.append(project.classes.change(entry.id, active=True).id)
    return list(dict.fromkeys(ids))


def propose_classes(
    project: Project,
    pipe: Any,
    names: Sequence[str],
    ids: Sequence[int],
    *,
    layers: str,
    overwrite: bool,
    maps: bool,
    progress: Progress,
) -> ProposalReport:
    """Propose labels of classes anew, and write their maps where that is asked for."""
    for name in names:
        proposed = project.sample(name).status in ("new", "proposed")
        if proposed and project.labels_are_foreign(name):
            project.change_sample(name, status="edited")
    settings = ProposalSettings(
        redo=True,
        overwrite=overwrite,
        layers=layers,
        keep_traces=True,
        by_prompt=False,  # it was said what to look for
    )
    sources = class_sources(project, pipe, ids) if maps else {}
    failed: dict[str, str] = {}
    for name in names if maps else ():
        try:
            _save_maps(project, pipe, name, sources, layers)
        except (ValueError, OSError, RuntimeError) as error:
            failed[name] = str(error)
    rest = [name for name in names if name not in failed]
    report = propose(
        project, pipe, rest, classes=ids, settings=settings, progress=progress
    )
    return replace(report, failed={**failed, **report.failed})


def _save_maps(
    project: Project,
    pipe: Any,
    name: str,
    sources: Mapping[int, Sequence[Token]],
    layers: str,
) -> None:
    """Write the maps of classes, before refinement, as maps/NAME.ID-CLASS.png."""
    trace = sample_trace(project, name, pipe, keep=True)
    for number, values in class_maps(trace, sources, layers).items():
        entry = project.classes[number]
        path = project.path / "maps" / f"{name}.{number}-{slug(entry.name)}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, (values * 65535).round().astype(np.uint16))


def annotated(
    project: Project, entry: ProjectClass, chosen: Sequence[str] | None
) -> list[str]:
    """Return the samples whose labels a class is learned from.

    Those that are chosen; else all that hold it and were edited or accepted, or, where
    there is none, all that hold it and were not rejected.

    It raises `ProjectError` if there is none, or a chosen one has no labels.
    """
    if chosen:
        for name in chosen:
            if project.load_labels(name) is None:
                raise ProjectError(f"{name} has no labels: make some first")
        return list(dict.fromkeys(chosen))
    holding = [
        sample
        for sample in project.samples
        if sample.status != "rejected"
        and (labels := project.load_labels(sample.name)) is not None
        and (labels == entry.id).any()
    ]
    names = [s.name for s in holding if s.status in _REVIEWED]
    names = names or [sample.name for sample in holding]
    if not names:
        raise ProjectError(f"no labels in {project.path} hold the class {entry.name!r}")
    return names


def optimized(
    project: Project,
    entry: ProjectClass,
    names: Sequence[str],
    *,
    pipe: Any,
    recipe: str,
    iterations: int | None,
    progress: Progress,
) -> Optimized:
    """Optimize the token of a class on labelled samples, and use it from now on."""
    images = [project.load_image(name) for name in names]
    traces = [seen(sample_trace(project, name, pipe, keep=True)) for name in names]
    targets = [labels_to_target(_labels(project, name), entry.id) for name in names]
    phrase = encode_phrase(pipe, entry.phrase)
    settings = OptimizationSettings(recipe=recipe, iterations=iterations)  # type: ignore[arg-type]
    token = optimize_token(traces, phrase, targets, settings, progress=progress)

    def score(tokens: Sequence[Any], threshold: float | None) -> float:
        how: dict[str, Any] = {"threshold": threshold, "layers": "all"}
        examples = zip(traces, targets, images, strict=True)
        return float(
            np.mean([class_iou(t, tokens, m, i, **how) for t, m, i in examples])
        )

    before = score((phrase,), entry.thresholds["phrase"])
    after = score((token, phrase), None)
    give_token(project, entry.id, token)
    made = project.files.token(str(project.classes[entry.id].token))
    return Optimized(made, before, after)


def _labels(project: Project, name: str) -> np.ndarray[Any, Any]:
    labels = project.load_labels(name)
    if labels is None:
        raise ProjectError(f"the labels of {name} are gone from {project.path}")
    return labels
