"""From the attention maps of an image's classes to the probability of each pixel.

The one rule of panel, proposals, demonstration and commands. Chosen on composed scenes,
generated pictures, photographs and maps of real models at once: docs/quality.md.

1. Each map is averaged over neighbours that look alike (`refine.PixelAdaptive`).
2. Its distance from `thresholds.threshold_by_share`, of a class alone moved to where
   the map is steepest (`thresholds.steepest_near`), says how likely a pixel is the
   object's; the colours of both sides, found in turn, add to it
   (`color_histograms`); the guided filter moves borders to edges.
3. Where another class is, a class needs more to be; what several claim all the same
   goes to one of them by `contrast`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_ovam.segmentation import contrast
from napari_ovam.segmentation.color_histograms import ColorHistograms
from napari_ovam.segmentation.refine import GuidedFilter, PixelAdaptive, resized
from napari_ovam.segmentation.thresholds import (
    THRESHOLD,
    steepest_near,
    threshold_by_share,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 256
"""The longer side, in pixels, of what the rule looks at: four times a map's cells.

Smaller pictures are looked at as they are.
"""

# Logits: from the mean below a map's threshold to the mean above it are this many, ...
_GAIN = 6.0
# ... no map alone has more than this, ...
_SUREST = 6.0
# ... and colours have this share of their log-ratio, as they are not independent.
_COLOR = 0.9
_ROUNDS = 3


def class_probabilities(
    maps: NDArray[Any], image: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return how likely each pixel is a class's.

    Parameters
    ----------
    maps
        Shape (P, H, W), of the classes that are in the image; any range.
    image
        (H, W, 3) uint8, RGB.

    Returns
    -------
    ndarray
        Shape (P, H, W), from 0 to 1. The highest class of a pixel has the probability
        that it is an object at all, the others less in proportion: `maps_to_labels`
        with a threshold of 0.5 gives the most likely labels. 0 for a flat map.

    Raises
    ------
    ValueError
        If shapes do not fit, or a map holds NaN.
    """
    maps = np.asarray(maps)
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"maps have the shape {maps.shape}: give (classes, H, W)")
    if np.shape(image) != (*maps.shape[1:], 3) or image.dtype != np.uint8:
        raise ValueError(
            f"the image is {getattr(image, 'dtype', None)} of shape "
            f"{np.shape(image)}: the maps want an RGB image (uint8) of "
            f"{(*maps.shape[1:], 3)}"
        )
    low, high = maps.min((1, 2)), maps.max((1, 2))
    if not (np.isfinite(low) & np.isfinite(high)).all():
        raise ValueError("a map holds NaN or infinite values")
    result = np.zeros(maps.shape, np.float32)
    told = np.flatnonzero(high > low)
    if not len(told):
        return result
    scale = min(1, SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[:2])
    with torch.no_grad():
        picture = resized(np.moveaxis(image, 2, 0), size) / 255
        small = torch.cat([resized(maps[i : i + 1], size) for i in told])
        evidence = PixelAdaptive(picture)(_stretched(small))
        edges = GuidedFilter(picture)
        colors = ColorHistograms(picture.permute(1, 2, 0).numpy())
        levels, contrasts = _levels(evidence, alone=len(told) == 1)
        near: Tensor | None = None
        if len(told) > 1:
            levels = contrast.levels_within(evidence, levels)
        heights = (evidence - levels) / contrasts
        if len(told) > 1:
            heights, near = contrast.against_others(heights)
        found = _alone(heights, edges, colors, near)
        if len(told) > 1:

            def together() -> Tensor:
                highest = evidence.amax(0, keepdim=True)
                level, apart = _levels(highest)
                return _alone((highest - level) / apart, edges, colors)[0]

            found = contrast.decide(
                evidence / contrasts, found, together, picture, edges
            )
        result[told] = edges.enlarge(found, image)
    if len(told) == 1:
        # The surest pixel of a map that is not flat is always the class's.
        top = result[told[0]].max()
        if top < THRESHOLD:
            result[told[0]] *= np.nextafter(np.float32(THRESHOLD / top), np.float32(9))
    return result


def _levels(evidence: Tensor, *, alone: bool = False) -> tuple[Tensor, Tensor]:
    """Return each map's threshold and how far it parts both sides, (P, 1, 1) each."""
    found = []
    for values in evidence.numpy():
        level = threshold_by_share(values)
        if alone:  # several have their borders from one another
            level = steepest_near(values, level)
        above = values >= level
        apart = float(values[above].mean() - np.median(values[~above]))
        found.append((level, max(apart, 1e-6)))
    levels, contrasts = torch.tensor(found, dtype=torch.float32).T[..., None, None]
    return levels, contrasts


def _alone(
    heights: Tensor,
    edges: GuidedFilter,
    colors: ColorHistograms,
    near: Tensor | None = None,
) -> Tensor:
    """Return the probabilities of classes, each as if there were no others.

    `heights` are maps (P, h, w) with a contrast of 1, 0 at their thresholds; colours
    are learnt `near` (P, h, w), if that is given.
    """
    priors = (_GAIN * heights).clamp(-_SUREST, _SUREST)
    found = priors.sigmoid()
    for _ in range(_ROUNDS):
        inside = found >= THRESHOLD
        if near is not None:
            inside &= near
        likely = np.stack([colors.log_ratio(each) for each in inside.numpy()])
        found = edges((priors + _COLOR * torch.from_numpy(likely)).sigmoid())
        found = found.clamp(0, 1)
    return found


def _stretched(maps: Tensor) -> Tensor:
    low = maps.amin((1, 2), keepdim=True)
    return (maps - low) / (maps.amax((1, 2), keepdim=True) - low).clamp_min(1e-9)
