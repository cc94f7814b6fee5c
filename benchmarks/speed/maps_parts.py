"""One phrase, ten phrases, one optimization step, and how each grows."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import naive
import numpy as np
import torch
from peaks import box, bytes_of, sides
from shapes import SD15, SDXL, Shape
from timing import Clock, peak_of, ratio

from napari_ovam import (
    OptimizationSettings,
    Token,
    Trace,
    optimize_token,
    phrase_map,
    phrase_maps,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SPAN = (1, 2)
TOLERANCE = 1e-3  # of the largest value: what the issue calls equal
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """How it is measured."""

    clock: Clock
    quick: bool

    @property
    def device(self) -> str:
        return self.clock.device

    @property
    def repeats(self) -> int:
        return 3 if self.quick else 7


def phrases(run: Run) -> list[Row]:
    """SD 1.5: one and ten phrases, naive and ours, by default and exact."""
    calls = 6 if run.quick else SD15.calls
    full = SD15.trace(calls, device=run.device)
    half = full.to(None, torch.float16)
    default = sides(calls, run.device, "default")
    tokens = [Token("x", "", _phrase(SD15, i)) for i in range(10)]
    on_device = [token.embedding.to(run.device) for token in tokens]
    _check_equal(full, half, tokens[0], on_device[0])
    rows = []
    for count in (1, 10):
        some, texts = tokens[:count], on_device[:count]
        functions: dict[str, Callable[[], Any]] = {
            "naive": lambda texts=texts: [  # type: ignore[misc]
                naive.phrase_map(full, text, SPAN) for text in texts
            ],
        }
        for name, trace in (("exact", full), ("half", half), ("default", default)):
            functions[name] = partial(phrase_maps, trace, some)
        repeats = run.repeats if count == 1 else 3
        times = run.clock.alternate(functions, repeats)
        for name, trace in (("default", default), ("exact", full), ("half", half)):
            rows.append(
                _row(f"{count} of SD 1.5", name, times, bytes_of(trace))
                | {"naive_bytes": bytes_of(full), "calls": calls}
            )
    return rows


def large(run: Run) -> list[Row]:
    """SDXL: one phrase; the naive side is measured on two calls and multiplied."""
    full = SDXL.trace(2, device=run.device)
    default = SDXL.trace(3, dtype=torch.float16, device=run.device, fine=True)
    text = _phrase(SDXL, 0)
    token = Token("x", "", text)
    on_device = text.to(run.device)
    times = run.clock.alternate(
        {
            "naive": lambda: naive.phrase_map(full, on_device, SPAN),
            "exact": lambda: phrase_map(full, token),
            "default": lambda: phrase_map(default, token),
        },
        3,
    )
    times = {
        name: [t * (1 if name == "default" else SDXL.calls / 2) for t in each]
        for name, each in times.items()
    }
    naive_bytes = 4 * SDXL.values_a_call() * SDXL.calls
    return [
        _row("1 of SDXL", "default", times, bytes_of(default))
        | {"naive_bytes": naive_bytes, "calls": SDXL.calls},
        _row("1 of SDXL", "exact", times, naive_bytes)
        | {"naive_bytes": naive_bytes, "calls": SDXL.calls},
    ]


def steps(run: Run) -> list[Row]:
    """One step of the optimization on an SD 1.5 trace."""
    calls = 3 if run.quick else SD15.calls
    full, default = (
        SD15.trace(calls, device=run.device),
        sides(calls, run.device, "default"),
    )
    mask, text = box(full.image_size), SD15.phrase(2)
    target = torch.tensor(mask, device=run.device)
    count = 3 if run.quick else 5

    def plain() -> list[float]:
        stamps: list[float] = []
        naive.optimize(
            [full],
            text.to(run.device),
            [target],
            steps=count,
            on_step=lambda *_: stamps.append(run.clock.now()),
        )
        return _gaps(stamps)

    def ours(trace: Trace, recipe: Any) -> list[float]:
        stamps: list[float] = []
        optimize_token(
            trace,
            Token("x", "", text),
            mask,
            OptimizationSettings(recipe=recipe, iterations=count),
            on_step=lambda *_: stamps.append(run.clock.now()),
        )
        return _gaps(stamps)

    times = {
        "default": ours(default, "default"),
        "naive": plain(),
        "exact": ours(full, "default"),
    }
    rows = [
        _row("step", name, times, bytes_of(trace))
        | {"naive_bytes": bytes_of(full), "calls": calls}
        for name, trace in (("default", default), ("exact", full))
    ]
    if not run.quick:
        for row in rows:
            row["peak"] = peak_of("step", row["side"], device=run.device)["extra"]
        rows[0]["naive_peak"] = peak_of("step", "naive", device=run.device)["extra"]
    return rows


def growth(run: Run) -> list[Row]:
    """How a phrase and a step grow: one thing is changed at a time."""
    rows = []
    default = partial(SD15.trace, dtype=torch.float16, device=run.device, fine=True)
    plain = partial(SD15.trace, device=run.device)
    text = SD15.phrase()

    def both(what: str, value: int, ours: Trace, theirs: Trace, embedding: Any) -> None:
        token, on_device = Token("x", "", embedding), embedding.to(run.device)
        times = run.clock.alternate(
            {
                "naive": lambda: naive.phrase_map(theirs, on_device, SPAN),
                "default": lambda: phrase_map(ours, token),
            },
            3,
        )
        rows.append(_row(what, "default", times, bytes_of(ours)) | {"value": value})

    for calls in (1, 3) if run.quick else (1, 3, 10, 31):
        both("calls", calls, default(calls), plain(calls), text)
    ours, theirs = default(3), plain(3)
    for tokens in (2, 3, 10, 77):
        both("rows of the text", tokens, ours, theirs, SD15.phrase(tokens))
    for side in (256, 512) if run.quick else (256, 512, 768, 1024):
        both("side, pixels", side, default(3, side=side), plain(3, side=side), text)
    for images in (1, 2, 4):
        rows.append(_images(run, default(1, side=256), plain(1, side=256), images))
    return rows


def _images(run: Run, ours: Trace, theirs: Trace, images: int) -> Row:
    mask, text = box(ours.image_size), SD15.phrase(2)
    stamps: list[float] = []
    naive.optimize(
        [theirs] * images,
        text.to(run.device),
        [torch.tensor(mask, device=run.device)] * images,
        steps=4,
        on_step=lambda *_: stamps.append(run.clock.now()),
    )
    found: list[float] = []
    optimize_token(
        [ours] * images,
        Token("x", "", text),
        [mask] * images,
        OptimizationSettings(iterations=4),
        on_step=lambda *_: found.append(run.clock.now()),
    )
    times = {"naive": _gaps(stamps), "default": _gaps(found)}
    row = _row("images of a step, 256 pixels, 1 call", "default", times, 0)
    return row | {"value": images}


def _row(what: str, side: str, times: dict[str, list[float]], size: int) -> Row:
    return {
        "what": what,
        "side": side,
        "naive": statistics.median(times["naive"]),
        "ours": statistics.median(times[side]),
        "ratio": ratio(times["naive"], times[side]),
        "bytes": size,
    }


def _gaps(stamps: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(stamps)]


def _phrase(shape: Shape, number: int) -> Any:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(3, shape.text_dim, generator=generator)


def _check_equal(full: Trace, half: Trace, token: Token, text: Any) -> None:
    """Refuse to time what does not give the naive implementation's map."""
    expected = naive.phrase_map(full, text, SPAN).cpu().numpy()
    for trace in (full, half):
        apart = float(np.abs(phrase_map(trace, token) - expected).max())
        if apart > TOLERANCE:
            raise SystemExit(
                f"the maps differ by {apart:.1e}: there is nothing to time"
            )
