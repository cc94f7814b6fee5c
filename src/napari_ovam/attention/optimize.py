"""Optimize a token until its maps are the masks that a person corrected.

Two recipes, one loop: OVAM's own (Marcos-Manchón et al., CVPR 2024, arXiv
2403.14291, section 4), to reproduce it, and a faster one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_ovam import __version__
from napari_ovam.attention.maps import phrase_map
from napari_ovam.attention.recipes import DefaultRecipe, OvamRecipe, choose_precision
from napari_ovam.attention.recipes import OptimizationSettings as OptimizationSettings
from napari_ovam.attention.targets import best_threshold, split_mask
from napari_ovam.attention.tokens import Token, check_token
from napari_ovam.attention.trace import ModelMismatchError, Trace
from napari_ovam.base.progress import Cancelled, Progress, no_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    recipe = (OvamRecipe if settings.recipe == "ovam" else DefaultRecipe)(settings)
    problem = recipe.problem(traces, masks)
    start = torch.stack([token.background, token.embedding[token.span[1] - 1]])
    device = traces[0].device
    way = _Way(start.detach())
    rows = start.to(device, choose_precision(settings, device)).requires_grad_()
    report = progress or no_progress
    try:
        with torch.enable_grad():
            for loss, maps in recipe.steps(problem, rows):
                if not way.add(loss.item(), rows.detach()):
                    break
                if on_step is not None:
                    shown = tuple(m.detach().cpu().float() for m in maps)
                    on_step(len(way.losses) - 1, way.losses[-1], shown)
                report(len(way.losses), recipe.iterations)
    except Cancelled:
        way.cancelled = True
    used = {"iterations": recipe.iterations, "learning_rate": recipe.learning_rate}
    found = Token(
        name=token.name,
        model=traces[0].model or token.model,
        embedding=way.best,
        pieces=token.pieces,
        info={
            "phrase": token.info.get("phrase", token.name),
            "losses": way.losses,
            "scores": _scores(traces, masks, token, way.best),
            "cancelled": way.cancelled,
            "settings": asdict(settings) | used,
            "version": __version__,
        },
    )
    if way.diverged and not way.losses:
        raise OptimizationError(
            "the first loss is no number: the maps of these images are flat, record "
            "them again with more layers or calls",
            None,
        )
    if way.diverged:
        raise OptimizationError(
            f"the loss of step {len(way.losses)} is no number: use a learning rate "
            f"below {recipe.learning_rate:g}. The best token before it is kept",
            found,
        )
    return found


@dataclass
class _Way:
    """The losses so far, and the rows with the lowest."""

    best: Tensor
    losses: list[float] = field(default_factory=list)
    cancelled: bool = False
    diverged: bool = False

    def add(self, loss: float, rows: Tensor) -> bool:
        """Add a step; return whether it can go on."""
        # Rows that single precision cannot hold are no token either.
        self.diverged = not (np.isfinite(loss) and rows.float().isfinite().all())
        if self.diverged:
            return False
        if loss < min(self.losses, default=float("inf")):
            self.best = rows.to("cpu", torch.float32, copy=True)
        self.losses.append(loss)
        return True


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
