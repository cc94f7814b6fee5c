"""Is a class in an image at all? Scores of its map against a fitted threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from methods import RECIPES, Method

from napari_ovam import Token, Trace, encode_phrase, phrase_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from data import Data

SCORES: dict[str, Callable[[Any], float]] = {
    "peak": lambda found: float(np.percentile(found, 99)),
    "peak over median": lambda found: float(
        np.percentile(found, 99) - np.median(found)
    ),
}


def presence(data: Data, source: str, layers: str) -> list[dict[str, Any]]:
    """Return precision and recall of each score on the test scenes.

    A class's threshold is the one with the best F1 on one annotated image of each
    class; what is scored is the map as a probability. A class is in 8 test scenes.
    """
    method = Method(source, layers)
    first = {name: data.of("annotated", name)[0] for name in data.names}
    tokens = {}
    for name, scene in first.items():
        word = encode_phrase(data.pipe, name)
        trace = method.chosen(data.trace(scene))
        tokens[name] = (
            word
            if source == "word"
            else RECIPES[source]([trace], word, [scene.mask(name)])
        )
    fit = list({scene.number: scene for scene in first.values()}.values())
    on_fit, on_test = (_scored(data, method, tokens, s) for s in (fit, data.of("test")))
    rows = []
    for score in SCORES:
        found, there = [], []
        for name in data.names:
            values, present = on_fit[score, name]
            level = _level(values, present)
            found.append(np.array(on_test[score, name][0]) >= level)
            there.append(np.array(on_test[score, name][1]))
        guess, truth = np.concatenate(found), np.concatenate(there)
        hits = (guess & truth).sum()
        rows.append(
            {
                "source": source,
                "layers": layers,
                "score": score,
                "precision": round(float(hits / max(guess.sum(), 1)), 4),
                "recall": round(float(hits / truth.sum()), 4),
                "questions": len(truth),
                "present": int(truth.sum()),
                "auc": round(
                    float(np.mean([_auc(*on_test[score, n]) for n in data.names])), 4
                ),
            }
        )
    return rows


def _scored(
    data: Data, method: Method, tokens: dict[str, Token], scenes: Any
) -> dict[tuple[str, str], tuple[list[float], list[bool]]]:
    found: dict[Any, Any] = {(s, n): ([], []) for s in SCORES for n in tokens}
    for scene in scenes:
        trace: Trace = method.chosen(data.trace(scene))
        for name, token in tokens.items():
            values = phrase_map(trace, token, normalize="probability")
            for score, of in SCORES.items():
                found[score, name][0].append(of(values))
                found[score, name][1].append(name in scene.classes)
    return found


def _level(values: list[float], present: list[bool]) -> float:
    """Return the threshold with the best F1, halfway to the next lower score."""
    scores, truth = np.array(values), np.array(present)
    guesses = scores >= scores[:, None]
    f1 = 2 * (guesses & truth).sum(1) / (guesses.sum(1) + truth.sum())
    best = scores[f1.argmax()]
    return float((best + max(scores[scores < best], default=best)) / 2)


def _auc(values: list[float], present: list[bool]) -> float:
    """Return how often a scene with the class scores above one without."""
    scores, truth = np.array(values), np.array(present)
    apart = scores[truth][:, None] - scores[~truth][None]
    return float((apart > 0).mean() + (apart == 0).mean() / 2)
