"""What a token shall find, and how well a map or mask finds it.

Masks here are bool, or uint8 of 0 (not the class), 1 (the class) and 255 (unsure:
counted nowhere).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.ids import IGNORE, LARGEST_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# More levels than this are not told apart when a threshold is fitted.
_LEVELS = 1024


def labels_to_target(
    labels: NDArray[Any],
    id: int,
    *,
    ignore: int | None = IGNORE,
) -> NDArray[np.uint8]:
    """Return what a token shall find: 1 for the class, 255 for unsure, 0 elsewhere.

    Parameters
    ----------
    labels
        (H, W), class ids.
    id
        The class.
    ignore
        The id that means "unsure", or None if none does.

    Raises
    ------
    ValueError
        If `labels` are not (H, W) of integers, or `id` is no id of a class.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype} of shape {labels.shape}: give (H, W) integers"
        )
    if not 0 < id <= LARGEST_ID or id == ignore:
        raise ValueError(
            f"id {id} is no class: ids are 1 to {LARGEST_ID}, 0 is background, "
            f"{ignore} is unsure"
        )
    target: NDArray[np.uint8] = (labels == id).astype(np.uint8)
    if ignore is not None:
        target[labels == ignore] = IGNORE
    return target


def iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the intersection over union of two masks of the same shape.

    Pixels that are 255 in either do not count. Two empty masks agree: 1.0.

    Raises
    ------
    ValueError
        If the shapes differ, or a mask holds other values than 0, 1 and 255.
    """
    (inside_a, known_a), (inside_b, known_b) = split_mask(a, "a"), split_mask(b, "b")
    if inside_a.shape != inside_b.shape:
        raise ValueError(
            f"masks of {inside_a.shape} and {inside_b.shape} do not compare"
        )
    known = known_a & known_b
    union = np.count_nonzero((inside_a | inside_b) & known)
    both = np.count_nonzero(inside_a & inside_b & known)
    return both / union if union else 1.0


def best_threshold(
    map: NDArray[Any] | Sequence[NDArray[Any]],
    target: NDArray[Any] | Sequence[NDArray[Any]],
) -> tuple[float, float]:
    """Return the threshold at which a map agrees best with a target, and their IoU.

    It belongs to the class and to what made the map: fit it again when a token
    replaces a phrase.

    Parameters
    ----------
    map
        (H, W), as from `phrase_map`, or a list of maps that shall share a threshold.
    target
        (H, W), bool or uint8 {0, 1, 255 = unsure}; a list if `map` is one.

    Returns
    -------
    tuple of float
        The threshold for `map >= threshold`, in the middle of those that do equally
        well, and the IoU: of several maps, the mean.

    Raises
    ------
    ValueError
        If a shape or value is wrong, or a target holds no pixel of the class.
    """
    maps = [map] if isinstance(map, np.ndarray) else list(map)
    targets = [target] if isinstance(target, np.ndarray) else list(target)
    if not maps or len(maps) != len(targets):
        raise ValueError(f"{len(maps)} maps and {len(targets)} targets do not pair")
    pairs = []
    for i, (values, mask) in enumerate(zip(maps, targets, strict=True)):
        values = np.asarray(values)
        inside, known = split_mask(mask, f"target {i}")
        if values.shape != inside.shape:
            raise ValueError(
                f"map {i} has the shape {values.shape} and its target {inside.shape}"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"map {i} holds NaN or infinite values")
        if not inside.any():
            raise ValueError(f"target {i} is empty: no pixel of it is 1")
        pairs.append((np.sort(values[known]), np.sort(values[inside])))
    levels = np.unique(np.concatenate([known for known, _ in pairs]))
    capped = len(levels) > _LEVELS
    if capped:
        levels = levels[np.linspace(0, len(levels) - 1, _LEVELS).round().astype(int)]
    scores = np.zeros(len(levels))
    for known, inside in pairs:
        found = len(known) - np.searchsorted(known, levels)
        hits = len(inside) - np.searchsorted(inside, levels)
        scores += hits / (found + len(inside) - hits) / len(pairs)
    best = int(scores.argmax())
    last = best
    while last + 1 < len(levels) and scores[last + 1] == scores[best]:
        last += 1
    # All thresholds above the level below `best`, up to `last`, do equally well, as
    # long as no level between them was left out.
    lower = levels[best] if capped else levels[max(best - 1, 0)]
    return float((lower + levels[last]) / 2), float(scores[best])


def split_mask(mask: NDArray[Any], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split a mask into where it is the class, and where that is known (both bool).

    It raises `ValueError` if it is not (H, W), or holds other values than 0, 1 and 255;
    `name` says which mask it is.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"{name} has the shape {mask.shape}: give a mask (H, W)")
    if mask.dtype == bool:
        return mask, np.ones_like(mask)
    if other := set(np.unique(mask).tolist()) - {0, 1, IGNORE}:
        raise ValueError(
            f"{name} holds the value {min(other)}: a mask is bool, or holds 0, 1 and "
            f"{IGNORE} for unsure. labels_to_target makes one from labels"
        )
    return mask == 1, mask != IGNORE
