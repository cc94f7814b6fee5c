"""The accepted images of a project, as examples to learn classes from."""

from __future__ import annotations

import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.attention.trace_cache import TraceCache
from napari_ovam.base.ids import IGNORE
from napari_ovam.segmentation.class_maps import seen
from napari_ovam.workflows.sample_trace import sample_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import Trace
    from napari_ovam.attention.trace_settings import TraceSettings
    from napari_ovam.project import Project

_ROOM = 1_000_000_000  # bytes
FEW = 5
"""Fewer images than this are left out one by one."""


@dataclass(frozen=True, eq=False)
class Example:
    """An accepted image: (H, W, 3) uint8, class ids (H, W), and its trace."""

    image: NDArray[np.uint8]
    labels: NDArray[Any]
    trace: Trace


class Examples(AbstractContextManager["Examples"]):
    """Images of a project by name; new traces wait on the disk, not in memory.

    Parameters
    ----------
    project
        The project; saved traces are used.
    pipe
        What other images are traced with.
    layers
        The part of a trace that is wanted: see `class_maps.LAYERS`.
    settings
        What is recorded of images without a saved trace.
    check
        Called while an image is traced; may raise `Cancelled`.
    """

    def __init__(
        self,
        project: Project,
        pipe: Any,
        layers: str,
        settings: TraceSettings,
        check: Callable[[], None],
    ) -> None:
        self.project, self.pipe = project, pipe
        self._layers, self._settings, self._check = layers, settings, check
        self._folder = tempfile.TemporaryDirectory(prefix="napari-ovam-traces-")
        self._cache = TraceCache()
        if self._cache.limit < _ROOM:  # each is asked for several times
            self._cache = TraceCache(self._folder.name, sys.maxsize)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def __getitem__(self, name: str) -> Example:
        labels = self.project.load_labels(name, to_edit=False)
        if labels is None:
            raise OSError(f"the labels of {name} are gone from {self.project.path}")
        image = self.project.load_image(name)
        trace = sample_trace(
            self.project,
            name,
            self.pipe,
            trace=self._settings,
            cache=self._cache,
            progress=lambda *_: self._check(),
        )
        return Example(image, labels, seen(trace, self._layers))


def usable_images(
    project: Project, ids: Sequence[int], check: Callable[[], None]
) -> tuple[dict[int, list[str]], dict[str, str]]:
    """Return the accepted images that hold a class and something else, by class.

    And those that cannot be read, with why. `check` is called often; it may raise
    `Cancelled`.
    """
    found: dict[int, list[str]] = {number: [] for number in ids}
    failed: dict[str, str] = {}
    for sample in project.samples:
        check()
        if sample.status != "accepted":
            continue
        try:
            labels = project.load_labels(sample.name, to_edit=False)
            size = project.image_size(sample.name)
        except (ValueError, OSError) as error:
            failed[sample.name] = str(error)
            continue
        if labels is None:
            failed[sample.name] = "it is accepted and has no labels"
        elif project.is_missing(sample.name):
            failed[sample.name] = "its picture is missing"
        elif project.picture_changed(sample.name):
            failed[sample.name] = "its picture was changed since it was added"
        elif labels.shape != size:
            failed[sample.name] = f"the image is {size}, its labels are {labels.shape}"
        else:
            known = set(np.unique(labels).tolist()) - {IGNORE}
            for number in known & set(ids) if len(known) > 1 else ():
                found[number].append(sample.name)
    return found, failed


def draw_names(names: Sequence[str], most: int, seed: Sequence[int]) -> list[str]:
    """Return at most so many names, drawn by a seed, in their order."""
    if len(names) <= most:
        return list(names)
    random = np.random.default_rng([*seed, 1])
    places = random.choice(len(names), most, replace=False)
    return [names[i] for i in sorted(places.tolist())]


def split_names(
    names: Iterable[str],
    leave_out: float,
    seed: Sequence[int],
    known: Collection[str] = (),
) -> list[tuple[list[str], list[str]]]:
    """Return (images to optimize on, images to score on), each left out once.

    Of fewer than five images they are left out one by one, else by shares that a seed
    draws; one alone cannot be. Those in `known` are, only where there are no others.
    """
    ordered = sorted(names)
    if len(ordered) == 1:
        return [(ordered, [])]
    fair = [name for name in ordered if name not in known] or ordered
    count = len(fair)
    if len(ordered) >= FEW:
        count = min(count, max(2, round(1 / leave_out)))
    places = np.random.default_rng(list(seed)).permutation(len(fair)).tolist()
    shares = [sorted(fair[i] for i in places[k::count]) for k in range(count)]
    return [([n for n in ordered if n not in out], out) for out in shares]
