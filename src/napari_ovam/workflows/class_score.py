"""How good a token is for a class: the IoU that its labels would have."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.attention.targets import iou, labels_to_target
from napari_ovam.segmentation.class_maps import class_labels, class_map, class_maps
from napari_ovam.workflows.proposals import ProposalError, class_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.datasets.project_class import ProjectClass
    from napari_ovam.workflows.accepted import Example, Examples


class ClassScore:
    """Scores what finds a class on accepted images, as labels are proposed.

    All classes that an image holds compete: a token that finds whole objects is worth
    little alone, where it finds those of other classes as well, and much beside them.
    """

    def __init__(self, entry: ProjectClass, examples: Examples) -> None:
        self._entry, self._examples = entry, examples
        self._sources: dict[int, Sequence[Token]] = {}
        self._maps: dict[str, dict[int, NDArray[np.float32]]] = {}

    def __call__(
        self, tokens: Sequence[Token], threshold: float | None, name: str, on: Example
    ) -> float:
        """Return the IoU of the class in labels that are proposed for an image."""
        number, classes = self._entry.id, self._examples.project.classes
        if name not in self._maps:
            self._maps[name] = class_maps(on.trace, self._others(on), "all")
        maps = {**self._maps[name], number: class_map(on.trace, tokens, "all")}
        levels = {i: e.threshold for i in maps if (e := classes.get(i))}
        labels = class_labels(maps, {**levels, number: threshold}, on.image)
        return iou(labels == number, labels_to_target(on.labels, number))

    def _others(self, on: Example) -> dict[int, Sequence[Token]]:
        """Return what finds the other classes that are looked for in an image."""
        project, pipe = self._examples.project, self._examples.pipe
        held = set(np.unique(on.labels).tolist()) - {self._entry.id}
        ids = [entry.id for entry in project.classes.active if entry.id in held]
        for number in ids:
            if number not in self._sources:
                self._sources[number] = ()
                with suppress(ProposalError):  # it cannot be looked for
                    found = class_sources(project, pipe, [number])
                    self._sources[number] = found[number]
        return {i: source for i in ids if (source := self._sources[i])}
