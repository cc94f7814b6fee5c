"""The recipes of `optimize_token`: OVAM's own, and a faster one.

The maps of two rows need one dot product a cell: softmax over two is σ(scale · Q ·
(k₁ − k₀)), and the background's map is the constant minus the class's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_ovam.attention.maps import check_queries, resize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_ovam.attention.trace import LayerTrace, Trace

Recipe = Literal["default", "ovam"]


@dataclass(frozen=True)
class OptimizationSettings:
    """How a token is optimized; None stands for the recipe's own value.

    Attributes
    ----------
    recipe
        "default", or "ovam" to reproduce the publication.
    iterations
        Steps, at least 1: 120 by default, 1000 for "ovam" (800 in its VOC experiment).
    seed
        For recipes that draw at random; these two do not, and give the same token
        for every seed.
    learning_rate
        Above 0: 0.1 (Adam) by default, 300 (SGD) for "ovam" (VOC: 100).
    decay, decay_every
        The learning rate is multiplied by `decay` every `decay_every` steps: 0.7 every
        80 for "ovam" (VOC: 120). By default it falls along half a cosine and these
        are not used.
    regularization
        Weight of the squared way from the start, relative to the start's own square;
        of the default recipe only.
    patience
        Steps without a better loss after which the default recipe ends.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    recipe: Recipe = "default"
    iterations: int | None = None
    seed: int = 0
    learning_rate: float | None = None
    decay: float = 0.7
    decay_every: int = 80
    regularization: float = 0.0
    patience: int = 30

    def __post_init__(self) -> None:
        if self.recipe not in get_args(Recipe):
            raise ValueError(
                f"recipe is {self.recipe!r}: give one of {list(get_args(Recipe))}"
            )
        for name in ("iterations", "decay_every", "patience"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}: give a whole number from 1")
        for name in ("learning_rate", "decay"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name} is {value!r}: give a number above 0")
        if not 0 <= self.regularization < np.inf:
            raise ValueError(
                f"regularization is {self.regularization!r}: give 0 or more"
            )


# Layers of up to so many values, where they are alike, are worked on together: they
# take as long to start as to compute.
_SMALL = 2**20


class _Turned:
    """The queries of a layer turned, (1, calls, heads, head_dim, cells), or of several.

    Keys by turned queries are several times faster than queries by keys. `weight`
    (layers, heads, head_dim, text_dim) makes the difference of two keys of that of two
    rows: fixed weights need one product for both, and a bias is in both.
    """

    def __init__(self, layer: LayerTrace, place: int) -> None:
        self.grid, self.places = layer.grid, [place]
        self.queries = layer.queries.transpose(-1, -2)[None]
        self.weight: Tensor | None = None
        if layer.key_weight is not None and layer.key_norm is None:
            by_head = layer.key_weight.unflatten(0, (layer.shape[1], -1))
            self.weight = by_head[None] * layer.scale

    @property
    def is_small(self) -> bool:
        return self.queries.numel() <= _SMALL

    @staticmethod
    def joined(layers: list[_Turned]) -> _Turned:
        """Return layers that are alike as one."""
        first = layers[0]
        if first.is_small:
            first.places = [place for layer in layers for place in layer.places]
            first.queries = torch.cat([la.queries for la in layers]).contiguous()
            if first.weight is not None:
                weights = [la.weight for la in layers if la.weight is not None]
                first.weight = torch.cat(weights)
        return first

    def scores(self, difference: Tensor, streamed: list[Tensor]) -> Tensor:
        """Return (layers, calls, heads, 1, cells).

        `streamed` has the keys' differences of all layers where they are no linear
        function of the text, (calls or 1, heads, 1, head_dim).
        """
        if self.weight is not None:
            return (self.weight @ difference)[:, None, :, None] @ self.queries
        return torch.stack([streamed[place] for place in self.places]) @ self.queries


