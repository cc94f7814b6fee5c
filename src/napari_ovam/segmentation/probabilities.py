"""From the attention maps of an image's classes to the probability of each pixel.

The one rule of panel, proposals, demonstration and commands. Chosen on composed scenes,
generated pictures, photographs and maps of real models at once: docs/quality.md.

1. Each map is averaged over neighbours that look alike (`refine.pixel_adaptive`).
2. Its distance from `thresholds.threshold_by_share` says how likely a pixel is the
   object's; the colours of both sides, found in turn, add to it
   (`color_histograms`); the guided filter moves borders to edges.
3. Of several classes, what one of them claims is an object; whose it is, is decided by
   contrast: a class is where its map is higher than halfway between what it has in its
   own object and in those of others. Of several pieces, each class gets one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import label
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from napari_ovam.segmentation.color_histograms import ColorHistograms
from napari_ovam.segmentation.refine import GuidedFilter, pixel_adaptive
from napari_ovam.segmentation.thresholds import THRESHOLD, threshold_by_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 256
"""The longer side, in pixels, of what the rule looks at: four times a map's cells."""

# Logits: from the mean below a map's threshold to the mean above it are this many, ...
_GAIN = 6.0
# ... no map alone has more than this, ...
_SUREST = 6.0
# ... and colours have this share of their log-ratio, as they are not independent.
_COLOR = 0.9
_ROUNDS = 3

# Where several classes claim less than the first share of what any of them does, each
# has its own; from the second on, contrast decides.
_CONTESTED = (0.1, 0.4)
# How much of the contrast is that of the pixels around, within the objects: an object
# is one class's. It spreads on the grid of the map's cells, by one cell a time, so
# often: this share of the cells of the smallest object, and no more than so often.
_AROUND = 0.8
_CELLS = 64
_SPREAD, _MOST_SPREAD = 0.15, 120
# How much a class's own claim weighs beside the contrast.
_OWN = 0.6
# A piece smaller than this share of the largest is a crumb, not an object of its own.
_SIZEABLE = 0.1


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
    scale = SIDE / max(image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in image.shape[:2])
    with torch.no_grad():
        picture = _resized(np.moveaxis(image, 2, 0), size) / 255
        small = torch.cat([_resized(maps[i : i + 1], size) for i in told])
        evidence = pixel_adaptive(_stretched(small), picture)
        edges = GuidedFilter(picture)
        colors = ColorHistograms(picture.permute(1, 2, 0).numpy())
        levels, contrasts = _levels(evidence)
        priors = _GAIN * (evidence - levels) / contrasts
        found = _alone(priors.clamp(-_SUREST, _SUREST), edges, colors)
        if len(told) > 1:
            found = _shared(evidence / contrasts, found, edges)
        result[told] = edges.enlarge(found, image)
    if len(told) == 1:
        # The surest pixel of a map that is not flat is always the class's.
        top = result[told[0]].max()
        if top < THRESHOLD:
            result[told[0]] *= np.nextafter(np.float32(THRESHOLD / top), np.float32(9))
    return result


def _levels(evidence: Tensor) -> tuple[Tensor, Tensor]:
    """Return each map's threshold and how far it parts both sides, (P, 1, 1) each."""
    found = []
    for values in evidence.numpy():
        level = threshold_by_share(values)
        above = values >= level
        apart = float(values[above].mean() - np.median(values[~above]))
        found.append((level, max(apart, 1e-6)))
    levels, contrasts = torch.tensor(found).T[..., None, None]
    return levels, contrasts


def _alone(priors: Tensor, edges: GuidedFilter, colors: ColorHistograms) -> Tensor:
    """Return the probabilities of classes, each as if there were no others.

    `priors` are logits: 0 at a map's threshold.
    """
    found = priors.sigmoid()
    for _ in range(_ROUNDS):
        likely = np.stack(
            [colors.log_ratio(each >= THRESHOLD) for each in found.numpy()]
        )
        found = edges((priors + _COLOR * torch.from_numpy(likely)).sigmoid())
        found = found.clamp(0, 1)
    return found


