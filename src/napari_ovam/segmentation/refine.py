"""Sharper maps: along what the picture shows, or the model's own self-attention.

`PixelAdaptive` and `GuidedFilter` work on small pictures (a few hundred pixels a
side), for all maps of a picture at once; `probabilities` puts them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_ovam.attention.trace import SelfTrace, Trace

# What `GuidedFilter.enlarge` has in memory at a time: values of a strip of rows.
_STRIP = 4_000_000


class PixelAdaptive:
    """Averages maps over neighbours that look alike, a few times.

    Pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020, section 3.3): each
    pixel takes the mean of 8 neighbours at each of several distances, weighted by a
    softmax of the difference in colour over the local standard deviation. It reaches
    some ten pixels, so that small objects stay where they are.

    Parameters
    ----------
    picture
        Shape (3, h, w), from 0 to 1.
    dilations
        Distances of the neighbours in pixels.
    rounds
        How often.
    """

    def __init__(
        self,
        picture: Tensor,
        *,
        dilations: tuple[int, ...] = (1, 2, 4, 8),
        rounds: int = 6,
    ) -> None:
        self._rounds = rounds
        self._places = [
            (d * down, d * right)
            for d in dilations
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if down or right
        ]
        weights = torch.empty(len(self._places), *picture.shape[1:])
        around = moved(picture, self._places)
        count = len(self._places) + 1
        mean = (sum(around) + picture) / count
        spread = sum(((each - mean) ** 2 for each in around), (picture - mean) ** 2)
        spread = (spread / (count - 1)).sqrt() * 0.1 + 1e-8  # 0.1 as in the paper
        for weight, each in zip(weights, around, strict=True):
            weight.copy_(-((picture - each).abs() / spread).mean(0))
        self._weights = weights.softmax(0).unbind()

    def __call__(self, maps: Tensor) -> Tensor:
        """Return maps of shape (P, h, w), averaged."""
        for _ in range(self._rounds):
            total = torch.zeros_like(maps)
            around = moved(maps, self._places)
            for weight, each in zip(self._weights, around, strict=True):
                total.addcmul_(each, weight)
            maps = total
        return maps


def moved(values: Tensor, places: list[tuple[int, int]]) -> list[Tensor]:
    """Return views of (C, h, w), each moved by (down, right); edges are repeated."""
    reach = max(max(map(abs, place)) for place in places)
    height, width = values.shape[1:]
    padded = functional.pad(values[None], (reach,) * 4, mode="replicate")[0]
    return [
        padded[:, reach + y : reach + y + height, reach + x : reach + x + width]
        for y, x in places
    ]


class GuidedFilter:
    """The guided filter with a colour picture as its guide.

    Values become locally linear in the colours, so that their edges are the picture's
    (He, Sun & Tang, TPAMI 2013, equations 14 to 16); found on a small picture, the
    linear functions hold on the large one as well (He & Sun, Fast Guided Filter,
    arXiv 1505.00996).

    Parameters
    ----------
    picture
        Shape (3, h, w), from 0 to 1.
    radius
        Half the window, in pixels.
    smoothness
        The papers' epsilon: variance of colours below it is no edge.
    """

    def __init__(
        self, picture: Tensor, radius: int = 4, smoothness: float = 3e-4
    ) -> None:
        self._picture, self._radius = picture, radius
        self._mean = self._box(picture)
        products = self._box(picture[:, None] * picture)
        spread = products - self._mean[:, None] * self._mean
        (a, b, c), (_, d, e), (_, _, f) = (
            spread + smoothness * torch.eye(3)[..., None, None]
        )
        # The inverse of a symmetric 3 x 3 matrix, for all pixels at once.
        rows = (
            (d * f - e * e, c * e - b * f, b * e - c * d),
            (c * e - b * f, a * f - c * c, b * c - a * e),
            (b * e - c * d, b * c - a * e, a * d - b * b),
        )
        determinant = a * rows[0][0] + b * rows[0][1] + c * rows[0][2]
        self._inverse = torch.stack([torch.stack(row) for row in rows]) / determinant

    def __call__(self, values: Tensor) -> Tensor:
        """Return values (P, h, w) that follow the picture."""
        slopes, offsets = self._linear(values)
        return (slopes * self._picture).sum(1) + offsets

    def enlarge(self, values: Tensor, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return values (P, h, w) as (P, H, W), their edges those of an image."""
        slopes, offsets = self._linear(values)
        linear = torch.cat([slopes.flatten(0, 1), offsets])[None]
        height, width = image.shape[:2]
        result = np.empty((len(values), height, width), np.float32)
        step = max(1, _STRIP // (width * linear.shape[1]))
        rows = (torch.arange(height) + 0.5) * linear.shape[2] / height - 0.5
        for start in range(0, height, step):
            strip = _rows(linear, rows[start : start + step])
            strip = functional.interpolate(
                strip, (strip.shape[2], width), mode="bilinear", align_corners=False
            )[0]
            colors = torch.from_numpy(image[start : start + step].astype(np.float32))
            colors = colors.permute(2, 0, 1) / 255
            part = strip[3 * len(values) :]
            for number, each in enumerate(part):
                for channel, color in zip(strip[3 * number :], colors, strict=False):
                    each.addcmul_(channel, color)
            result[:, start : start + step] = part.clamp(0, 1).numpy()
        return result

    def _linear(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return slopes (P, 3, h, w) and offsets (P, h, w), averaged over windows."""
        mean = self._box(values)
        shared = self._box(self._picture * values[:, None])
        shared -= mean[:, None] * self._mean
        slopes = torch.stack([(self._inverse * each).sum(1) for each in shared])
        offsets = mean - (slopes * self._mean).sum(1)
        return self._box(slopes), self._box(offsets)

    def _box(self, values: Tensor) -> Tensor:
        window = (1,) * (values.ndim - 2) + (2 * self._radius + 1,) * 2
        return torch.from_numpy(uniform_filter(values.numpy(), window, mode="nearest"))


def _rows(values: Tensor, places: Tensor) -> Tensor:
    """Return rows of (1, C, h, w) at places between them, linearly."""
    places = places.clamp(0, values.shape[2] - 1)
    low = places.long().clamp(max=max(values.shape[2] - 2, 0))
    share = (places - low)[:, None]
    high = (low + 1).clamp(max=values.shape[2] - 1)
    return values[:, :, low] * (1 - share) + values[:, :, high] * share


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
            cells = resized(stack, layer.grid).flatten(1).T
            for _ in range(power):
                cells = _attend(layer, cells)
            total += resized(cells.T.unflatten(1, layer.grid), stack.shape[1:])
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


def resized(maps: Tensor | NDArray[Any], size: Iterable[int]) -> Tensor:
    """Resize (P, h, w): averages where it shrinks, bilinear where it grows."""
    height, width = size
    if not isinstance(maps, Tensor):
        maps = torch.from_numpy(np.ascontiguousarray(maps, np.float32))
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
