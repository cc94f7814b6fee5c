"""How alike two tokens are, by themselves and on an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.attention.targets import best_threshold
from napari_ovam.attention.trace import ModelMismatchError
from napari_ovam.segmentation.class_maps import class_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace


@dataclass(frozen=True, eq=False)
class Comparison:
    """How alike two tokens are.

    Attributes
    ----------
    cosine
        Cosine similarity of the classes' rows (means over the span), -1 to 1.
    direction
        That of class minus background, which is all that a map depends on; None where
        a token has no background row.
    maps
        Their maps on the trace, each (H, W) from 0 to 1; None without a trace.
    correlation
        Pearson's, of the two maps, -1 to 1; None without a trace, or of a flat map.
    iou
        Of each map with the target at its best threshold; None without a target.
    """

    cosine: float
    direction: float | None
    maps: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    correlation: float | None = None
    iou: tuple[float, float] | None = None


def compare_tokens(
    first: Token,
    second: Token,
    trace: Trace | None = None,
    target: NDArray[Any] | None = None,
) -> Comparison:
    """Compare two tokens of one model.

    Parameters
    ----------
    first, second
        The tokens.
    trace
        Where their maps are made, as the panel makes them.
    target
        The mask to compare the maps with, (H, W) of the trace's image: bool, or uint8
        {0, 1, 255 = unsure}.

    Raises
    ------
    ModelMismatchError
        If the tokens, or they and the trace, come from different text encoders.
    ValueError
        If there is a target and no trace, or it is empty or of another size.
    """
    if first.text_dim != second.text_dim or (
        first.model and second.model and first.model != second.model
    ):
        raise ModelMismatchError(
            f"{first.name!r} and {second.name!r} belong to different text encoders: "
            "compare tokens of one"
        )
    if target is not None and trace is None:
        raise ValueError("a target needs the trace of its image")
    (a, back_a), (b, back_b) = _class_rows(first), _class_rows(second)
    direction = None
    if back_a is not None and back_b is not None:
        direction = _cosine(a - back_a, b - back_b)
    alike = Comparison(_cosine(a, b), direction)
    if trace is None:
        return alike
    maps = class_map(trace, first), class_map(trace, second)
    correlation = None
    if min(float(np.ptp(values)) for values in maps) > 0:
        correlation = float(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])
    scores = None
    if target is not None:
        one, two = (best_threshold(values, target)[1] for values in maps)
        scores = one, two
    return replace(alike, maps=maps, correlation=correlation, iou=scores)


def _class_rows(token: Token) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the means of the class's rows and of the background's."""
    rows = token.embedding.numpy().astype(np.float64)
    inside = np.zeros(len(rows), bool)
    inside[slice(*token.span)] = True
    background = None if inside.all() else rows[~inside].mean(0)
    return rows[inside].mean(0), background


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0
