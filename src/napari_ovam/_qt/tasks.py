"""What runs in a job's thread: plain functions without Qt, napari or the session.

torch and diffusers are imported inside, so that napari starts without them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.weights.recent import remember_model

from .model_jobs import load_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ovam import (
        ExportItem,
        Generation,
        GenerationSettings,
        LabelClass,
        OptimizationSettings,
        Token,
    )
    from napari_ovam.trace import Trace, TraceSettings
    from napari_ovam.weights.memory import MemoryPlan

    from .state import ModelChoice
    from .worker import Job


LAYERS = ("fine", "all")  # what a map is made of: see Trace.fine
# Refined maps by class id: of which map, how, and what came out.
RefinedMaps = dict[int, tuple["NDArray[np.float32]", str, "NDArray[np.float32]"]]


@dataclass(frozen=True)
class MapRequest:
    """A class whose map is wanted: by its token, or by its phrase.

    `layers` is one of `LAYERS`.
    """

    id: int
    phrase: str
    threshold: float
    token: Token | None = None
    layers: str = "fine"


@dataclass(frozen=True)
class LabelRequest:
    """How labels are made from maps.

    `refine` is a name in `napari_ovam.refine.REFINEMENTS`, or empty for none.
    """

    thresholds: Mapping[int, float]
    absent: frozenset[int] = frozenset()
    refine: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps by class id with the pieces of their phrases."""

    maps: dict[int, NDArray[np.float32]]
    pieces: dict[int, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Preview:
    """An unfinished image."""

    picture: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Made:
    """A finished image with its trace and, where phrases are in use, its maps.

    `seconds` is how long the model ran for it.
    """

    generation: Generation
    choice: ModelChoice
    maps: Maps | None
    labels: NDArray[Any] | None
    seconds: float = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a token optimization; `map` is the first image's."""

    index: int
    loss: float
    map: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Optimized:
    """An optimized token and how well phrase and token fit the labels."""

    token: Token
    threshold: float
    before: float
    after: float
    maps: dict[str, NDArray[np.float32]]


class Models:
    """Holds the pipeline used last and the phrases that were encoded.

    Only one job runs at a time, so nothing here needs a lock.

    Attributes
    ----------
    plans
        How a person wants models to be loaded, to take less memory.
    """

    def __init__(self) -> None:
        self.plans: dict[ModelChoice, MemoryPlan] = {}
        self._loaded: tuple[tuple[ModelChoice, MemoryPlan | None], Any] | None = None
        self._encoded: dict[tuple[str, str], Token] = {}

    def get(self, choice: ModelChoice, job: Job) -> Any:
        """Return the pipeline of a choice, loading it as planned where needed."""
        wanted = choice, self.plans.get(choice)
        if self._loaded is None or self._loaded[0] != wanted:
            title = job.title
            job.describe(f"Loading the model {choice.model}", holds=True)
            self._loaded = None  # two models may not fit into memory
            self._loaded = wanted, load_model(*wanted)
            remember_model(choice.model)
            job.describe(title)
        return self._loaded[1]

    def encode(self, choice: ModelChoice, phrase: str, job: Job) -> Token:
        """Return a phrase as a token, from memory where it was encoded before."""
        key = (choice.model, phrase)
        if key not in self._encoded:
            from napari_ovam import encode_phrase

            self._encoded[key] = encode_phrase(self.get(choice, job), phrase)
        return self._encoded[key]


def map_of(trace: Trace, token: Token, layers: str = "fine") -> NDArray[np.float32]:
    """Return the map that is shown and labelled, (H, W) from 0 to 1.

    Stretched to its own range: a short phrase competes with few other tokens, so its
    map may be high everywhere, and no threshold of its maximum would tell.
    """
    from napari_ovam import phrase_map

    return phrase_map(seen(trace, layers), token, normalize="minmax")


def seen(trace: Trace, layers: str) -> Trace:
    """Return the part of a trace that maps are made of."""
    return trace.fine() if layers == "fine" else trace


def refined(
    maps: Mapping[int, NDArray[np.float32]],
    image: NDArray[np.uint8],
    method: str,
    known: RefinedMaps | None = None,
) -> dict[int, NDArray[np.float32]]:
    """Return maps whose borders follow the image; `known` saves doing it twice."""
    if not method:
        return dict(maps)
    from napari_ovam.refine import refine

    known = {} if known is None else known
    for number, values in maps.items():
        old = known.get(number)
        if old is None or old[0] is not values or old[1] != method:
            known[number] = values, method, refine(values, image, method)
    return {number: known[number][2] for number in maps}


def make_maps(
    models: Models,
    choice: ModelChoice,
    trace: Trace,
    wanted: Sequence[MapRequest],
    job: Job,
) -> Maps:
    """Map phrases and tokens on one trace."""
    job.describe("Mapping")
    maps, pieces = {}, {}
    for done, request in enumerate(wanted):
        job.progress(done, len(wanted))
        token = request.token or models.encode(choice, request.phrase, job)
        maps[request.id] = map_of(trace, token, request.layers)
        pieces[request.id] = token.pieces
    job.progress(len(wanted), len(wanted))
    return Maps(maps, pieces)


def special_maps(
    models: Models, choice: ModelChoice, trace: Trace, phrase: str, job: Job
) -> dict[str, NDArray[np.float32]]:
    """Map the start and end tokens that surround a phrase."""
    token = models.encode(choice, phrase, job)
    last = len(token.embedding)
    return {
        name: map_of(trace, replace(token, span=span))
        for name, span in (("start token", (0, 1)), ("end token", (last - 1, last)))
    }


def make_labels(
    maps: Mapping[int, NDArray[np.float32]],
    request: LabelRequest,
    image: NDArray[np.uint8],
    known: RefinedMaps | None = None,
) -> NDArray[Any]:
    """Turn maps by class id into (H, W) class ids; `known` as in `refined`."""
    from napari_ovam import LabelSettings, maps_to_labels

    ids = sorted(set(maps) & set(request.thresholds) - request.absent)
    if not ids:
        return np.zeros(image.shape[:2], np.uint8)
    settings = LabelSettings(
        threshold=tuple(request.thresholds[i] for i in ids), **request.options
    )
    fine = refined({i: maps[i] for i in ids}, image, request.refine, known)
    stack = np.stack([fine[i] for i in ids])
    labels: NDArray[Any] = maps_to_labels(stack, settings, ids=ids, image=image)
    return labels


def generate_images(
    models: Models,
    choice: ModelChoice,
    settings: GenerationSettings,
    count: int,
    trace: TraceSettings,
    wanted: Sequence[MapRequest],
    labels: LabelRequest | None,
    job: Job,
) -> int:
    """Generate images, each posted as `Made` when it is done; return how many."""
    from napari_ovam import generate

    pipe = models.get(choice, job)
    for index in range(count):
        each = replace(settings, seed=settings.seed + index)
        suffix = f" {index + 1} of {count}" if count > 1 else ""
        job.describe(f"Generating{suffix}")
        start = time.monotonic()
        generation = generate(
            pipe,
            each,
            trace=trace,
            progress=job.progress,
            preview=lambda _, picture: job.preview(Preview(picture)),
        )
        job.post(_made(models, choice, generation, wanted, labels, job, start))
    return count


def trace_images(
    models: Models,
    choice: ModelChoice,
    images: Sequence[tuple[NDArray[np.uint8], str]],
    trace: TraceSettings,
    wanted: Sequence[MapRequest],
    labels: LabelRequest | None,
    job: Job,
    look: Mapping[str, Any] | None = None,
) -> int:
    """Trace existing images with their prompts, each posted as `Made`.

    `look` holds noise_level, noise_seeds, flip and max_tiles of `trace_image`.
    """
    from napari_ovam import trace_image

    pipe = models.get(choice, job)
    for image, prompt in images:
        job.describe("Looking at the image")
        start = time.monotonic()
        generation = trace_image(
            pipe,
            image,
            prompt=prompt,
            trace=trace,
            progress=job.progress,
            **(look or {}),
        )
        job.post(_made(models, choice, generation, wanted, labels, job, start))
    return len(images)


def reproduce_image(
    models: Models,
    choice: ModelChoice,
    image: NDArray[np.uint8],
    settings: GenerationSettings,
    trace: TraceSettings,
    wanted: Sequence[MapRequest],
    labels: LabelRequest | None,
    job: Job,
) -> Generation | None:
    """Generate an image again from its settings to get its trace.

    Posts `Made` and returns None where the pixels are the same; else returns the
    image that came out, and posts nothing.
    """
    from napari_ovam import generate

    pipe = models.get(choice, job)
    job.describe("Generating again for the trace")
    start = time.monotonic()
    generation = generate(pipe, settings, trace=trace, progress=job.progress)
    if not np.array_equal(generation.image, image):
        return generation
    job.post(_made(models, choice, generation, wanted, labels, job, start))
    return None


def _made(
    models: Models,
    choice: ModelChoice,
    generation: Generation,
    wanted: Sequence[MapRequest],
    labels: LabelRequest | None,
    job: Job,
    start: float,
) -> Made:
    seconds = time.monotonic() - start
    notes: tuple[str, ...] = ()
    if not generation.image.any():
        notes = (
            "The model returned a black image (a safety checker, or too little "
            "precision): try another seed or prompt.",
        )
    if not wanted:
        return Made(generation, choice, None, None, seconds, notes)
    try:
        maps = make_maps(models, choice, generation.trace, wanted, job)
    except ValueError as error:
        # A token of another model must not cost the person the image.
        note = f"The image is there, its maps are not: {error}"
        return Made(generation, choice, None, None, seconds, (*notes, note))
    proposal = None
    if labels is not None:
        proposal = make_labels(maps.maps, labels, generation.image)
    return Made(generation, choice, maps, proposal, seconds, notes)


def optimize(
    models: Models,
    choice: ModelChoice,
    request: MapRequest,
    traces: Sequence[Trace],
    images: Sequence[NDArray[np.uint8]],
    targets: Sequence[NDArray[np.uint8]],
    keys: Sequence[str],
    settings: OptimizationSettings | None,
    refine: str,
    job: Job,
) -> Optimized:
    """Optimize a token and score phrase and token against the targets.

    What is scored are maps refined as for labels: thresholds belong to those.
    """
    from napari_ovam import optimize_token

    phrase = models.encode(choice, request.phrase, job)
    job.describe("Optimizing")
    traces = [seen(trace, request.layers) for trace in traces]

    def scored(maps: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
        pairs = zip(maps, images, strict=True)
        return fit_threshold(
            [refined({0: each}, image, refine)[0] for each, image in pairs], targets
        )

    _, before = scored([map_of(trace, phrase, "all") for trace in traces])

    def on_step(index: int, loss: float, maps: Any) -> None:
        job.preview(Step(index, float(loss), _first_map(maps)))

    token = optimize_token(
        traces, phrase, targets, settings, progress=job.progress, on_step=on_step
    )
    after_maps = [map_of(trace, token, "all") for trace in traces]
    threshold, after = scored(after_maps)
    return Optimized(
        token, threshold, before, after, dict(zip(keys, after_maps, strict=True))
    )


def _first_map(maps: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the first image's map, 0 to 1."""
    values: NDArray[np.float32] = maps[0].detach().float().cpu().numpy()
    top = float(values.max())
    return values / top if top > 0 else values


def fit_threshold(
    maps: Sequence[NDArray[np.float32]], targets: Sequence[NDArray[np.uint8]]
) -> tuple[float, float]:
    """Return the threshold that fits all maps best, and its mean IoU."""
    from napari_ovam import best_threshold

    return best_threshold(list(maps), list(targets))


def export(
    items: Iterable[ExportItem],
    classes: Sequence[LabelClass],
    folder: Path,
    formats: Sequence[str],
    overwrite: bool,
    job: Job,
) -> Path:
    """Write a dataset."""
    from napari_ovam import export_dataset

    return export_dataset(
        items, classes, folder, formats, overwrite=overwrite, progress=job.progress
    )
