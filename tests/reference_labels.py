"""`maps_to_labels` as it reads, with masks of the whole image: slow and plain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.filters import gaussian
from skimage.measure import label

from napari_ovam.segmentation.labels import automatic_threshold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ovam import LabelSettings


def plain_labels(maps: Any, settings: LabelSettings) -> Any:
    """Label maps (P, H, W) whose ids count from 1."""
    if settings.smoothing:
        maps = np.stack([gaussian(each, settings.smoothing) for each in maps])
    wanted = settings.threshold
    wanted = wanted if isinstance(wanted, tuple) else (wanted,) * len(maps)
    thresholds = [
        np.float32(automatic_threshold(each) if level == "otsu" else level)
        for each, level in zip(maps, wanted, strict=True)
    ]
    over = [m >= level for m, level in zip(maps, thresholds, strict=True)]
    height = np.zeros(maps.shape, np.float32)
    for i, mask in enumerate(over):
        sure = mask & ~_doubtful(maps[i], mask, settings.parts)
        height[i][sure] = maps[i][sure] / thresholds[i]
    labels = np.where(height.any(0), height.argmax(0) + 1, 0)
    if settings.unite:
        labels = _united(labels, maps, over)
    for number in range(1, len(maps) + 1):
        for part in _parts(labels == number, 2):
            if part.sum() < settings.min_size:
                labels[part] = 0
    if settings.fill_holes:
        for number in range(1, len(maps) + 1):
            _fill(labels, number)
    return labels


def _parts(mask: Any, connectivity: int = 1) -> Iterator[Any]:
    numbered = label(mask, connectivity=connectivity)
    for number in range(1, numbered.max() + 1):
        yield numbered == number


def _doubtful(values: Any, mask: Any, share: float) -> Any:
    parts = list(_parts(mask))
    result = np.zeros_like(mask)
    if share and len(parts) > 1:
        largest = max(part.sum() for part in parts)
        standard = max(
            values[part].mean(dtype=float)
            for part in parts
            if part.sum() * 10 >= largest
        )
        for part in parts:
            if values[part].mean(dtype=float) < share * standard:
                result |= part
    return result


def _united(labels: Any, maps: Any, over: Any) -> Any:
    regions = list(_parts(labels > 0))
    result = labels.copy()
    for number in range(1, len(maps) + 1):
        pieces = list(_parts(labels == number))
        weights = [maps[number - 1][piece].sum(dtype=float) for piece in pieces]
        for piece in pieces:
            region = next(region for region in regions if region[piece].any())
            most = 1 + np.argmax(
                [(labels[region] == i + 1).sum() for i in range(len(maps))]
            )
            largest = pieces[int(np.argmax(weights))]
            seen = over[most - 1][piece].mean() >= 0.5
            if most != number and seen and not region[largest].any():
                result[piece] = most
    return result


def _fill(labels: Any, number: int) -> None:
    for part in _parts(labels != number):
        edge = [part[0], part[-1], part[:, 0], part[:, -1]]
        if not np.concatenate(edge).any() and not labels[part].any():
            labels[part] = number
