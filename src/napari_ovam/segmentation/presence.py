"""Whether a class is in an image at all: how high its phrase peaks beside others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.segmentation.class_maps import seen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace

REFERENCES = ("cat", "dog", "car", "boat", "tree", "house", "apple", "ball")
"""Phrases that are asked of every image, to compare with."""

ABSENT = 0.95
"""Below this score a class is probably not in the image: on composed and generated
pictures of the embedded model 4 to 12 % of the classes that are there, and 19 to 20 %
of those that are not (docs/quality.md)."""


def presence(
    trace: Trace,
    phrases: Mapping[int, Token],
    references: Sequence[Token],
    layers: str = "fine",
) -> dict[int, float]:
    """Return how high phrases peak, by class id, 1 for as high as the references.

    The score is the 99th percentile of the map as a probability, which knows nothing of
    the map's own range, over the median of that of the references, so that it means
    about the same whatever the model and the image.

    Parameters
    ----------
    trace
        Of the image.
    phrases
        As from `encode_phrase`: not optimized tokens, whose probabilities are of
        another kind.
    references
        `REFERENCES`, encoded; one that is the phrase itself is not compared with.
    layers
        As for `class_map`.
    """
    from napari_ovam.attention.maps import attention_maps

    trace = seen(trace, layers)

    def peak(token: Token) -> float:
        # On the grid of the trace: as good, whatever the size of the image.
        found = attention_maps(trace, token.embedding, aggregation="mean")
        return float(np.percentile(found[slice(*token.span)].mean(0).cpu(), 99))

    others = {token.name: peak(token) for token in references}
    scores = {}
    for number, token in phrases.items():
        level = np.median([p for name, p in others.items() if name != token.name])
        scores[number] = peak(token) / max(float(level), 1e-12)
    return scores
