"""Optimize a token until its maps are the masks that a person corrected.

Two recipes, one loop: OVAM's own (Marcos-Manchón et al., CVPR 2024, arXiv
2403.14291, section 4), to reproduce it, and a faster one.

The maps of two rows need one dot product a cell: softmax over two is σ(scale · Q ·
(k₁ − k₀)), and the background's map is the constant minus the class's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_ovam.attention.maps import phrase_map
from napari_ovam.attention.targets import best_threshold, split_mask
from napari_ovam.attention.tokens import Token, check_token
from napari_ovam.attention.trace import ModelMismatchError, Trace
from napari_ovam.base.progress import Cancelled, Progress, no_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

Recipe = Literal["default", "ovam"]
OnStep = Callable[[int, float, tuple[Tensor, ...]], None]


class OptimizationError(ValueError):
    """An optimization that came to a loss that is no number.

    Attributes
    ----------
    token
        The best token before that, or None if there was none.
    """

    def __init__(self, message: str, token: Token | None) -> None:
        super().__init__(message)
        self.token = token


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


def optimize_token(
    traces: Trace | Sequence[Trace],
    token: Token,
    targets: NDArray[Any] | Sequence[NDArray[Any]],
    settings: OptimizationSettings | None = None,
    *,
    progress: Progress | None = None,
    on_step: OnStep | None = None,
) -> Token:
    """Optimize a token so that its maps are the targets.

    Parameters
    ----------
    traces
        One or several, of one model; their images may differ in size.
    token
        Where to start: the first row and the last of the span, which for a phrase
        are the start token and the phrase's last piece. To reproduce OVAM, encode
        the phrase with the image's prompt as context.
    targets
        One mask a trace, (H, W) of its image: bool, or uint8 {0, 1, 255 = unsure}.
    settings
        The recipe and its numbers.
    progress
        Called with (steps done, all steps). If it raises `Cancelled`, the best token
        so far is returned with `info["cancelled"]` True.
    on_step
        Called before each update with (step from 0, loss, maps): one map of the class
        for each trace, (h, w) on the CPU, 0 to 1. "ovam" gives them at the image's
        size, "default" at the trace's grid. It may raise `Cancelled` as well.

    Returns
    -------
    Token
        Rows [background, class] with the lowest loss, span (1, 2). `info` holds phrase;
        losses, one a step, each evaluated before that step's update; scores: the IoU
        "before" (as `token` was) and "after" on the targets, each at its best
        threshold, which are "threshold_before" and "threshold_after"; cancelled;
        settings; and the version of the package.

    Raises
    ------
    ModelMismatchError
        If the traces, or the token and they, come from different text encoders.
    OptimizationError
        If a loss is NaN or infinite; the error holds the best token before it.
    ValueError
        If a target is empty, full, of another size or with other values, or the
        numbers of traces and targets differ.
    """
    traces = (traces,) if isinstance(traces, Trace) else tuple(traces)
    single = isinstance(targets, np.ndarray) and len(traces) == 1 and targets.ndim == 2
    masks = _checked_masks(traces, [targets] if single else list(targets))
    _check_models(traces, token)
    settings = settings or OptimizationSettings()
    recipe = (_Ovam if settings.recipe == "ovam" else _Default)(settings)
    problem = recipe.problem(traces, masks)
    start = torch.stack([token.background, token.embedding[token.span[1] - 1]])
    device = traces[0].layers[0].queries.device
    rows = start.to(device, _precision(settings, device)).requires_grad_()
    best, losses, cancelled, diverged = start, list[float](), False, False
    report = progress or no_progress
    lowest = float("inf")
    try:
        with torch.enable_grad():
            for loss, maps in recipe.steps(problem, rows):
                value = loss.item()
                # Rows that single precision cannot hold are no token either.
                fits = bool(rows.detach().float().isfinite().all())
                diverged = not (np.isfinite(value) and fits)
                if diverged:
                    break
                losses.append(value)
                if value < lowest:
                    lowest, best = (
                        value,
                        rows.detach().to("cpu", torch.float32, copy=True),
                    )
                if on_step is not None:
                    on_step(
                        len(losses) - 1,
                        value,
                        tuple(m.detach().cpu().float() for m in maps),
                    )
                report(len(losses), recipe.iterations)
    except Cancelled:
        cancelled = True
    found = Token(
        name=token.name,
        model=traces[0].model or token.model,
        embedding=best,
        pieces=token.pieces,
        info={
            "phrase": token.info.get("phrase", token.name),
            "losses": losses,
            "scores": _scores(traces, masks, token, best),
            "cancelled": cancelled,
            "settings": asdict(settings)
            | {
                "iterations": recipe.iterations,
                "learning_rate": recipe.learning_rate,
            },
            "version": _version(),
        },
    )
    if diverged:
        if not losses:
            raise OptimizationError(
                "the first loss is no number: the maps of these images are flat, "
                "record them again with more layers or calls",
                None,
            )
        raise OptimizationError(
            f"the loss of step {len(losses)} is no number: use a learning rate below "
            f"{recipe.learning_rate:g}. The best token before it is kept",
            found,
        )
    return found


# Layers of up to so many values, where they are alike, are worked on together: they
# take as long to start as to compute.
_SMALL = 2**20


class _ClassMap:
    """The class's map on a trace as a function of the two rows, differentiable."""

    def __init__(self, trace: Trace, dtype: torch.dtype) -> None:
        self.grid = trace.grid
        self.total = trace.maps_per_pixel
        self._layers: list[tuple[Tensor, Tensor, tuple[int, int]]] = []
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for layer in trace.layers:
            queries = layer.queries.to(dtype)  # no copy where it is that already
            if not queries.isfinite().all():
                raise ValueError(
                    f"layer {layer.name} holds NaN or infinite queries: record again, "
                    "in float32"
                )
            # A key bias is in both keys and leaves their difference as it is.
            weight = layer.key_weight.to(dtype).unflatten(0, (queries.shape[1], -1))
            pair = queries.transpose(-1, -2)[None], weight[None] * layer.scale
            if queries.numel() > _SMALL:
                self._layers.append((*pair, layer.grid))
            else:
                alike.setdefault((*layer.grid, *queries.shape), []).append(pair)
        for (height, width, *_), pairs in alike.items():
            turned, weights = (torch.cat(each) for each in zip(*pairs, strict=True))
            self._layers.append((turned.contiguous(), weights, (height, width)))

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (h, w) on the largest grid, the sum over layers, calls and heads."""
        difference = rows[1] - rows[0]
        by_grid: dict[tuple[int, int], Tensor] = {}
        for queries, weight, grid in self._layers:
            # Keys by turned queries: several times faster than queries by keys.
            keys = (weight @ difference)[:, None, :, None]
            scores = keys @ queries
            summed = scores.sigmoid().sum((0, 1, 2, 3))
            by_grid[grid] = by_grid[grid] + summed if grid in by_grid else summed
        maps = [
            resize(each.unflatten(0, grid), self.grid) for grid, each in by_grid.items()
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


class _Ovam:
    """OVAM's recipe: SGD on cross-entropy, with maps as logits."""

    def __init__(self, settings: OptimizationSettings) -> None:
        self.settings = settings
        self.iterations = settings.iterations or 1000
        self.learning_rate = settings.learning_rate or 300.0

    def problem(
        self, traces: Sequence[Trace], masks: Sequence[tuple[Any, Any]]
    ) -> list[_Example]:
        examples = []
        for trace, (inside, known) in zip(traces, masks, strict=True):
            device = trace.layers[0].queries.device
            dtype = _precision(self.settings, device)
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
        pairs = []
        for example in examples:
            found = resize(example.class_map(rows), example.size)
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


