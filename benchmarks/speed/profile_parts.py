"""Why it is as fast as it is: the pieces of one layer, and a profile of a phrase."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch
from peaks import sides
from shapes import SD15
from timing import ratio

from napari_ovam import Token, phrase_map

if TYPE_CHECKING:
    from maps_parts import Row, Run

SHOWN = 6  # operations of the profile


def pieces(run: Run) -> list[Row]:
    """Time each piece the usual way and ours: SD 1.5's finest layer, six calls."""
    _, grid, heads, dim = SD15.grids()[0]
    queries = torch.randn(6, heads, grid * grid, dim, device=run.device)
    keys = torch.randn(heads, 3, dim, device=run.device)
    across = queries @ keys.transpose(-1, -2)
    along = keys @ queries.transpose(-1, -2)
    pairs: dict[str, tuple[Any, Any]] = {
        "product: queries @ keysᵀ, keys @ queriesᵀ": (
            lambda: queries @ keys.transpose(-1, -2),
            lambda: keys @ queries.transpose(-1, -2),
        ),
        "softmax over three tokens: along the fast axis, across it": (
            lambda: across.softmax(-1),
            lambda: along.softmax(-2),
        ),
        "two tokens: softmax of both, σ of the difference": (
            lambda: (keys[:, :2] @ queries.transpose(-1, -2)).softmax(-2),
            lambda: (
                (keys[:, 1:2] - keys[:, :1]) @ queries.transpose(-1, -2)
            ).sigmoid(),
        ),
    }
    rows = []
    for what, (usual, ours) in pairs.items():
        times = run.clock.alternate({"usual": usual, "ours": ours}, run.repeats)
        rows.append(
            {
                "what": what,
                "usual": statistics.median(times["usual"]),
                "ours": statistics.median(times["ours"]),
                "ratio": ratio(times["usual"], times["ours"]),
            }
        )
    return rows


def profile(run: Run) -> list[Row]:
    """Return the operations that a phrase by default settings spends its time in."""
    trace = sides(SD15.calls, run.device, "default")
    token = Token("x", "", SD15.phrase())
    phrase_map(trace, token)
    kind = torch.profiler.ProfilerActivity
    on_device = run.device == "cuda"
    activities = [kind.CPU, *[kind.CUDA] * on_device]
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(10):
            phrase_map(trace, token)
    field = f"self_{'device' if on_device else 'cpu'}_time_total"
    times = {e.key: getattr(e, field) / 1e6 / 10 for e in found.key_averages()}
    total = sum(times.values())
    order = sorted(times, key=lambda name: -times[name])[:SHOWN]
    return [{"what": name, "share": times[name] / total} for name in order]
