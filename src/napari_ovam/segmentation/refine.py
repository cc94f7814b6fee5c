"""Sharper maps: along the model's own self-attention, or the edges of the image.

Each step takes maps (P, H, W) and returns such maps, so that steps compose:
``refine(propagate(maps, trace), image)``. None changes a flat map or leaves the range
of the map that it was given. docs/quality.md says what each is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from skimage.color import rgb2lab
from skimage.segmentation import slic
from torch import Tensor
from torch.nn import functional

from napari_ovam.segmentation.random_walker import Walks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import SelfTrace, Trace

# Squared differences in colour at which an edge counts: about 10 units of CIE Lab.
_LAB_SCALE = 100.0
# The least that neighbours are tied together, however different they look.
_LEAST_TIE = 1e-4


def refine(
    maps: NDArray[Any],
    image: NDArray[np.uint8],
    method: str = "walk",
    **options: Any,
) -> NDArray[np.float32]:
    """Move the borders of maps to edges of the image.

    Parameters
    ----------
    maps
        Shape (P, H, W), or (H, W) for one, as from `phrase_map`.
    image
        RGB, shape (H, W, 3), the image that the maps belong to.
    method
        A name in `REFINEMENTS`: "walk", "superpixels" or "guided".
    **options
        Of the method: see `walk`, `superpixels` and `guided`.

    Returns
    -------
    ndarray
        The maps, of the shape that was given, within the range of each map.

    Raises
    ------
    ValueError
        If the method is unknown, shapes do not fit, a map holds NaN, or an option is
        out of its range.
    """
    if method not in REFINEMENTS:
        raise ValueError(f"method is {method!r}: give one of {sorted(REFINEMENTS)}")
    found = np.asarray(maps)
    stack = _checked_maps(found[None] if found.ndim == 2 else found)
    if np.shape(image) != (*stack.shape[1:], 3) or image.dtype != np.uint8:
        raise ValueError(
            f"the image is {getattr(image, 'dtype', None)} of shape "
            f"{np.shape(image)}: the maps want an RGB image (uint8) of "
            f"{(*stack.shape[1:], 3)}"
        )
    refined = REFINEMENTS[method](stack, image, **options)
    low, high = stack.min((1, 2), keepdims=True), stack.max((1, 2), keepdims=True)
    result: NDArray[np.float32] = np.clip(refined, low, high).astype(np.float32)
    return result.reshape(found.shape)


def walk(
    maps: NDArray[np.float32],
    image: NDArray[np.uint8],
    *,
    reach: float = 0.012,
    tolerance: float = 3e-3,
) -> NDArray[np.float32]:
    """Let maps flow between pixels that look alike: random walks with a prior.

    The result x minimizes sum (x - map)^2 + r * sum w (x_i - x_j)^2 over neighbouring
    pixels, with w = exp(-|colour difference|^2 / 100) in CIE Lab and r = reach * H * W:
    each pixel takes the map's mean over where walks from it end that hardly cross
    edges (the random walker with a prior of Grady, CVPR 2005, for each map alone).

    Parameters
    ----------
    reach
        Above 0: the share of the image's area that a walk roams, about, where nothing
        is in its way.
    tolerance
        Above 0: the error at which `Walks.solve` stops, by the map's deviation.
    """
    _check_positive(reach=reach, tolerance=tolerance)
    lab = rgb2lab(image.astype(np.float32) / 255)
    area = reach * maps[0].size
    right, down = (
        area
        * (np.exp(-(np.diff(lab, axis=axis) ** 2).sum(2) / _LAB_SCALE) + _LEAST_TIE)
        for axis in (1, 0)
    )
    walks = Walks(right.astype(np.float32), down.astype(np.float32))
    return np.stack([walks.solve(each, tolerance) for each in maps])


def superpixels(
    maps: NDArray[np.float32],
    image: NDArray[np.uint8],
    *,
    sizes: tuple[float, ...] = (40.0, 80.0, 160.0),
    compactness: float = 8.0,
) -> NDArray[np.float32]:
    """Average maps over superpixels (SLIC, Achanta et al., TPAMI 2012).

    Parameters
    ----------
    sizes
        Pixels in a superpixel, about; the results of several are averaged.
    compactness
        Above 0: the higher, the squarer the superpixels.
    """
    _check_positive(compactness=compactness, **{f"size {s!r}": s for s in sizes})
    if not sizes:
        raise ValueError("sizes is empty: give at least one")
    total = np.zeros(maps.shape, np.float64)
    for size in sizes:
        parts = slic(
            image,
            n_segments=max(1, round(maps[0].size / size)),
            compactness=compactness,
            start_label=0,
        ).ravel()
        counts = np.maximum(np.bincount(parts), 1)
        for i, each in enumerate(maps):
            total[i] += (np.bincount(parts, each.ravel()) / counts)[parts].reshape(
                each.shape
            )
    return (total / len(sizes)).astype(np.float32)


def guided(
    maps: NDArray[np.float32],
    image: NDArray[np.uint8],
    *,
    radius: int = 4,
    smoothness: float = 1e-4,
) -> NDArray[np.float32]:
    """Make maps locally linear in the image's colours: the guided filter.

    He, Sun & Tang, TPAMI 2013, equations 14 to 16, with a colour image as the guide.

    Parameters
    ----------
    radius
        Half the window, in pixels, at least 1.
    smoothness
        Above 0, the epsilon of the paper for colours from 0 to 1: variance below it
        is no edge.
    """
    _check_positive(smoothness=smoothness, radius=radius)

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        sizes = (2 * int(radius) + 1,) * 2 + (1,) * (values.ndim - 2)
        averaged: NDArray[Any] = uniform_filter(values, sizes, mode="nearest")
        return averaged

    guide = image / 255.0
    average = mean(guide)
    spread = mean(guide[..., :, None] * guide[..., None, :])
    spread = spread - average[..., :, None] * average[..., None, :]
    spread = spread + smoothness * np.eye(3)
    refined = []
    for each in maps.astype(np.float64):
        shared = mean(guide * each[..., None]) - average * mean(each)[..., None]
        slope = np.linalg.solve(spread, shared[..., None])[..., 0]
        offset = mean(each) - (slope * average).sum(-1)
        refined.append((mean(slope) * guide).sum(-1) + mean(offset))
    return np.stack(refined).astype(np.float32)


REFINEMENTS: Mapping[str, Callable[..., NDArray[np.float32]]] = {
    "walk": walk,
    "superpixels": superpixels,
    "guided": guided,
}


def propagate(
    maps: NDArray[Any],
    trace: Trace,
    *,
    power: int = 1,
    weight: float = 1.0,
    layers: Iterable[int] | None = None,
) -> NDArray[np.float32]:
    """Spread maps over cells that attend to each other in the model itself.

    Each cell gets the mean of the map over the cells that it attends to, in each
    self-attention layer; the results are averaged over calls, heads and layers.

    Parameters
    ----------
    maps
        Shape (P, H, W), or (H, W) for one.
    trace
        Recorded with `self_attention=True`.
    power
        How often the map is multiplied by the attention, at least 1.
    weight
        Share of the propagated map in the result, 0 to 1; the rest is the map.
    layers
        Longer sides of the grids whose layers are used; None takes all.

    Returns
    -------
    ndarray
        The maps, of the shape that was given, within the range of each map.

    Raises
    ------
    ValueError
        If the trace holds no such self-attention layers, a value is out of its range,
        or a map holds NaN.
    """
    if not isinstance(power, int) or power < 1:
        raise ValueError(f"power is {power!r}: give a whole number from 1")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is {weight!r}: give a number from 0 to 1")
    chosen = _chosen(trace, layers)
    found = np.asarray(maps)
    stack = torch.from_numpy(_checked_maps(found[None] if found.ndim == 2 else found))
    total = torch.zeros_like(stack)
    with torch.no_grad():
        for layer in chosen:
            cells = _resized(stack, layer.grid).flatten(1).T
            for _ in range(power):
                cells = _attend(layer, cells)
            total += _resized(cells.T.unflatten(1, layer.grid), stack.shape[1:])
        mixed = weight * total / len(chosen) + (1 - weight) * stack
    result: NDArray[np.float32] = mixed.numpy().reshape(found.shape)
    return result


def _attend(layer: SelfTrace, values: Tensor) -> Tensor:
    """Return (cells, P) after one multiplication by a layer's attention.

    The matrix (cells, cells) is never built, and values as wide as the queries take
    the fast way of `scaled_dot_product_attention`.
    """
    queries = layer.queries.float().flatten(0, 1)
    keys = layer.keys.float().flatten(0, 1)
    width, wanted = queries.shape[-1], values.shape[1]
    parts = []
    for part in values.to(queries.device).split(width, 1):
        padded = functional.pad(part, (0, width - part.shape[1]))
        spread = functional.scaled_dot_product_attention(
            queries, keys, padded.expand(len(queries), -1, -1), scale=layer.scale
        )
        parts.append(spread.mean(0)[:, : part.shape[1]])
    return torch.cat(parts, 1)[:, :wanted].to(values.device)


def _chosen(trace: Trace, sides: Iterable[int] | None) -> list[SelfTrace]:
    if not trace.self_layers:
        raise ValueError(
            "the trace holds no self-attention: record it with "
            "TraceSettings(self_attention=True)"
        )
    if sides is None:
        return list(trace.self_layers)
    wanted = set(sides)
    there = {max(layer.grid) for layer in trace.self_layers}
    if not wanted or wanted - there:
        raise ValueError(f"layers is {sorted(wanted)}: give sides of {sorted(there)}")
    return [layer for layer in trace.self_layers if max(layer.grid) in wanted]


def _resized(maps: Tensor, size: Iterable[int]) -> Tensor:
    """Resize (P, h, w): averages where it shrinks, bilinear where it grows."""
    height, width = size
    if maps.shape[1] >= height and maps.shape[2] >= width:
        return functional.adaptive_avg_pool2d(maps, (height, width))
    return functional.interpolate(
        maps[None], size=(height, width), mode="bilinear", align_corners=False
    )[0]


def _checked_maps(maps: NDArray[Any]) -> NDArray[np.float32]:
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"maps have the shape {maps.shape}: give (P, H, W) or (H, W)")
    floats: NDArray[np.float32] = np.ascontiguousarray(maps, np.float32)
    if not np.isfinite(floats).all():
        raise ValueError("a map holds NaN or infinite values")
    return floats


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name} is {value!r}: give a number above 0")
