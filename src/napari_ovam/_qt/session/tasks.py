"""What runs in a job's thread: plain functions without Qt, napari or the session.

torch and diffusers are imported inside, so that napari starts without them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from napari_ovam.images.arrays.stacks import Plane
from napari_ovam.segmentation.class_maps import (
    class_iou,
    class_map,
    class_maps,
    label_maker,
    label_settings,
    seen,
)
from napari_ovam.segmentation.presence import REFERENCES, presence

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
    from napari_ovam.attention.trace import Trace
    from napari_ovam.attention.trace_settings import TraceSettings
    from napari_ovam.datasets.exporters import WriterFactory
    from napari_ovam.segmentation.labels import LabelMaker

    from .models import Models
    from .state import ModelChoice
    from .worker import Job


_BLACK = "This image is black all over: there is nothing in it to look for."


@dataclass(frozen=True)
class MapRequest:
    """A class whose map is wanted: by its phrase, with its token where it has one.

    `layers` is one of `class_maps.LAYERS`.
    """

    id: int
    phrase: str
    token: Token | None = None
    layers: str = "fine"


@dataclass(frozen=True)
class LabelRequest:
    """How labels are made from maps: see `class_maps.class_labels`."""

    thresholds: Mapping[int, float | None]
    absent: frozenset[int] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps by class id with the pieces of their phrases, and scores of `presence`."""

    maps: dict[int, NDArray[np.float32]]
    pieces: dict[int, tuple[str, ...]]
    presence: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Preview:
    """An unfinished image."""

    picture: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Made:
    """A finished image with its trace and, where phrases are in use, its maps.

    `seconds` is how long the model ran for it, `probabilities` what labels come from,
    `plane` which frame of a video it is.
    """

    generation: Generation
    choice: ModelChoice
    maps: Maps | None
    labels: NDArray[Any] | None
    probabilities: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    seconds: float = 0
    notes: tuple[str, ...] = ()
    plane: Plane | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a token optimization; `map` is the first image's."""

    index: int
    loss: float
    map: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Optimized:
    """An optimized token, and the IoU of labels by the phrase and with the token."""

    token: Token
    before: float
    after: float


def make_maps(
    models: Models,
    choice: ModelChoice,
    trace: Trace,
    wanted: Sequence[MapRequest],
    job: Job,
) -> Maps:
    """Map phrases and tokens on one trace."""
    job.describe("Mapping")
    sources: dict[str, dict[int, list[Token]]] = {}
    pieces = {}
    for done, request in enumerate(wanted):
        job.progress(done, len(wanted))
        phrase = models.encode(choice, request.phrase, job)
        tokens = [phrase] if request.token is None else [request.token, phrase]
        sources.setdefault(request.layers, {})[request.id] = tokens
        pieces[request.id] = phrase.pieces
    maps: dict[int, NDArray[np.float32]] = {}
    for layers, several in sources.items():
        maps |= class_maps(trace, several, layers)
    references = [models.encode(choice, word, job) for word in REFERENCES]
    phrases = {r.id: models.encode(choice, r.phrase, job) for r in wanted}
    scores = presence(trace, phrases, references)
    job.progress(len(wanted), len(wanted))
    return Maps(maps, pieces, scores)


def special_maps(
    models: Models, choice: ModelChoice, trace: Trace, phrase: str, job: Job
) -> dict[str, NDArray[np.float32]]:
    """Map the start and end tokens that surround a phrase."""
    token = models.encode(choice, phrase, job)
    last = len(token.embedding)
    return {
        name: class_map(trace, replace(token, span=span))
        for name, span in (("start token", (0, 1)), ("end token", (last - 1, last)))
    }


class Labeller:
    """Makes labels of one image's maps after another's, in one thread at a time.

    It keeps what does not depend on thresholds, of the image it was asked for last: a
    slider that is dragged asks again and again.
    """

    def __init__(self) -> None:
        self._maps: dict[int, NDArray[np.float32]] = {}
        self._maker: LabelMaker | None = None

    def labels(
        self,
        maps: Mapping[int, NDArray[np.float32]],
        request: LabelRequest,
        image: NDArray[np.uint8],
    ) -> tuple[NDArray[Any], dict[int, NDArray[np.float32]]]:
        """Turn maps by class id into (H, W) class ids, as `class_labels` does.

        Also returns the probabilities that they were made of, by class id.
        """
        wanted = set(maps) & set(request.thresholds) - request.absent
        if not wanted:
            return np.zeros(image.shape[:2], np.uint8), {}
        chosen = {i: maps[i] for i in wanted}
        if self._maker is None or not _same(chosen, self._maps):
            self._maker, self._maps = label_maker(chosen, image), chosen
        ids = self._maker.ids
        settings = label_settings(request.thresholds, ids, request.options)
        found = dict(zip(ids, self._maker.maps, strict=True))
        return self._maker.labels(settings), found