class _ClassMap:
    """The class's map on a trace as a function of the two rows, differentiable."""

    def __init__(self, trace: Trace, dtype: torch.dtype) -> None:
        self.grid = trace.grid
        self.total = trace.maps_per_pixel
        # No copy where it is that already.
        self._trace = replace(trace, self_layers=()).to(None, dtype)
        # What changes with every layer, or is normalised, is not linear in the text.
        normed = any(layer.key_norm for layer in trace.layers)
        self._makes_keys = normed or trace.stream is not None
        alike: dict[tuple[int, ...], list[_Turned]] = {}
        for place, (layer, _) in enumerate(self._trace.keys([])):
            check_queries(layer)
            own = _Turned(layer, place)
            kind = (*layer.grid, *layer.shape, -1 if own.is_small else place)
            alike.setdefault(kind, []).append(own)
        self._layers = [_Turned.joined(layers) for layers in alike.values()]

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (h, w) on the largest grid, the sum over layers, calls and heads."""
        difference = rows[1] - rows[0]
        streamed = []
        if self._makes_keys:
            keys = [keys for _, (keys,) in self._trace.keys([rows[None]])]
            streamed = [(each[:, :, 1] - each[:, :, 0]).unsqueeze(2) for each in keys]
        by_grid: dict[tuple[int, int], Tensor] = {}
        for layers in self._layers:
            scores = layers.scores(difference, streamed)
            summed = scores.sigmoid().sum((0, 1, 2, 3))
            grid = layers.grid
            by_grid[grid] = by_grid[grid] + summed if grid in by_grid else summed
        maps = [
            resize(each.view(1, *grid), self.grid)[0] for grid, each in by_grid.items()
        ]
        return torch.stack(maps).sum(0)


@dataclass(frozen=True)
class _Example:
    """A trace with its target, on the trace's device.

    `target` is how much of each cell is the class, `weight` how much of it is known.
    """

    class_map: _ClassMap
    target: Tensor
    weight: Tensor
    size: tuple[int, int]

    @cached_property
    def shares(self) -> tuple[Tensor, Tensor, Tensor]:
        """How much of each cell is the class, is not, and is known: (cells,) each."""
        shares = self.target * self.weight, (1 - self.target) * self.weight, self.weight
        inside, outside, known = (share.flatten() for share in shares)
        return inside, outside, known


class OvamRecipe:
    """OVAM's recipe: SGD on cross-entropy, with maps as logits."""

    def __init__(self, settings: OptimizationSettings) -> None:
        self.settings = settings
        self.iterations = settings.iterations or 1000
        self.learning_rate = settings.learning_rate or 300.0

    def problem(
        self, traces: Sequence[Trace], masks: Sequence[tuple[Any, Any]]
    ) -> list[_Example]:
        """Take the masks as they are, at the size of their images."""
        examples = []
        for trace, (inside, known) in zip(traces, masks, strict=True):
            device = trace.device
            dtype = choose_precision(self.settings, device)
            examples.append(
                _Example(
                    _ClassMap(trace, dtype),
                    torch.from_numpy(inside).to(device, dtype),
                    torch.from_numpy(known).to(device, dtype),
                    trace.image_size,
                )
            )
        return examples

    def steps(
        self, examples: list[_Example], rows: Tensor
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield a loss and the maps that it was taken of, then update the rows."""
        optimizer = torch.optim.SGD([rows], self.learning_rate)
        schedule = torch.optim.lr_scheduler.StepLR(
            optimizer, self.settings.decay_every, self.settings.decay
        )
        for _ in range(self.iterations):
            loss, maps = self.loss(examples, rows)
            yield loss, maps
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def loss(
        self, examples: list[_Example], rows: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Cross-entropy of all maps on one scale, and the maps of the class."""
        pairs = []
        for example in examples:
            found = resize(example.class_map(rows)[None], example.size)[0]
            pairs.append(torch.stack([example.class_map.total - found, found]))
        # One scale for all images and both rows (OVAM's normalization).
        low = torch.stack([pair.min() for pair in pairs]).min()
        high = torch.stack([pair.max() for pair in pairs]).max()
        pairs = [(pair - low) / (high - low) for pair in pairs]
        # Cross-entropy of two logits is the binary one of their difference.
        summed = [
            functional.binary_cross_entropy_with_logits(
                pair[1] - pair[0], e.target, e.weight, reduction="sum"
            )
            for pair, e in zip(pairs, examples, strict=True)
        ]
        known = torch.stack([e.weight.sum() for e in examples]).sum()
        return torch.stack(summed).sum() / known, [pair[1] for pair in pairs]


class DefaultRecipe:
    """The faster recipe: Adam on balanced cross-entropy and Dice, at the trace's grid.

    The map is taken as it is, divided by its largest possible value: a cell at 1 is
    the class for every layer, call and head, whatever else is in the image.
    """

    def __init__(self, settings: OptimizationSettings) -> None:
        self.settings = settings
        self.iterations = settings.iterations or 120
        self.learning_rate = settings.learning_rate or 0.1

    def problem(
        self, traces: Sequence[Trace], masks: Sequence[tuple[Any, Any]]
    ) -> list[_Example]:
        """Average the masks over the cells of the grid, unsure pixels left out."""
        examples = []
        for full in OvamRecipe(self.settings).problem(traces, masks):
            grid = full.class_map.grid
            weight = _average(full.weight, grid)
            target = _average(full.target * full.weight, grid) / weight.clamp_min(1e-6)
            examples.append(_Example(full.class_map, target, weight, full.size))
        return examples

    def steps(
        self, examples: list[_Example], rows: Tensor
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield a loss and the maps that it was taken of, then update the rows."""
        start = rows.detach().clone()
        optimizer = torch.optim.Adam([rows], self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, self.iterations
        )
        lowest, since = float("inf"), 0
        for _ in range(self.iterations):
            maps = [e.class_map(rows) / e.class_map.total for e in examples]
            losses = [self.loss(m, e) for m, e in zip(maps, examples, strict=True)]
            way = (rows - start).square().mean() / start.square().mean()
            loss = torch.stack(losses).mean() + self.settings.regularization * way
            yield loss, maps
            since = 0 if loss.item() < lowest else since + 1
            lowest = min(lowest, loss.item())
            if since >= self.settings.patience:
                return
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def loss(self, found: Tensor, example: _Example) -> Tensor:
        """Balanced cross-entropy, where both classes weigh the same, plus Dice."""
        inside, outside, weight = example.shares
        found = found.clamp(1e-6, 1 - 1e-6).flatten()
        size = inside.sum()
        entropy = -(
            (inside @ found.log()) / size
            + (outside @ (1 - found).log()) / outside.sum()
        )
        dice = 1 - 2 * (inside @ found) / (size + weight @ found)
        return entropy / 2 + dice


def choose_precision(
    settings: OptimizationSettings, device: torch.device
) -> torch.dtype:
    """Return float64 for "ovam" where the device has it.

    At its learning rates the way is chaotic on some images: rounding in single
    precision changes the losses after a dozen steps.
    """
    if settings.recipe == "ovam" and device.type != "mps":
        return torch.float64
    return torch.float32


def _average(image: Tensor, grid: tuple[int, int]) -> Tensor:
    return functional.adaptive_avg_pool2d(image[None], grid)[0]
