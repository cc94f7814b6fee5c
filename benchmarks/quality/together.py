"""Labels as a person has them made: all classes of the scene at once.

Which classes an image holds is given, as by its prompt or by a person; which pixels are
whose is not. The other tables score each class alone against all else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from downstream import ids_of
from measure import boundary_f, interval
from methods import FIXED
from runs import DRAWS

from napari_ovam import (
    class_labels,
    encode_phrase,
    iou,
    joint_map,
    optimize_token,
)

if TYPE_CHECKING:
    from data import Data, Kind, Scene


@dataclass
class Way:
    """One row: `draws` of annotated images, none for the word alone."""

    title: str
    annotated: int
    draws: tuple[slice, ...]
    word: bool = True
    plain: bool = False
    scores: dict[str, list[tuple[float, float, bool]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        classes = list(self.scores.values())

        def mean(column: int, *wanted: bool) -> float:
            by_class = [[s[column] for s in c if s[2] in wanted] for c in classes]
            return round(float(np.mean([np.mean(v) for v in by_class if v])), 4)

        by_class = [float(np.mean([s[0] for s in c])) for c in classes]
        return {
            "title": self.title,
            "annotated_images": self.annotated,
            "iou": mean(0, True, False),
            "iou_interval": round(interval(by_class), 4),
            "boundary": mean(1, True, False),
            "alone": mean(0, True),
            "in_pairs": mean(0, False),
            "masks_scored": sum(map(len, classes)),
            "iou_by_class": {
                name: round(v, 4) for name, v in zip(self.scores, by_class, strict=True)
            },
        }


def ways() -> list[Way]:
    none, one = (slice(0, 0),), DRAWS[1]
    return [
        Way("plain words, fixed threshold", 0, none, plain=True),
        Way("**words, as the program**", 0, none),
        Way("tokens alone, as the program", 1, one, word=False),
        Way("**tokens with words, as the program**", 1, one),
        Way("**tokens with words, as the program**", 3, DRAWS[3]),
        Way("**tokens with words, as the program**", 10, DRAWS[10]),
    ]


def together(data: Data, kind: Kind) -> list[dict[str, Any]]:
    """Return the scores of each way that there are annotated images for."""
    begin = time.perf_counter()
    words = {name: encode_phrase(data.pipe, name) for name in data.names}
    most = min(len(data.of("annotated", name)) for name in data.names)
    rows = [way for way in ways() if way.annotated <= most]
    tokens = {
        (name, draw.stop): [_token(data, name, words[name], draw, kind)]
        for name in data.names
        for draw in _used(rows)
    }
    tokens |= {(name, 0): [] for name in data.names}
    print(f"  tokens: {time.perf_counter() - begin:.0f} s", flush=True)
    for scene in data.of("test"):
        _score(data, scene, kind, words, tokens, rows)
    return [way.as_dict() for way in rows]


def _used(rows: list[Way]) -> list[slice]:
    draws = {draw.stop: draw for way in rows for draw in way.draws if draw.stop}
    return list(draws.values())


def _token(data: Data, name: str, word: Any, draw: slice, kind: Kind) -> Any:
    scenes = data.of("annotated", name)[draw]
    traces = [data.trace(scene, kind).fine() for scene in scenes]
    return optimize_token(traces, word, [scene.mask(name) for scene in scenes])


def _score(
    data: Data, scene: Scene, kind: Kind, words: Any, tokens: Any, rows: list[Way]
) -> None:
    trace, exact = data.trace(scene, kind), ids_of(scene, data)
    fine, names = trace.fine(), list(scene.classes)
    ids = [data.names.index(name) + 1 for name in names]
    for way in rows:
        for draw in way.draws:
            if way.plain:
                maps = np.stack([joint_map(trace, [words[name]]) for name in names])
                over = maps.max(0) >= FIXED
                labels = np.where(over, np.array(ids)[maps.argmax(0)], 0)
            else:
                maps = _maps(fine, names, words, tokens, draw.stop, way.word)
                by_id = dict(zip(ids, maps, strict=True))
                labels = class_labels(by_id, dict.fromkeys(ids), scene.image)
            for name, number in zip(names, ids, strict=True):
                found, wanted = labels == number, exact == number
                way.scores.setdefault(name, []).append(
                    (iou(found, wanted), boundary_f(found, wanted), len(names) == 1)
                )


def _maps(
    trace: Any, names: list[str], words: Any, tokens: Any, stop: int, word: bool
) -> Any:
    """Return maps by tokens of the annotated images up to `stop`, or by the words."""
    return np.stack(
        [
            joint_map(trace, [*tokens[name, stop], *[words[name]] * word])
            for name in names
        ]
    )
