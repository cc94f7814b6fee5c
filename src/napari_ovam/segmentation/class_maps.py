"""From a trace to the labels of all classes: one rule for panel, demo and commands.

A class is found by its phrase, or by its optimized token and its phrase together. Its
map is made of the trace's fine layers and stretched to its own range; the maps of all
classes become probabilities that follow the image, and the class with the highest one
over its threshold gets the pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.segmentation.thresholds import THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.segmentation.labels import LabelMaker, LabelSettings

LAYERS = ("fine", "all")
"""What a map is made of: see `Trace.fine`."""


# A threshold of 0 takes every pixel, and nothing can be divided by it.
_LEAST_THRESHOLD = 1e-6


def seen(trace: Trace, layers: str = "fine") -> Trace:
    """Return the part of a trace that maps are made of; `layers` is in `LAYERS`.

    Raises
    ------
    ValueError
        If `layers` is another.
    """
    if layers not in LAYERS:
        raise ValueError(f"layers is {layers!r}: give one of {LAYERS}")
    return trace.fine() if layers == "fine" else trace


def class_map(
    trace: Trace, tokens: Token | Sequence[Token], layers: str = "fine"
) -> NDArray[np.float32]:
    """Return the map of a class that is shown and labelled, (H, W) from 0 to 1.

    Stretched to its own range: a short phrase competes with few other tokens, so its
    map may be high everywhere, and no threshold of its maximum would tell.

    Parameters
    ----------
    trace
        Of the image.
    tokens
        What finds the class. Several find it together, as in `joint_map`: an optimized
        token and its phrase.
    layers
        In `LAYERS`.

    Raises
    ------
    ModelMismatchError
        If a token and the trace come from different text encoders.
    """
    chosen = tokens if isinstance(tokens, Sequence) else (tokens,)
    return class_maps(trace, {0: chosen}, layers)[0]


def class_maps(
    trace: Trace, sources: Mapping[int, Sequence[Token]], layers: str = "fine"
) -> dict[int, NDArray[np.float32]]:
    """Return the maps of several classes by their ids, as `class_map`.

    The trace is read once for all of them.
    """
    from napari_ovam.attention.maps import join_maps, phrase_maps

    tokens = [token for several in sources.values() for token in several]
    found = iter(phrase_maps(seen(trace, layers), tokens, normalize="minmax"))
    return {
        number: join_maps(np.stack([next(found) for _ in several]))
        for number, several in sources.items()
    }


def class_labels(
    maps: Mapping[int, NDArray[np.float32]],
    thresholds: Mapping[int, float | None],
    image: NDArray[np.uint8],
    *,
    options: Mapping[str, Any] | None = None,
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Turn maps by class id into class ids, (H, W), 0 for the background.

    Parameters
    ----------
    maps
        As from `class_maps`.
    thresholds
        The probability from which a pixel is the class's, 0 to 1 by class id, None for
        `THRESHOLD`; a class that is not in it gets no pixel.
    image
        (H, W, 3) uint8.
    options
        Further fields of `LabelSettings`.

    Raises
    ------
    ValueError
        If a threshold or option is out of its range, or the sizes differ.
    """
    ids = sorted(set(maps) & set(thresholds))
    if not ids:
        return np.zeros(image.shape[:2], np.uint8)
    maker = label_maker({i: maps[i] for i in ids}, image)
    labels: NDArray[Any] = maker.labels(label_settings(thresholds, ids, options))
    return labels


def label_maker(
    maps: Mapping[int, NDArray[np.float32]], image: NDArray[np.uint8]
) -> LabelMaker:
    """Return what labels an image again and again, as while a threshold is dragged.

    Its ids are those of the maps, in ascending order, its maps their probabilities.
    With `label_settings` it gives what `class_labels` does, in some 10 ms at
    1024x1024; keep it as long as the maps stay.

    Parameters
    ----------
    maps, image
        As for `class_labels`; at least one map.
    """
    from napari_ovam.segmentation.labels import LabelMaker
    from napari_ovam.segmentation.probabilities import class_probabilities

    ids = sorted(maps)
    found = class_probabilities(np.stack([maps[i] for i in ids]), image)
    np.maximum(found, 2 * _LEAST_THRESHOLD, out=found)  # for a threshold of 0
    return LabelMaker(found, ids=ids, image=image)


def label_settings(
    thresholds: Mapping[int, float | None],
    ids: Sequence[int],
    options: Mapping[str, Any] | None = None,
) -> LabelSettings:
    """Return the settings of labels of these ids, as `class_labels` makes them.

    Parameters
    ----------
    thresholds, options
        As for `class_labels`.
    ids
        Of the maps, in their order: `LabelMaker.ids`.

    Raises
    ------
    ValueError
        If a threshold or option is out of its range.
    """
    from napari_ovam.segmentation.labels import LabelSettings

    limits = tuple(
        THRESHOLD if (level := thresholds[i]) is None else max(level, _LEAST_THRESHOLD)
        for i in ids
    )
    return LabelSettings(**{**(options or {}), "threshold": limits})


def labels_and_doubt(
    maker: LabelMaker,
    thresholds: Mapping[int, float | None],
    options: Mapping[str, Any] | None = None,
) -> tuple[NDArray[Any], float]:
    """Return labels as `class_labels`, and how unsure they are: `doubtful_share`.

    Parameters
    ----------
    maker
        From `label_maker`.
    thresholds, options
        As for `class_labels`; a threshold for each class of the maker.
    """
    from napari_ovam.segmentation.uncertainty import doubtful_share, uncertainty

    settings = label_settings(thresholds, maker.ids, options)
    labels = maker.labels(settings)
    levels = np.broadcast_to(settings.threshold, len(maker.ids)).tolist()
    return labels, doubtful_share(uncertainty(maker.maps, levels), labels)


def class_iou(
    trace: Trace,
    tokens: Sequence[Token],
    target: NDArray[np.uint8],
    image: NDArray[np.uint8],
    *,
    threshold: float | None = None,
    layers: str = "fine",
) -> float:
    """Return how well a class alone is found: the IoU of its labels and a target.

    Parameters
    ----------
    trace, tokens, layers
        As for `class_map`.
    target
        (H, W), 0, 1, and 255 for unsure, as from `labels_to_target`.
    image, threshold
        As for `class_labels`.
    """
    from napari_ovam.attention.targets import iou

    maps = {1: class_map(trace, tokens, layers)}
    labels = class_labels(maps, {1: threshold}, image)
    return iou(labels == 1, target)
