"""Refit a token, score it on images left out, use it if it is better: the one rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

from napari_ovam.attention.optimize import OptimizationSettings, optimize_token
from napari_ovam.base.progress import Cancelled
from napari_ovam.workflows.accepted import split_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.base.progress import Progress
    from napari_ovam.workflows.accepted import Example

GAIN = 0.001
"""What a token has to gain in IoU: less comes and goes with the images."""

_SURE = 0.9
_PART = 100  # what a class counts in the progress


@dataclass(frozen=True, eq=False, kw_only=True)
class Refitted:
    """A token optimized on accepted images, and what it is worth on others.

    Attributes
    ----------
    before, after
        Mean scores on `left_out`: of what is in use, and of the new token; the latter
        on each image by a token that was not optimized on it.
    token
        The new token, optimized on all images.
    images
        What it was optimized on.
    left_out
        What both were scored on. Empty where there was one image: before and after are
        of that image itself then, and say little.
    known
        Those of `left_out` that the token in use had learned from: `before` flatters
        it there. They count only where there are no others.
    error
        How much of the gain may be chance, by its spread over `left_out`: that of
        nine in ten such samples is less (Student, 1908).
    """

    before: float
    after: float
    token: Token
    images: tuple[str, ...]
    left_out: tuple[str, ...]
    known: tuple[str, ...] = ()
    error: float = 0.0

    @property
    def better(self) -> bool:
        """Whether the token is to be used: it is better on images left out.

        By more than comes and goes with the images: of few that differ, by much.
        """
        needed = max(GAIN, self.error)
        return bool(self.left_out) and self.after - self.before >= needed


def refit(
    names: Sequence[str],
    optimize: Callable[[Sequence[str]], Token],
    score_used: Callable[[str], float],
    score: Callable[[Token, str], float],
    *,
    leave_out: float,
    seed: Sequence[int],
    used: Token | None,
    report: Report,
) -> Refitted:
    """Optimize a token on images, and score it on those left out: see `split_names`.

    Parameters
    ----------
    names
        Of the images.
    optimize
        Returns a token for images.
    score_used, score
        Return how good what is in use, and a token, is on an image.
    leave_out, seed
        As for `split_names`.
    used
        The token in use, which may have learned from some of the images.
    report
        Hears of each optimization and score.
    """
    learned = set((used.info if used else {}).get("learned_from", ()))
    shares = split_names(names, leave_out, seed, learned)
    report.plan(len(shares) + (len(names) > 1))
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for inside, outside in shares:
        token = optimize(inside)
        for name in outside or inside:
            before[name], after[name] = score_used(name), score(token, name)
            report.of_one()
    if len(names) > 1:
        token = optimize(names)
    result = float(np.mean(list(after.values())))
    error = _error(np.array([after[name] - before[name] for name in before]))
    info = {"images": len(names), "learned_from": list(names), "iou": round(result, 4)}
    return Refitted(
        before=float(np.mean(list(before.values()))),
        after=result,
        token=replace(token, info={**token.info, **info}),
        images=tuple(names),
        left_out=tuple(sorted(before)) if len(names) > 1 else (),
        known=tuple(name for name in sorted(before) if name in learned),
        error=error,
    )


def _error(gains: NDArray[np.float64]) -> float:
    if len(gains) < 2:
        return 0.0
    return float(
        student.ppf(_SURE, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5
    )


def optimized(
    start: Token,
    chosen: Sequence[Example],
    targets: Sequence[NDArray[Any]],
    settings: OptimizationSettings | None,
    report: Report,
) -> Token:
    """Return a token that is optimized on images; it raises `Cancelled`, too."""
    traces = [each.trace for each in chosen]
    token = optimize_token(traces, start, targets, settings, progress=report.of_one)
    if token.info["cancelled"]:
        raise Cancelled
    report.end_one()
    return token


class Report:
    """Progress over several classes, each in several optimizations."""

    def __init__(self, progress: Progress, classes: int) -> None:
        self._progress = progress
        self._place, self._run, self._runs = 0, 0, 1
        self.total = classes * _PART

    def begin(self, place: int) -> None:
        """Begin a class, wherever the one before ended."""
        self._place, self._run, self._runs = place, 0, 1
        self.of_one()

    def plan(self, runs: int) -> None:
        """Say how many optimizations the class takes."""
        self._runs = runs

    def of_one(self, done: int = 0, total: int = 1) -> None:
        """Report the steps of one optimization, or that work goes on."""
        share = min(1.0, (self._run + done / max(total, 1)) / self._runs)
        self._progress(self._place * _PART + int(share * _PART), self.total)

    def end_one(self) -> None:
        """Count an optimization as done, in however many steps."""
        self._run += 1
        self.of_one()
