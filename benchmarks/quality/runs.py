"""Score methods, class by class, so that few traces are in memory at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from measure import boundary_f, interval
from methods import RECIPES, WORDS, Method, cut, fitted, plain_map
from torch.nn import functional

from napari_ovam import Token, Trace, encode_phrase, iou

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from data import Data, Kind, Scene

# The annotated images of a draw: for one image, two single ones in turn.
DRAWS = {1: (slice(0, 1), slice(1, 2)), 3: (slice(0, 3),)}
DRAWS[10] = (slice(0, 10),)


@dataclass
class Row:
    """A method's scores; each list has one mean a class."""

    title: str
    count: int
    method: Method
    iou: list[float] = field(default_factory=list)
    boundary: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    in_pairs: list[float] = field(default_factory=list)
    annotated: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    images: int = 0

    def as_dict(self) -> dict[str, Any]:
        parts = ("iou", "boundary", "alone", "in_pairs", "annotated", "seconds")
        return {
            "title": self.title,
            "annotated_images": self.count,
            "source": self.method.source,
            "layers": self.method.layers,
            "rule": self.method.rule,
            "joint": self.method.joint,
            "trace": str(self.method.kind),
            "masks_scored": self.images,
            **{name: round(float(np.mean(getattr(self, name))), 4) for name in parts},
            "iou_interval": round(interval(self.iou), 4),
            "iou_by_class": [round(v, 4) for v in self.iou],
        }


class Runner:
    """Scores rows on a split of the scenes."""

    def __init__(self, data: Data, classes: Sequence[str]) -> None:
        self.data = data
        self.classes = tuple(classes)
        for name in data.names:
            token = encode_phrase(data.pipe, name)
            WORDS[name] = token.embedding[token.span[1] - 1]

    def run(
        self,
        rows: Sequence[tuple[str, int, Method]],
        split: str,
        *,
        draws: int | None = None,
        say: Callable[[str], None] = print,
    ) -> list[Row]:
        found = [Row(*each) for each in rows]
        for done, name in enumerate(self.classes):
            start = time.perf_counter()
            one = _Class(self.data, name, split)
            for row in found:
                one.score(row, DRAWS[row.count][:draws])
            took = time.perf_counter() - start
            say(f"  {split}: {done + 1}/{len(self.classes)} {name}, {took:.0f} s")
        return found

    def ceiling(self, split: str, side: int) -> Row:
        """Exact masks averaged to a grid, bilinearly up, the best threshold."""
        row = Row(f"ceiling of {side}x{side}", 0, Method("exact mask"))
        for name in self.classes:
            scenes = self.data.of(split, name)
            masks = [s.mask(name) for s in scenes]
            maps = [_through_grid(mask, side) for mask in masks]
            level, fit = fitted(maps, masks)
            row.annotated.append(fit)
            row.seconds.append(0.0)
            _add(row, scenes, masks, [[m >= level for m in maps]])
        return row


class _Class:
    """One class with its traces, tokens and maps."""

    def __init__(self, data: Data, name: str, split: str) -> None:
        self.name = name
        self.annotated = data.of("annotated", name)
        self.scored = data.of(split, name)
        self.word = encode_phrase(data.pipe, name)
        self.trace: Callable[[Scene, Kind], Trace] = cache(data.trace)
        self.token = cache(self._token)
        self.map = cache(self._map)

    def score(self, row: Row, draws: Sequence[slice]) -> None:
        method, draw_masks = row.method, []
        for draw in draws:
            given = self.annotated[draw]
            maps = [self.map(method, draw.start, draw.stop, s) for s in given]
            level, fit = fitted(maps, [s.mask(self.name) for s in given])
            row.annotated.append(fit)
            row.seconds.append(self.token(*self._key(method), draw.start, draw.stop)[1])
            found = [self.map(method, draw.start, draw.stop, s) for s in self.scored]
            pairs = zip(found, self.scored, strict=True)
            draw_masks.append([cut(method, m, level, s.image) for m, s in pairs])
        masks = [s.mask(self.name) for s in self.scored]
        _add(row, self.scored, masks, draw_masks)

    def _key(self, method: Method) -> tuple[str, str | int, Kind]:
        return method.source, method.layers, method.kind

    def _token(
        self, source: str, layers: str | int, kind: Kind, start: int, stop: int
    ) -> tuple[Token, float]:
        if source == "word":
            return self.word, 0.0
        given = self.annotated[start:stop]
        method = Method(source, layers)
        traces = [method.chosen(self.trace(s, kind)) for s in given]
        masks = [s.mask(self.name) for s in given]
        begin = time.perf_counter()
        token = RECIPES[source](traces, self.word, masks)
        return token, time.perf_counter() - begin

    def _map(self, method: Method, start: int, stop: int, scene: Scene) -> Any:
        if method.rule != "fitted":
            return self.map(replace(method, rule="fitted"), start, stop, scene)
        if method.source == "word" and (start, stop) != (0, 0):
            return self.map(method, 0, 0, scene)
        token, _ = self.token(*self._key(method), start, stop)
        trace = self.trace(scene, method.kind)
        return plain_map(method, trace, token, self.word)


def _add(row: Row, scenes: Sequence[Scene], masks: Any, draws: Any) -> None:
    """Add a class: its means over the scenes and the draws of annotated images."""
    overlaps = np.array(
        [[iou(a, b) for a, b in zip(draw, masks, strict=True)] for draw in draws]
    )
    borders = [
        boundary_f(a, b) for draw in draws for a, b in zip(draw, masks, strict=True)
    ]
    single = np.array([len(scene.classes) == 1 for scene in scenes])
    row.iou.append(float(overlaps.mean()))
    row.boundary.append(float(np.mean(borders)))
    for part, where in ((row.alone, single), (row.in_pairs, ~single)):
        if where.any():
            part.append(float(overlaps[:, where].mean()))
    row.images += overlaps.size


def _through_grid(mask: Any, side: int) -> Any:
    exact = torch.from_numpy(mask).float()[None, None]
    cells = functional.adaptive_avg_pool2d(exact, side)
    return functional.interpolate(
        cells, mask.shape, mode="bilinear", align_corners=False
    )[0, 0].numpy()
