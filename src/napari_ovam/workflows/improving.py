"""Improve tokens from accepted images, and say what that is worth on others.

Each class is optimized on some of the images that a person accepted and scored on the
ones left out, the way labels are proposed: by token and phrase together. Where there
are few, each is left out once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_ovam.attention.optimize import (
    OptimizationError,
    OptimizationSettings,
    optimize_token,
)
from napari_ovam.attention.targets import labels_to_target
from napari_ovam.attention.token_files import TokenFileError
from napari_ovam.attention.tokens import TokenError, check_token
from napari_ovam.attention.trace import ModelMismatchError
from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.base.progress import Cancelled, Progress, no_progress
from napari_ovam.diffusion.phrases import encode_phrase, text_space
from napari_ovam.project.class_tokens import give_token
from napari_ovam.segmentation.class_maps import class_iou
from napari_ovam.workflows.accepted import (
    FEW,
    Example,
    Examples,
    draw_names,
    split_names,
    usable_images,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_ovam.attention.tokens import Token
    from napari_ovam.datasets.project_class import ProjectClass, Source
    from napari_ovam.project import Project
    from napari_ovam.project.token_library import TokenLibrary

Store = Literal["better", "always", "never"]

_OPTIMIZATION = 100  # what one counts in the progress


@dataclass(frozen=True)
class ImproveSettings:
    """How tokens are improved.

    Attributes
    ----------
    leave_out
        Share of a class's images that a token is not optimized but scored on, above 0
        and below 1; at least one of two or more. Of fewer than five images each is
        left out once, and the token is then optimized on all of them.
    most
        Images of a class that are used, at least 1, chosen by `seed`: the optimization
        holds all of their traces in memory.
    seed
        Of the choice.
    store
        Which tokens the classes get: those that are "better" than what they have,
        "always" or "never".
    layers
        As in `ProposalSettings`.
    optimization
        As for `optimize_token`.
    trace
        What is recorded of images without a saved trace.
    """

    leave_out: float = 0.25
    most: int = 12
    seed: int = 0
    store: Store = "better"
    layers: str = "fine"
    optimization: OptimizationSettings | None = None
    trace: TraceSettings = field(default_factory=TraceSettings)

    def __post_init__(self) -> None:
        if not 0 < self.leave_out < 1:
            raise ValueError(
                f"leave_out is {self.leave_out!r}: give a share above 0 and below 1"
            )
        if not isinstance(self.most, int) or self.most < 1:
            raise ValueError(f"most is {self.most!r}: give a whole number from 1")
        if self.store not in get_args(Store):
            raise ValueError(f"store is {self.store!r}: give one of {get_args(Store)}")


@dataclass(frozen=True, eq=False)
class Improvement:
    """What a token optimized on accepted images is worth for a class.

    Attributes
    ----------
    id, name
        The class.
    source
        What it was compared with: the "phrase", or the "token" in use.
    before, after
        Mean IoU on `left_out`, before with the threshold in use, after with 0.5,
        which the class gets with the token.
    token
        The new token.
    images
        What it was optimized on.
    left_out
        What both were scored on. Empty where there was one image: before and after
        are of that image itself then, and say little.
    known
        Those of `left_out` that the token in use had learned from: `before` flatters
        it there. They count only where there are no others.
    stored
        Whether the class has the new token now.
    """

    id: int
    name: str
    source: Source
    before: float
    after: float
    token: Token
    images: tuple[str, ...]
    left_out: tuple[str, ...]
    known: tuple[str, ...] = ()
    stored: bool = False


@dataclass(frozen=True)
class ImproveReport:
    """What came of each class.

    Attributes
    ----------
    results
        One for each class that was optimized, whether its token is better or not.
    skipped
        Why others were not, by the class's name.
    failed
        Why accepted images could not be used, by the image's name.
    """

    results: tuple[Improvement, ...]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]


def improve_tokens(
    project: Project,
    pipe: Any,
    classes: Iterable[int] | None = None,
    *,
    settings: ImproveSettings | None = None,
    library: TokenLibrary | None = None,
    progress: Progress = no_progress,
) -> ImproveReport:
    """Optimize the tokens of classes on the accepted images of a project.

    Pixels that are unsure (255) do not count. Each class's result is stored before the
    next class is begun.

    Parameters
    ----------
    classes
        Ids; all by default. One that no accepted image holds is skipped.
    settings
        How.
    library
        Where a token that is replaced is kept; without it, it is lost.
    progress
        Called with (done, all) of the work; may raise `Cancelled`. What was stored
        before that stays.

    Raises
    ------
    ModelMismatchError
        If the saved trace of an image comes from another text encoder.
    ProjectError, ClassError
        If a class is unknown.
    Cancelled
        If `progress` raised it.
    OSError
        If something cannot be read or written.
    """
    settings = settings or ImproveSettings()
    entries = (
        list(project.classes)
        if classes is None
        else [project.classes[number] for number in dict.fromkeys(classes)]
    )
    skipped: dict[str, str] = {}
    plans: list[tuple[ProjectClass, list[str]]] = []
    usable, failed = usable_images(project, [entry.id for entry in entries])
    for entry in entries:
        seed = settings.seed, entry.id
        if names := draw_names(usable[entry.id], settings.most, seed):
            plans.append((entry, names))
        else:
            skipped[entry.name] = (
                "no accepted image holds it beside other pixels: accept images with it"
            )
    report = _Report(progress, [_runs(len(names)) for _, names in plans])
    results: list[Improvement] = []
    with Examples(
        project,
        pipe,
        layers=settings.layers,
        settings=settings.trace,
        check=report.of_one,
    ) as examples:
        for place, (entry, names) in enumerate(plans):
            report.begin(place)
            if entry.id not in project.classes:
                skipped[entry.name] = "it was removed meanwhile"
                continue
            try:
                found = _improve(entry, names, examples, settings, report)
            except (OptimizationError, TokenError) as error:
                skipped[entry.name] = str(error)
                continue
            better = found.after > found.before
            if settings.store == "always" or (settings.store == "better" and better):
                given = give_token(project, found.id, found.token, library=library)
                found = replace(found, stored=given)
            results.append(found)
    progress(report.total, report.total)
    return ImproveReport(tuple(results), skipped, failed)


class _Report:
    """Progress over several optimizations."""

    def __init__(self, progress: Progress, runs: Sequence[int]) -> None:
        self._progress = progress
        self._runs = runs
        self._done = 0
        self.total = sum(runs) * _OPTIMIZATION

    def begin(self, place: int) -> None:
        """Begin a class, wherever the one before ended."""
        self._done = sum(self._runs[:place]) * _OPTIMIZATION
        self.of_one()

    def of_one(self, done: int = 0, total: int = 1) -> None:
        """Report the steps of one optimization, or that work goes on."""
        step = min(_OPTIMIZATION, _OPTIMIZATION * done // max(total, 1))
        self._progress(self._done + step, self.total)

    def end_one(self) -> None:
        """Count an optimization as done, in however many steps."""
        self._done += _OPTIMIZATION
        self.of_one()


def _runs(count: int) -> int:
    """Return how many optimizations a class with that many images takes."""
    return count + 1 if 1 < count < FEW else 1


def _improve(
    entry: ProjectClass,
    names: list[str],
    examples: Examples,
    settings: ImproveSettings,
    report: _Report,
) -> Improvement:
    phrase = encode_phrase(examples.pipe, entry.phrase)
    used = _token_in_use(examples, entry)
    learned = set((used.info if used else {}).get("learned_from", ()))
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for inside, outside in split_names(
        names, settings.leave_out, (settings.seed, entry.id), learned
    ):
        token = _optimized(entry, phrase, inside, examples, settings, report)
        old = (used, phrase) if used else (phrase,)
        level = entry.threshold if bool(used) == (entry.source == "token") else None
        for name in outside or inside[:1]:
            found = examples[name]
            before[name] = _score(entry, old, level, found)
            after[name] = _score(entry, (token, phrase), None, found)
    if 1 < len(names) == len(before):  # each was left out once
        inside = names
        token = _optimized(entry, phrase, inside, examples, settings, report)
    fair = sorted(set(before) - learned) or sorted(before)
    score = float(np.mean([after[name] for name in fair]))
    info = {
        **token.info,
        "images": len(inside),
        "learned_from": list(inside),
        "iou": round(score, 4),
    }
    return Improvement(
        entry.id,
        entry.name,
        "token" if used else "phrase",
        float(np.mean([before[name] for name in fair])),
        score,
        replace(token, name=entry.name, info=info),
        tuple(inside),
        tuple(fair) if len(names) > 1 else (),
        tuple(name for name in fair if name in learned),
    )


def _token_in_use(examples: Examples, entry: ProjectClass) -> Token | None:
    """Return the token in use; None where it is gone, damaged or of another model."""
    if entry.source != "token":
        return None
    try:
        token = examples.project.load_token(entry.id)
        return None if token is None else check_token(token, text_space(examples.pipe))
    except (TokenFileError, TokenError, ModelMismatchError, OSError):
        return None


def _optimized(
    entry: ProjectClass,
    phrase: Token,
    names: Sequence[str],
    examples: Examples,
    settings: ImproveSettings,
    report: _Report,
) -> Token:
    chosen = [examples[name] for name in names]
    token = optimize_token(
        [each.trace for each in chosen],
        phrase,
        [labels_to_target(each.labels, entry.id) for each in chosen],
        settings.optimization,
        progress=report.of_one,
    )
    if token.info["cancelled"]:
        raise Cancelled
    report.end_one()
    return token


def _score(
    entry: ProjectClass,
    tokens: Sequence[Token],
    threshold: float | None,
    example: Example,
) -> float:
    return class_iou(
        example.trace,
        tokens,
        labels_to_target(example.labels, entry.id),
        example.image,
        threshold=threshold,
        layers="all",  # the layers were chosen before
    )