class _Default:
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
        for full in _Ovam(self.settings).problem(traces, masks):
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


def _precision(settings: OptimizationSettings, device: torch.device) -> torch.dtype:
    """Return float64 for "ovam" where the device has it.

    At its learning rates the way is chaotic on some images: rounding in single
    precision changes the losses after a dozen steps.
    """
    if settings.recipe == "ovam" and device.type != "mps":
        return torch.float64
    return torch.float32


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (h, w) bilinearly, as `attention_maps` does."""
    if tuple(image.shape) == tuple(size):
        return image
    return functional.interpolate(
        image[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0]


def _average(image: Tensor, grid: tuple[int, int]) -> Tensor:
    return functional.adaptive_avg_pool2d(image[None], grid)[0]


def _checked_masks(
    traces: Sequence[Trace], targets: Sequence[Any]
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return (inside, known) of each target, once all of them fit their traces."""
    if not traces or len(traces) != len(targets):
        raise ValueError(
            f"there are {len(traces)} traces and {len(targets)} targets: give one "
            "target a trace, and at least one"
        )
    masks = []
    for i, (trace, target) in enumerate(zip(traces, targets, strict=True)):
        inside, known = split_mask(target, f"target {i}")
        if inside.shape != tuple(trace.image_size):
            raise ValueError(
                f"target {i} has the shape {inside.shape} and its image is "
                f"{tuple(trace.image_size)}: give a mask of the image's size"
            )
        if not inside.any():
            raise ValueError(
                f"target {i} is empty: mark the class in it, or leave the image out"
            )
        if inside[known].all():
            raise ValueError(
                f"target {i} is full: everything known in it is the class, so there is "
                "no background to learn from"
            )
        masks.append((inside, known))
    return masks


def _check_models(traces: Sequence[Trace], token: Token) -> None:
    models = {trace.model for trace in traces if trace.model}
    if len(models) > 1:
        raise ModelMismatchError(
            f"the traces come from different text encoders, {sorted(models)}: optimize "
            "with the images of one model"
        )
    for trace in traces:
        check_token(token, trace)


def _scores(
    traces: Sequence[Trace],
    masks: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    token: Token,
    best: Tensor,
) -> dict[str, float]:
    targets = [np.where(known, inside, 255).astype(np.uint8) for inside, known in masks]
    scores = {}
    for when, each in (("before", token), ("after", Token(token.name, "", best))):
        maps = [phrase_map(trace, each) for trace in traces]
        scores[f"threshold_{when}"], scores[when] = best_threshold(maps, targets)
    return scores


def _version() -> str:
    from napari_ovam import __version__

    return __version__