def _same(one: Mapping[int, Any], other: Mapping[int, Any]) -> bool:
    """Whether two hold the same objects."""
    return set(one) == set(other) and all(one[i] is other[i] for i in one)


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes images with a model, and maps and labels of them as they are wanted.

    Each is posted as `Made` by the job that is given.
    """

    models: Models
    choice: ModelChoice
    wanted: Sequence[MapRequest]
    labels: LabelRequest | None

    def generate(
        self,
        job: Job,
        settings: GenerationSettings,
        count: int,
        trace: TraceSettings,
        frames: int | None = None,
    ) -> None:
        """Generate images, or videos of some frames, with one seed after the other."""
        from napari_ovam import generate, generate_video
        from napari_ovam.diffusion.pipelines import pipeline_architecture

        pipe = self.models.get(self.choice, job)
        is_video = bool(pipeline_architecture(pipe).length)
        how: dict[str, Any] = {"trace": trace, "progress": job.progress}
        black = (
            "The model returned a black image (a safety checker, or too little "
            "precision): try another seed or prompt."
        )
        for index in range(count):
            each = replace(settings, seed=settings.seed + index)
            suffix = f" {index + 1} of {count}" if count > 1 else ""
            job.describe(f"Generating{suffix}")
            start = time.monotonic()
            if not is_video:
                show = lambda _, picture: job.preview(Preview(picture))  # noqa: E731
                made = generate(pipe, each, preview=show, **how)
                self._post(job, made, start, black)
                continue
            stack, several = (
                uuid4().hex,
                generate_video(pipe, each, frames=frames, **how),
            )
            for number, made in enumerate(several):
                plane = Plane.frame(stack, each.prompt, number, len(several))
                self._post(job, made, start, black, plane)

    def trace(
        self,
        job: Job,
        image: NDArray[np.uint8],
        prompt: str,
        trace: TraceSettings,
        look: Mapping[str, Any],
    ) -> None:
        """Trace an image; `look`: noise_level and the like of `trace_image`."""
        from napari_ovam import trace_image

        pipe = self.models.get(self.choice, job)
        job.describe("Looking at the image")
        start = time.monotonic()
        generation = trace_image(
            pipe, image, prompt=prompt, trace=trace, progress=job.progress, **look
        )
        self._post(job, generation, start)

    def reproduce(
        self,
        job: Job,
        image: NDArray[np.uint8],
        settings: GenerationSettings,
        trace: TraceSettings,
    ) -> bool:
        """Generate an image again to get its trace; False where others come out."""
        from napari_ovam import generate

        pipe = self.models.get(self.choice, job)
        job.describe("Generating again for the trace")
        start = time.monotonic()
        generation = generate(pipe, settings, trace=trace, progress=job.progress)
        same = np.array_equal(generation.image, image)
        if same:
            self._post(job, generation, start)
        return same

    def _post(
        self,
        job: Job,
        generation: Generation,
        start: float,
        black: str = _BLACK,
        plane: Plane | None = None,
    ) -> None:
        seconds = time.monotonic() - start
        notes = [] if generation.image.any() else [black]
        maps = proposal = None
        likely: dict[int, NDArray[np.float32]] = {}
        if self.wanted:
            try:
                trace = generation.trace
                maps = make_maps(self.models, self.choice, trace, self.wanted, job)
            except ValueError as error:
                # A token of another model must not cost the person the image.
                notes.append(f"The image is there, its maps are not: {error}")
        if maps is not None and self.labels is not None:
            image = generation.image
            proposal, likely = Labeller().labels(maps.maps, self.labels, image)
        choice, said = self.choice, tuple(notes)
        job.post(Made(generation, choice, maps, proposal, likely, seconds, said, plane))


def optimize(
    models: Models,
    choice: ModelChoice,
    request: MapRequest,
    traces: Sequence[Trace],
    images: Sequence[NDArray[np.uint8]],
    targets: Sequence[NDArray[np.uint8]],
    settings: OptimizationSettings | None,
    job: Job,
) -> Optimized:
    """Optimize a token, and score labels of the class alone against the targets."""
    from napari_ovam import optimize_token

    phrase = models.encode(choice, request.phrase, job)
    job.describe("Optimizing")
    traces = [seen(trace, request.layers) for trace in traces]

    def scored(tokens: Sequence[Token]) -> float:
        each = zip(traces, targets, images, strict=True)
        found = [
            class_iou(trace, tokens, target, image, layers="all")
            for trace, target, image in each
        ]
        return float(np.mean(found))

    before = scored([phrase])

    def on_step(index: int, loss: float, maps: Any) -> None:
        job.preview(Step(index, float(loss), _first_map(maps)))

    token = optimize_token(
        traces, phrase, targets, settings, progress=job.progress, on_step=on_step
    )
    return Optimized(token, before, scored([token, phrase]))


def _first_map(maps: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the first image's map, 0 to 1."""
    values: NDArray[np.float32] = maps[0].detach().float().cpu().numpy()
    top = float(values.max())
    return values / top if top > 0 else values


def export(
    items: Iterable[ExportItem],
    classes: Sequence[LabelClass],
    folder: Path,
    formats: Sequence[str],
    overwrite: bool,
    split: str,
    job: Job,
    more: Mapping[str, WriterFactory] | None = None,
) -> str:
    """Write a dataset, split by shares such as "0.8,0.1,0.1" if there are any.

    Returns what is to be said of it: how well polygons agree with the masks.
    """
    from napari_ovam import export_dataset
    from napari_ovam.datasets.exporters import parse_split

    made = export_dataset(
        items,
        classes,
        folder,
        formats,
        overwrite=overwrite,
        split=parse_split(split) if split.strip() else None,
        progress=job.progress,
        more=more,
    )
    said = "".join(f" {note}." for note in made.notes)
    return said + "".join(
        f" {name}: the polygons' lowest IoU is {lowest.iou:.3f} ({lowest.image})."
        for name, lowest in made.lowest_iou.items()
    )
