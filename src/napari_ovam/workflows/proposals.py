"""Propose labels: the phrases and tokens of all classes on the images of a project.

What a person edited, accepted or rejected is never touched. Each image is written when
it is done, so that a run that was killed or cancelled is gone on with by the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_ovam.attention.token_files import TokenFileError
from napari_ovam.attention.tokens import Token, TokenError, check_token
from napari_ovam.attention.trace import ModelMismatchError
from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.base.words import is_named
from napari_ovam.diffusion.phrases import encode_phrase, text_space
from napari_ovam.segmentation.class_maps import (
    class_maps,
    label_maker,
    labels_and_doubt,
)
from napari_ovam.workflows.review_order import UNSURE
from napari_ovam.workflows.sample_trace import sample_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_ovam.datasets.project_class import ProjectClass
    from napari_ovam.project import Project
    from napari_ovam.project.index import Status


class ProposalError(ValueError):
    """What keeps labels from being proposed at all; the message names the classes."""


@dataclass(frozen=True)
class ProposalSettings:
    """How labels are proposed.

    Attributes
    ----------
    redo
        Whether images with the status "proposed" are done anew; "outdated": those that
        were proposed by other phrases or tokens than there are now. Else a run goes on
        with those that are still "new".
    overwrite
        Whether labels that a person edited, accepted or rejected are replaced, too.
    layers
        What maps are made of: see `class_maps.LAYERS`.
    labels
        Further fields of `LabelSettings`, such as {"min_size": 20}.
    trace
        What is recorded of images without a saved trace.
    keep_traces
        Whether new traces are saved in the project: some MB each.
    by_prompt
        Whether an image whose prompt names classes is taken to hold no others. A map
        has a bright spot even where its class is not in the image.
    """

    redo: bool | Literal["outdated"] = False
    overwrite: bool = False
    layers: str = "fine"
    labels: Mapping[str, Any] = field(default_factory=dict)
    trace: TraceSettings = field(default_factory=TraceSettings)
    keep_traces: bool = False
    by_prompt: bool = True


@dataclass(frozen=True)
class ProposalReport:
    """What a run did, by the names of the images.

    Attributes
    ----------
    proposed
        Images that got labels.
    kept
        Images that were left as they are, and why.
    failed
        Images that could not be done, and why; the others were.
    not_named
        Names of classes that were not looked for in an image, as its prompt names
        others.
    """

    proposed: tuple[str, ...]
    kept: Mapping[str, str]
    failed: Mapping[str, str]
    not_named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return which classes were not looked for, a sentence each."""
        images: dict[str, list[str]] = {}
        for image, classes in self.not_named.items():
            for name in classes:
                images.setdefault(name, []).append(image)
        return [
            f"{name!r} was not looked for in {len(where)} of the images, such as "
            f"{where[0]}: their prompts name other classes."
            for name, where in images.items()
        ]


