"""`maps_to_labels` as it reads, with masks of the whole image: slow and plain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.filters import gaussian
from skimage.measure import label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ovam import LabelSettings


def plain_labels(maps: Any, settings: LabelSettings) -> Any:
    """Label maps (P, H, W) whose ids count from 1."""
    if settings.smoothing:
        maps = np.stack([gaussian(each, settings.smoothing) for each in maps])
    wanted = settings.threshold
    wanted = wanted if isinstance(wanted, tuple) else (wanted,) * len(maps)
    height = np.zeros(maps.shape, np.float32)
    for i, level in enumerate(np.array(wanted, np.float32)):
        over = maps[i] >= level
        height[i][over] = maps[i][over] / level
    labels = np.where(height.any(0), height.argmax(0) + 1, 0)
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


def _fill(labels: Any, number: int) -> None:
    for part in _parts(labels != number):
        edge = [part[0], part[-1], part[:, 0], part[:, -1]]
        if not np.concatenate(edge).any() and not labels[part].any():
            labels[part] = number
