"""What is compared: where a map comes from, how it is refined and cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import prototypes
from data import PLAIN, Kind, Scene, fine
from skimage.filters import threshold_otsu

from napari_ovam import (
    OptimizationSettings,
    Token,
    Trace,
    best_threshold,
    optimize_token,
    phrase_map,
)
from napari_ovam.refine import propagate, refine

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fit = Callable[[Sequence[Trace], Token, Sequence[Any]], Token]
FIXED = 0.45  # of the program's labels, where nothing was fitted


def _settings(**values: Any) -> Fit:
    settings = OptimizationSettings(**values)
    return lambda traces, word, masks: optimize_token(traces, word, masks, settings)


def _prototype(**values: Any) -> Fit:
    return lambda traces, word, masks: prototypes.fit(traces, word, masks, **values)


RECIPES: dict[str, Fit] = {
    "default": _settings(),
    "lr 0.1": _settings(learning_rate=0.1),
    "lr 0.1, 400 steps": _settings(learning_rate=0.1, iterations=400, patience=400),
    "30 steps": _settings(iterations=30),
    "regularization 0.1": _settings(learning_rate=0.1, regularization=0.1),
    "regularization 0.5": _settings(learning_rate=0.1, regularization=0.5),
    "cross-entropy + Dice": _prototype(loss="plain"),
    "cross-entropy + Dice, near the word": _prototype(loss="plain", pull=0.1),
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
    steps : refinements, in their order; "flip" averages with the mirrored image
    rule : "fixed", "fitted" on the annotated images, or "halfway": the mean of the
        fitted threshold and of Otsu's on the image itself
    """

    source: str
    layers: str | int = "all"
    steps: tuple[str, ...] = ()
    rule: str = "fitted"
    kind: Kind = PLAIN

    def chosen(self, trace: Trace) -> Trace:
        if self.layers == "all":
            return trace
        wanted = fine(trace) if self.layers == "fine" else [self.layers]
        return trace.select(layers=wanted)


STEPS: dict[str, Callable[[Any, Scene, Trace], Any]] = {
    "superpixels": lambda m, s, _: refine(m, s.image, "superpixels"),
    "guided": lambda m, s, _: refine(m, s.image, "guided"),
    "guided 6": lambda m, s, _: refine(m, s.image, "guided", radius=6, smoothness=1e-3),
    "walk": lambda m, s, _: refine(m, s.image, "walk"),
    "walk 0.002": lambda m, s, _: refine(m, s.image, "walk", reach=0.002),
    "walk 0.006": lambda m, s, _: refine(m, s.image, "walk", reach=0.006),
    "walk 0.024": lambda m, s, _: refine(m, s.image, "walk", reach=0.024),
    "attention": lambda m, _, t: propagate(m, t),
    "attention half": lambda m, _, t: propagate(m, t, weight=0.5),
    "attention 16 half": lambda m, _, t: propagate(m, t, weight=0.5, layers=[16]),
    "attention 16 twice": lambda m, _, t: propagate(m, t, power=2, layers=[16]),
}


def stretched(found: NDArray[Any]) -> NDArray[np.float32]:
    low, high = float(found.min()), float(found.max())
    result: NDArray[np.float32] = ((found - low) / max(high - low, 1e-9)).astype(
        np.float32
    )
    return result


def plain_map(method: Method, trace: Trace, token: Token) -> NDArray[np.float32]:
    """Return a map as the panel shows it, (H, W) from 0 to 1."""
    if "per_layer" in token.info:
        return prototypes.map_of(method.chosen(trace), token)
    return phrase_map(method.chosen(trace), token, normalize="minmax")


def refined(
    method: Method, found: NDArray[np.float32], scene: Scene, trace: Trace
) -> NDArray[np.float32]:
    for step in method.steps:
        if step != "flip":
            found = stretched(STEPS[step](found, scene, trace))
    return found


def cut(method: Method, found: NDArray[np.float32], threshold: float) -> Any:
    """Return the mask that a map makes, with the threshold of the annotated images."""
    if method.rule == "fixed":
        threshold = FIXED
    elif method.rule == "halfway":
        threshold = (threshold + threshold_otsu(found)) / 2
    return found >= threshold


def fitted(maps: Sequence[Any], masks: Sequence[Any]) -> tuple[float, float]:
    return best_threshold(list(maps), list(masks))
