"""From maps to labels: probabilities that follow the image, and a moved threshold."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from skimage import data
from skimage.transform import resize

from napari_ovam import LabelSettings
from napari_ovam.segmentation.labels import LabelMaker
from napari_ovam.segmentation.probabilities import class_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    from maps_parts import Row, Run
    from numpy.typing import NDArray

CELLS, CLASSES = 64, 3


def labels(run: Run) -> list[Row]:
    """Time the rule, and a threshold that moves afterwards, by the picture's side."""
    rows: list[Row] = []
    for side in (512,) if run.quick else (512, 1024, 4096):
        image, maps = _photograph(side), _maps(side)
        size = f"{CLASSES} classes at {side}×{side}"
        found = class_probabilities(maps, image)
        maker, count = LabelMaker(found), 0

        def moved(maker: LabelMaker = maker) -> Any:
            nonlocal count
            count += 1
            return maker.labels(LabelSettings((0.5 + count / 999, 0.5, 0.55)))

        def whole(maps: Any = maps, image: Any = image) -> Any:
            return class_probabilities(maps, image)

        rows += [
            {"what": f"{size}, probabilities", "seconds": _median(whole)},
            {"what": f"{size}, one threshold moved", "seconds": _median(moved)},
        ]
    return rows


def _median(call: Callable[[], Any], times: int = 3) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _photograph(side: int) -> NDArray[np.uint8]:
    resized = resize(data.astronaut(), (side, side), anti_aliasing=True)
    return (255 * resized).round().astype(np.uint8)


def _maps(side: int) -> NDArray[np.float32]:
    """Return maps as smooth as those of a grid of cells, 0 to 1."""
    rng = np.random.default_rng(0)
    coarse = gaussian_filter(rng.random((CLASSES, CELLS, CELLS)), (0, 3, 3))
    maps = zoom(coarse, (1, side / CELLS, side / CELLS), order=1)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return ((maps - low) / (high - low)).astype(np.float32)