def propose(
    project: Project,
    pipe: Any,
    names: Iterable[str] | None = None,
    *,
    classes: Iterable[int] | None = None,
    tokens: Mapping[int, Token] | None = None,
    settings: ProposalSettings | None = None,
    progress: Progress = no_progress,
    written: Callable[[str], object] | None = None,
) -> ProposalReport:
    """Look for classes in images and write what is found as proposed labels.

    Parameters
    ----------
    project
        A class is looked for by its phrase, or by its token and its phrase together,
        as its `source` says, with that source's threshold; not in images that are
        said not to hold it, nor, with `by_prompt`, where the prompt names others.
    pipe
        From `load_pipeline`. Images without a saved trace of its text encoder are
        traced with it.
    names
        The images; all by default.
    classes
        Ids of the classes; all active ones by default.
    tokens
        What finds some of them this time, with their phrases, in place of their own.
    settings
        How.
    progress
        Called with (images done, all images), and again while one is traced; may
        raise `Cancelled`. What was written before that stays.
    written
        Called with the name of each image as soon as it has its labels.

    Raises
    ------
    ProposalError
        If there is no class to look for, or one cannot be: its phrase is empty or too
        long, its token missing, damaged or of another model.
    ProjectError
        If an image or class is unknown.
    Cancelled
        If `progress` raised it.
    """
    settings = settings or ProposalSettings()
    chosen = project.samples if names is None else [project.sample(n) for n in names]
    sources = class_sources(project, pipe, classes)
    given = {n: (token, sources[n][-1]) for n, token in (tokens or {}).items()}
    sources |= given
    proposed: list[str] = []
    kept: dict[str, str] = {}
    failed: dict[str, str] = {}
    not_named: dict[str, tuple[str, ...]] = {}
    wanted: list[str] = []
    for sample in chosen:
        try:
            reason = why_kept(project, sample.name, settings, sources)
        except (ValueError, OSError) as error:  # its labels cannot be read
            failed[sample.name] = str(error)
            continue
        if reason:
            kept[sample.name] = reason
        else:
            wanted.append(sample.name)
    for done, name in enumerate(wanted):

        def report(*_: int, done: int = done) -> None:
            progress(done, len(wanted))

        report()
        try:
            unnamed = _unnamed(project, name, sources) if settings.by_prompt else {}
            looked = {i: s for i, s in sources.items() if i not in unnamed}
            reason = _propose_one(
                project, pipe, name, looked, settings, report, given.keys()
            )
        except (ValueError, OSError, RuntimeError) as error:
            failed[name] = str(error)  # its labels and status are as they were
            continue
        if reason:
            kept[name] = reason
        else:
            proposed.append(name)
            if unnamed:
                not_named[name] = tuple(unnamed.values())
            if written is not None:
                written(name)
    progress(len(wanted), len(wanted))
    return ProposalReport(tuple(proposed), kept, failed, not_named)


def class_sources(
    project: Project, pipe: Any, classes: Iterable[int] | None = None
) -> dict[int, tuple[Token, ...]]:
    """Return what finds each class, by its id: its phrase, with its token before it.

    It raises `ProposalError` if there is none, or some cannot be looked for; it names
    all of those.

    Parameters
    ----------
    classes
        Ids; all active classes by default.
    """
    entries = (
        [entry for entry in project.classes if entry.active]
        if classes is None
        else [project.classes[number] for number in dict.fromkeys(classes)]
    )
    if not entries:
        raise ProposalError(
            f"{project.path} has no class to look for: add classes, or activate some"
        )
    found: dict[int, tuple[Token, ...]] = {}
    wrong: list[str] = []
    for entry in entries:
        try:
            found[entry.id] = _source(project, pipe, entry)
        except (TokenError, TokenFileError, ModelMismatchError, OSError) as error:
            wrong.append(f"{entry.name!r} ({error})")
    if wrong:
        raise ProposalError(
            f"nothing was proposed: {len(wrong)} classes cannot be looked for: "
            f"{'; '.join(wrong)}. Mend them, or leave them out"
        )
    return found


def named_in(prompt: str, classes: Iterable[ProjectClass]) -> set[int]:
    """Return the ids of the classes whose name or phrase a prompt has, in any form."""
    return {
        entry.id
        for entry in classes
        if any(is_named(words, prompt) for words in {entry.name, entry.phrase})
    }


def _unnamed(project: Project, name: str, numbers: Iterable[int]) -> dict[int, str]:
    """Return classes that a prompt does not name, where it names any, by their ids."""
    prompt = str((project.settings(name) or {}).get("prompt") or "")
    named = named_in(prompt, project.classes)
    return {
        entry.id: entry.name
        for number in numbers
        if named and number not in named and (entry := project.classes.get(number))
    }


def _source(project: Project, pipe: Any, entry: ProjectClass) -> tuple[Token, ...]:
    phrase = encode_phrase(pipe, entry.phrase)
    if entry.source == "phrase":
        return (phrase,)
    token = project.load_token(entry.id)
    if token is None:
        raise TokenError("it shall be found by its token and has none")
    return check_token(token, text_space(pipe)), phrase


