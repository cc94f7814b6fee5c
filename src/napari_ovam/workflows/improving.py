"""Improve tokens from accepted images, and say what that is worth on others.

Each class is optimized on the images that a person accepted, and scored on ones that
were left out, the way labels are proposed: by token and phrase together, beside the
other classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from napari_ovam.attention.optimize import (
    OptimizationError,
    OptimizationSettings,
)
from napari_ovam.attention.targets import labels_to_target
from napari_ovam.attention.token_files import TokenFileError
from napari_ovam.attention.tokens import TokenError, check_token
from napari_ovam.attention.trace import ModelMismatchError
from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.diffusion.phrases import encode_phrase, text_space
from napari_ovam.images.files import ImageFileError
from napari_ovam.project.class_tokens import give_token
from napari_ovam.workflows.accepted import (
    Examples,
    draw_names,
    usable_images,
)
from napari_ovam.workflows.class_score import ClassScore
from napari_ovam.workflows.refitting import Refitted, Report, optimized, refit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_ovam.attention.tokens import Token
    from napari_ovam.datasets.project_class import ProjectClass, Source
    from napari_ovam.project import Project
    from napari_ovam.project.token_library import TokenLibrary

Store = Literal["better", "always", "never"]


@dataclass(frozen=True)
class ImproveSettings:
    """How tokens are improved.

    Attributes
    ----------
    leave_out
        Share of a class's images that is left out at a time, above 0 and below 1, to
        score a token of the others on them; of fewer than five images one is. The
        token is then optimized on all of them.
    fewest, most
        Images of a class: with fewer it is skipped, and at most so many are used,
        chosen by `seed`, as the optimization holds all of their traces in memory.
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
    fewest: int = 1
    most: int = 12
    seed: int = 0
    store: Store = "better"
    layers: str = "fine"
    optimization: OptimizationSettings | None = None
    trace: TraceSettings = field(default_factory=TraceSettings)

    @classmethod
    def quick(cls, layers: str) -> Self:
        """Return how tokens are learned after each accepted image: in some seconds."""
        return cls(
            leave_out=0.5,
            fewest=2,
            most=8,
            store="never",
            layers=layers,
            optimization=OptimizationSettings(iterations=30),
        )

    def __post_init__(self) -> None:
        if not 0 < self.leave_out < 1:
            raise ValueError(
                f"leave_out is {self.leave_out!r}: give a share above 0 and below 1"
            )
        for name in ("fewest", "most"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: give a whole number from 1")
        if self.store not in get_args(Store):
            raise ValueError(f"store is {self.store!r}: give one of {get_args(Store)}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Improvement(Refitted):
    """What a token optimized on accepted images is worth for a class.

    Before and after are the IoU of the class in labels that are proposed for all
    classes of an image; before with the threshold in use, after with 0.5, which the
    class gets with the token.

    Attributes
    ----------
    id, name
        The class.
    source
        What it was compared with: the "phrase", or the "token" in use.
    stored
        Whether the class has the new token now.
    """

    id: int
    name: str
    source: Source
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
    ids = [entry.id for entry in entries]
    usable, failed = usable_images(project, ids, lambda: progress(0, 0))
    for entry in entries:
        seed = settings.seed, entry.id
        names = draw_names(usable[entry.id], settings.most, seed)
        if len(names) >= settings.fewest:
            plans.append((entry, names))
        else:
            hold = f"only {len(names)} accepted image" if names else "no accepted image"
            skipped[entry.name] = (
                f"{hold} holds it beside other pixels: accept images with it"
            )
    report = Report(progress, len(plans))
    results: list[Improvement] = []
    how = settings.layers, settings.trace, report.of_one
    with Examples(project, pipe, *how) as examples:
        for place, (entry, names) in enumerate(plans):
            report.begin(place)
            if entry.id not in project.classes:
                skipped[entry.name] = "it was removed meanwhile"
                continue
            try:
                found = _improve(entry, names, examples, settings, report)
            except (OptimizationError, TokenError, ImageFileError) as error:
                skipped[entry.name] = str(error)
                continue
            wanted = settings.store == "better" and found.better
            if settings.store == "always" or wanted:
                given = give_token(project, found.id, found.token, library=library)
                found = replace(found, stored=given)
            results.append(found)
    progress(report.total, report.total)
    return ImproveReport(tuple(results), skipped, failed)


def _improve(
    entry: ProjectClass,
    names: list[str],
    examples: Examples,
    settings: ImproveSettings,
    report: Report,
) -> Improvement:
    phrase = encode_phrase(examples.pipe, entry.phrase)
    used = _token_in_use(examples, entry)
    old = (used, phrase) if used else (phrase,)
    level = entry.threshold if bool(used) == (entry.source == "token") else None
    all_of_them = {name: examples[name] for name in names}
    score = ClassScore(entry, examples)

    def optimize(chosen: Sequence[str]) -> Token:
        several = [all_of_them[name] for name in chosen]
        return optimized(
            phrase,
            several,
            [labels_to_target(each.labels, entry.id) for each in several],
            settings.optimization,
            report,
        )

    found = refit(
        names,
        optimize,
        lambda name: score(old, level, name, all_of_them[name]),
        lambda token, name: score((token, phrase), None, name, all_of_them[name]),
        leave_out=settings.leave_out,
        seed=(settings.seed, entry.id),
        used=used,
        report=report,
    )
    return Improvement(
        **{each.name: getattr(found, each.name) for each in fields(Refitted)}
        | {"token": replace(found.token, name=entry.name)},
        id=entry.id,
        name=entry.name,
        source="token" if used else "phrase",
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
