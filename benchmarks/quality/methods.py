"""What is compared: where a map comes from, and how it becomes a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import prototypes
import torch
from data import PLAIN, Kind

from napari_ovam import (
    OptimizationSettings,
    Token,
    Trace,
    best_threshold,
    class_labels,
    joint_map,
    optimize_token,
    phrase_map,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fit = Callable[[Sequence[Trace], Token, Sequence[Any]], Token]
FIXED = 0.45  # of the program's labels, where nothing was fitted


def _settings(**values: Any) -> Fit:
    settings = OptimizationSettings(**values)
    return lambda traces, word, masks: optimize_token(traces, word, masks, settings)


def _prototype(**values: Any) -> Fit:
    return lambda traces, word, masks: prototypes.fit(traces, word, masks, **values)


def _starting(*, mean: bool = False, draws: int = 0, word: bool = True) -> Fit:
    """Start at the mean of all classes' words, or at rows near the word's.

    Of several starts the token with the lowest loss is taken.
    """

    def fit(traces: Sequence[Trace], start: Token, masks: Sequence[Any]) -> Token:
        first = start.embedding[:1]
        last = start.embedding[start.span[1] - 1 : start.span[1]]
        if mean:
            last = torch.stack(list(WORDS.values())).mean(0)[None]
        rows = [last] * word
        for seed in range(draws):
            draw = torch.Generator().manual_seed(seed)
            rows.append(last + last.std() * torch.randn(last.shape, generator=draw))
        found = [
            optimize_token(
                traces,
                replace(start, embedding=torch.cat([first, row]), span=(1, 2)),
                masks,
            )
            for row in rows
        ]
        return min(found, key=lambda token: min(token.info["losses"]))

    return fit


# The last rows of the classes' words, by name; the runner has the pipeline.
WORDS: dict[str, torch.Tensor] = {}
RECIPES: dict[str, Fit] = {
    "default": _settings(),
    "lr 0.05": _settings(learning_rate=0.05),
    "400 steps": _settings(iterations=400, patience=400),
    "30 steps": _settings(iterations=30),
    "lr 0.05, 30 steps": _settings(learning_rate=0.05, iterations=30),
    "regularization 0.1": _settings(regularization=0.1),
    "regularization 0.5": _settings(regularization=0.5),
    "cross-entropy + Dice": _prototype(loss="plain"),
    "cross-entropy + Dice, near the word": _prototype(loss="plain", pull=0.1),
    "balanced cross-entropy + Dice": _prototype(loss="balanced"),
    "started at the mean of all words": _starting(mean=True),
    "started at chance, near the word": _starting(draws=1, word=False),
    "best loss of four starts": _starting(draws=3),
    "min-max map in the loss": _prototype(loss="balanced", minmax=True),
    "four background vectors": _prototype(loss="balanced", backgrounds=4),
    "a token a layer": _prototype(loss="balanced", per_layer=True),
    "ovam": _settings(recipe="ovam"),
    "ovam, VOC": _settings(
        recipe="ovam", learning_rate=100.0, decay_every=120, iterations=800
    ),
}


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes
    ----------
    source : "word", or a name in `RECIPES`
    layers : "all", "fine", or the side of the grids
    rule : a threshold that is "fixed", or "fitted" on the annotated images, or what
        the "program" does
    joint : whether the map is the joint one of token and word
    """

    source: str
    layers: str | int = "all"
    rule: str = "fitted"
    joint: bool = False
    kind: Kind = PLAIN

    def chosen(self, trace: Trace) -> Trace:
        if self.layers == "all":
            return trace
        if self.layers == "fine":
            return trace.fine()
        return trace.select(layers=[self.layers])


def stretched(found: NDArray[Any]) -> NDArray[np.float32]:
    low, high = float(found.min()), float(found.max())
    result: NDArray[np.float32] = ((found - low) / max(high - low, 1e-9)).astype(
        np.float32
    )
    return result


def plain_map(
    method: Method, trace: Trace, token: Token, word: Token
) -> NDArray[np.float32]:
    """Return a map as the panel shows it, (H, W) from 0 to 1."""
    trace = method.chosen(trace)
    if "per_layer" in token.info:
        found = prototypes.map_of(trace, token)
        if method.joint:
            found = np.sqrt(found * phrase_map(trace, word, normalize="minmax"))
        return stretched(found)
    return joint_map(trace, [token, word] if method.joint else [token])


def cut(
    method: Method, found: NDArray[np.float32], threshold: float, image: Any
) -> Any:
    """Return the mask that a map makes, with the threshold of the annotated images."""
    if method.rule == "program":
        return class_labels({1: found}, {1: None}, image) > 0
    return found >= (FIXED if method.rule == "fixed" else threshold)


def fitted(maps: Sequence[Any], masks: Sequence[Any]) -> tuple[float, float]:
    return best_threshold(list(maps), list(masks))
