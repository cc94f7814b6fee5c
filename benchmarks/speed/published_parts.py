"""Beside the published implementation itself: a checkout of github.com/vpulab/ovam.

    python benchmarks/speed --only published --published FOLDER

Its own modules are run, on the queries of the same traces. They are imported without
the package around them, which wants more than is installed here.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from statistics import median
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peaks import box, sides
from shapes import SD15
from timing import ratio

from napari_ovam import OptimizationSettings, Token, optimize_token, phrase_map

if TYPE_CHECKING:
    from pathlib import Path

    from maps_parts import Row, Run

    from napari_ovam import Trace

ROW = 1  # of the text, whose map is compared
TOLERANCE = 1e-3  # of the largest value
STEPS = 4


def published(run: Run, folder: Path | None) -> list[Row]:
    """Time a phrase and a step of the optimization, on one and on two threads."""
    if folder is None:
        raise SystemExit(
            "give a checkout of github.com/vpulab/ovam: --published FOLDER"
        )
    theirs = Published(folder, SD15.trace())
    traces = {side: sides(SD15.calls, "cpu", side) for side in ("exact", "default")}
    rows, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for what, times in (
                ("one phrase", _phrases(run, theirs, traces)),
                ("four steps of the optimization", _steps(run, theirs, traces)),
            ):
                rows.append(
                    {
                        "what": what,
                        "threads": threads,
                        "theirs": median(times["theirs"]),
                    }
                    | {side: median(times[side]) for side in traces}
                    | {f"{s} ratio": ratio(times["theirs"], times[s]) for s in traces}
                )
    finally:
        torch.set_num_threads(before)
    return rows


def _phrases(
    run: Run, theirs: Published, traces: dict[str, Trace]
) -> dict[str, list[float]]:
    text = SD15.phrase()
    token = Token("x", "", text, (ROW, ROW + 1))
    apart = np.abs(phrase_map(traces["exact"], token) - theirs.phrase(text).numpy())
    if apart.max() > TOLERANCE:
        raise SystemExit(f"the maps differ by {apart.max():.1e}: nothing to time")
    functions = {
        side: partial(phrase_map, trace, token) for side, trace in traces.items()
    }
    return run.clock.alternate(
        {"theirs": partial(theirs.phrase, text), **functions}, run.repeats
    )


def _steps(
    run: Run, theirs: Published, traces: dict[str, Trace]
) -> dict[str, list[float]]:
    text = SD15.phrase(2)
    mask = box(traces["exact"].image_size)

    def ours(trace: Trace) -> None:
        settings = OptimizationSettings(iterations=STEPS)
        optimize_token(trace, Token("x", "", text), mask, settings)

    return run.clock.alternate(
        {"theirs": partial(theirs.optimize, text, mask, STEPS)}
        | {side: partial(ours, trace) for side, trace in traces.items()},
        3,
    )


class Published:
    """The published method on the queries of a trace, as its own hooks store them."""

    def __init__(self, folder: Path, trace: Trace) -> None:
        for name in ("ovam", "ovam.base", "ovam.utils", "ovam.stable_diffusion"):
            module = ModuleType(name)
            module.__path__ = [str(folder.joinpath(*name.split(".")))]
            sys.modules[name] = module
        block = import_module(
            "ovam.stable_diffusion.daam_block"
        ).CrossAttentionDAAMBlock
        whole = import_module("ovam.stable_diffusion.daam_module").StableDiffusionDAAM
        self._optimize = import_module("ovam.optimize.optimize").optimize_embedding
        blocks = []
        for number, layer in enumerate(trace.layers):
            keys = torch.nn.Linear(*layer.key_weight.T.shape, bias=False)
            keys.weight = torch.nn.Parameter(layer.key_weight, requires_grad=False)
            blocks.append(
                block(
                    keys,
                    [layer.queries],
                    layer.scale,
                    layer.queries.shape[1],
                    str(number),
                    heads_epochs_activation="token_softmax",  # as its pipeline's
                    heads_activation="linear",
                )
            )
        pipe = SimpleNamespace(tokenizer=None, text_encoder=None)
        self._daam = whole(
            blocks, pipe, heatmaps_aggregation="sum", expand_size=trace.image_size
        )

    def phrase(self, text: torch.Tensor) -> torch.Tensor:
        """Return a phrase's map (H, W), divided by its maximum."""
        with torch.no_grad():
            found = self._daam(text)[0, ROW]
            return found / found.max()

    def optimize(self, text: torch.Tensor, mask: Any, steps: int) -> Any:
        """Return the rows after so many steps."""
        target = torch.from_numpy(np.stack([mask == 0, mask == 1])).float()[None]
        return self._optimize(
            self._daam, text, target, epochs=steps, apply_min_max=True
        )
