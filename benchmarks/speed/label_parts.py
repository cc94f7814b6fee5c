"""From maps to labels: borders that follow the image, and a threshold that moves."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import naive_labels
import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from skimage import data
from skimage.transform import resize
from timing import ratio

from napari_ovam.segmentation.labels import MEASURED, LabelMaker, maps_to_labels
from napari_ovam.segmentation.refine import refine

if TYPE_CHECKING:
    from maps_parts import Row, Run
    from numpy.typing import NDArray

CELLS, CLASSES = 32, 3


def refinement(run: Run) -> list[Row]:
    """Refine one map with a photograph; both to a hundredth, nearly everywhere."""
    rows = []
    for side in (128, 512) if run.quick else (128, 512, 1024):
        image, (found, *_) = _photograph(side), _maps(side)
        pair = naive_labels.walk(found, image), refine(found, image)
        apart = np.abs(pair[0] - pair[1])
        if np.quantile(apart, 0.99) > 0.01:
            raise SystemExit(f"the walks differ by {np.quantile(apart, 0.99):.3f}")
        row = _timed(
            run,
            lambda found=found, image=image: naive_labels.walk(found, image),
            lambda found=found, image=image: refine(found, image),
        )
        rows.append({"what": f"one map of {side}×{side}"} | row)
    return rows


def labels(run: Run) -> list[Row]:
    """Make labels of refined maps at 1024x1024; both are equal pixel by pixel."""
    side = 256 if run.quick else 1024
    found = refine(_maps(side), _photograph(side))
    settings = replace(MEASURED, threshold=(0.6, 0.5, 0.55))
    if (naive_labels.labels(found, settings) != maps_to_labels(found, settings)).any():
        raise SystemExit("the labels differ")
    maker, count = LabelMaker(found), 0

    def again() -> Any:
        nonlocal count
        count += 1
        return maker.labels(replace(settings, threshold=(0.5 + count / 999, 0.5, 0.55)))

    def plain() -> Any:
        return naive_labels.labels(found, settings)

    size = f"{CLASSES} classes at {side}×{side}"
    return [
        {"what": f"{size}, once"}
        | _timed(run, plain, lambda: maps_to_labels(found, settings)),
        {"what": f"{size}, one threshold moved"} | _timed(run, plain, again),
    ]


def _timed(run: Run, slow: Any, fast: Any) -> Row:
    times = run.clock.alternate({"usual": slow, "ours": fast}, 3)
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {**medians, "ratio": ratio(times["usual"], times["ours"])}


def _photograph(side: int) -> NDArray[np.uint8]:
    resized = resize(data.astronaut(), (side, side), anti_aliasing=True)
    return (255 * resized).round().astype(np.uint8)


def _maps(side: int) -> NDArray[np.float32]:
    """Return maps as smooth as those of a grid of 32x32 cells, 0 to 1."""
    rng = np.random.default_rng(0)
    coarse = gaussian_filter(rng.random((CLASSES, CELLS, CELLS)), (0, 1.5, 1.5))
    maps = zoom(coarse, (1, side / CELLS, side / CELLS), order=1)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return ((maps - low) / (high - low)).astype(np.float32)