def _shared(maps: Tensor, alone: Tensor, edges: GuidedFilter) -> Tensor:
    """Return the probabilities of classes that compete for the same pixels.

    What any class claims is an object. As far as several claim the same, contrast says
    whose it is: class j has a pixel where its map exceeds b_j the most, with b_j the
    mean over all classes k of what map j has on the objects of class k. It begins with
    the map's mean on all objects; then the objects and b_j are found in turn. The maps
    have a contrast of 1 each.
    """
    top = alone.amax(0)
    claimed = alone >= THRESHOLD
    inside = claimed.any(0)
    share = float((claimed.sum(0) > 1).sum() / inside.sum().clamp_min(1))
    low, high = _CONTESTED
    decided = min(max((share - low) / (high - low), 0.0), 1.0)
    belongs = alone.square() / alone.square().sum(0).clamp_min(1e-9)
    if decided:
        weight = top * inside
        smallest = float(claimed.float().mean((1, 2)).min())
        often = int(np.clip(_SPREAD * smallest * _CELLS**2, 1, _MOST_SPREAD))
        maps = torch.lerp(maps, _spread(maps, weight, often), _AROUND)
        claims = alone.clamp_min(0.02).log() * _OWN
        mean = maps[:, inside].mean(1)[:, None, None]
        start = (maps - mean) / maps[:, inside].std().clamp_min(1e-6)
        claims += _GAIN * _assigned(start, claimed)
        by_contrast = (start * _GAIN / 2 + claims).softmax(0)
        for _ in range(_ROUNDS):
            parts = by_contrast * weight
            means = torch.einsum("jhw,khw->jk", maps, parts) / parts.sum((1, 2))
            excess = maps - means.mean(1)[:, None, None]
            by_contrast = (_GAIN * excess + claims).softmax(0)
        by_contrast = edges(by_contrast).clamp_min(1e-4)
        belongs = torch.lerp(belongs, by_contrast / by_contrast.sum(0), decided)
    # The highest has the probability of an object, so that no gap is between classes.
    result: Tensor = top * belongs / belongs.amax(0).clamp_min(1e-9)
    return result


def _assigned(maps: Tensor, claimed: Tensor) -> Tensor:
    """Return 1 on the piece that each class gets, 0 elsewhere, (P, h, w).

    Where there are enough sizeable contested pieces for all classes, each class gets
    one, so that the sum of what the maps have there is the highest (Kuhn, Naval
    Research Logistics 1955): no class is left with nothing because another sees its
    object as well. `maps` have a mean of 0 on all pieces, and one scale.
    """
    pieces, count = label(claimed.any(0).numpy())
    flat = pieces.ravel()

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(flat, values.ravel(), count + 1)[1:] / sizes

    sizes = np.bincount(flat, minlength=count + 1)[1:]
    contested = mean((claimed.sum(0) > 1).numpy()) > _CONTESTED[1]
    whole = np.flatnonzero(contested & (sizes >= _SIZEABLE * sizes.max(initial=0)))
    given = np.zeros((len(maps), count + 1), np.float32)
    if len(whole) >= len(maps):
        heights = np.stack([mean(each)[whole] for each in maps.numpy()])
        classes, places = linear_sum_assignment(heights, maximize=True)
        given[classes, whole[places] + 1] = 1
    return torch.from_numpy(given[:, pieces])


def _spread(maps: Tensor, weight: Tensor, often: int) -> Tensor:
    """Average maps (P, h, w) over pixels around, where a weight (h, w) is.

    By cells of the model's size: normalized convolution (Knutsson & Westin, CVPR 1993)
    with a box, again and again, which follows the shape of the objects.
    """
    scale = _CELLS / max(weight.shape)
    size = tuple(max(1, round(side * scale)) for side in weight.shape)
    cells = functional.interpolate(weight[None, None], size, mode="area")
    cells = cells.clamp_min(1e-4)
    found = functional.interpolate((maps * weight)[None], size, mode="area") / cells
    cells = cells.square()  # what is hardly an object passes nothing on
    around = _box(cells)
    for _ in range(often):
        found = _box(found * cells) / around
    return functional.interpolate(
        found, weight.shape, mode="bilinear", align_corners=False
    )[0]


def _box(values: Tensor) -> Tensor:
    padded = functional.pad(values, (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(padded, 3, 1)


def _resized(values: NDArray[Any], size: tuple[int, ...]) -> Tensor:
    """Resize (C, H, W): averages where it shrinks, linear where it grows."""
    floats = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None]
    if size[0] * size[1] <= values.shape[1] * values.shape[2]:
        return functional.interpolate(floats, size, mode="area")[0]
    return functional.interpolate(floats, size, mode="bilinear", align_corners=False)[0]


def _stretched(maps: Tensor) -> Tensor:
    low = maps.amin((1, 2), keepdim=True)
    return (maps - low) / (maps.amax((1, 2), keepdim=True) - low).clamp_min(1e-9)