def why_kept(
    project: Project,
    name: str,
    settings: ProposalSettings,
    sources: Mapping[int, Sequence[Token]],
) -> str:
    """Return why labels of an image are not to be replaced; empty if they are."""
    if settings.overwrite:
        return ""
    status: Status = project.sample(name).status
    if status not in ("new", "proposed"):
        return status
    if status == "proposed":
        if not settings.redo:
            return "proposed already"
        if settings.redo == "outdated" and not _is_outdated(project, name, sources):
            return "proposed as it would be now"
    if project.labels_changed(name) or project.labels_are_foreign(name):
        return "changed by another program"
    painted = project.load_painted(name)
    # A kill may have come between a person's strokes and their status.
    return "painted" if painted is not None and painted.any() else ""


def _propose_one(
    project: Project,
    pipe: Any,
    name: str,
    sources: Mapping[int, Sequence[Token]],
    settings: ProposalSettings,
    progress: Progress,
    given: Collection[int],
) -> str:
    """Propose labels for one image; return why its old ones were kept, if they were.

    The classes in `given` have a token that is not their own.
    """
    image = project.load_image(name)
    absent = set(project.sample(name).absent)
    tokens = {i: token for i, token in sources.items() if i not in absent}
    trace = sample_trace(
        project,
        name,
        pipe,
        trace=settings.trace,
        keep=settings.keep_traces,
        progress=progress,
    )
    maps = class_maps(trace, tokens, settings.layers)
    # A person may have removed classes meanwhile.
    thresholds = {
        entry.id: None if entry.id in given else entry.threshold
        for entry in project.classes
        if entry.id in maps
    }
    maps = {number: maps[number] for number in thresholds}
    labels, unsure = np.zeros(image.shape[:2], np.uint8), 0.0
    if maps:
        maker = label_maker(maps, image)
        labels, unsure = labels_and_doubt(maker, thresholds, settings.labels)
    progress(0, 0)  # the last moment to cancel before something is written
    made_by = {
        "model": trace.model,
        "thresholds": {str(i): thresholds[i] for i in sorted(thresholds)},
        "sources": {str(i): describe_source(tokens[i]) for i in sorted(thresholds)},
        "layers": settings.layers,
        UNSURE: round(unsure, 4),
        **({"given": sorted(given)} if given else {}),
    }
    how = {"by": "maps", **made_by}
    return save_proposal(project, name, labels, settings, made_by, how, sources)


def save_proposal(
    project: Project,
    name: str,
    labels: NDArray[Any],
    settings: ProposalSettings,
    proposed_by: Mapping[str, Any],
    made_by: Mapping[str, Any],
    sources: Mapping[int, Sequence[Token]] | None = None,
) -> str:
    """Write proposed labels, or return why those that an image has are kept.

    Pixels of classes that a person removed meanwhile become background in `labels`.
    """
    with project.writing():  # else strokes that come meanwhile would be overwritten
        if reason := why_kept(project, name, settings, sources or {}):
            return reason
        gone = ~np.isin(labels, [0, *(entry.id for entry in project.classes)])
        labels[gone] = 0
        project.save_labels(
            name,
            labels,
            "proposed",
            painted=np.zeros(labels.shape, bool) if settings.overwrite else None,
            provenance={"proposed_by": proposed_by},
            made_by=made_by,
        )
    return ""


def _is_outdated(
    project: Project, name: str, sources: Mapping[int, Sequence[Token]]
) -> bool:
    """Whether labels were proposed by what some class has no more, unless given so."""
    made_by = project.sample(name).told("proposed_by")
    then = made_by.get("sources")
    if made_by.get("given") or not isinstance(then, dict):
        return False
    return any(
        then.get(str(number), now) != now
        for number, tokens in sources.items()
        for now in (describe_source(tokens),)
    )


def describe_source(tokens: Sequence[Token]) -> dict[str, str]:
    """Return the phrase of a class, and a hash of its token if it has one.

    `tokens` is as from `class_sources`.
    """
    *optimized, phrase = tokens
    found = {"phrase": phrase.name}
    return found | ({"token": optimized[0].digest} if optimized else {})
