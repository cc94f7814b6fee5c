"""What needs a model: recording, optimizing to equal IoU, and the quality of less."""

from __future__ import annotations

import statistics
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import naive
import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from peaks import bytes_of
from shapes import SD15
from timing import peak_of

from napari_ovam import (
    GenerationSettings,
    OptimizationSettings,
    Token,
    Trace,
    TraceSettings,
    best_threshold,
    encode_phrase,
    generate,
    iou,
    load_pipeline,
    optimize_token,
    phrase_map,
    record,
)
from napari_ovam.attention.trace_settings import quarter_calls
from napari_ovam.diffusion import recording
from napari_ovam.workflows.demo import colour_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from maps_parts import Row, Run
    from numpy.typing import NDArray

EVERYTHING = TraceSettings(layers=None, calls=None, dtype=None)
PROMPT = "a cat and a hat on the grass"
# Objects that colour tells from a pale place: the masks that no map had a part in.
CONTRASTS = {
    "apple": "in the snow",
    "boat": "in the snow",
    "cat": "in the snow",
    "flower": "in the snow",
    "frog": "in the snow",
    "hat": "in the snow",
    "lion": "in the snow",
    "pizza": "in the snow",
    "tree": "in the snow",
    "umbrella": "in the snow",
}
SEEDS = 4
EQUAL = 0.005  # of IoU: what the issue calls as good where calls or layers are dropped
PARTS_OF_AN_IMAGE = (0.02, 0.6)  # a mask outside is no object's


@cache
def _pipe() -> Any:
    return load_pipeline("tiny", device="cpu")


class HookClock:
    """Seconds spent in the recording hooks."""

    NAMES = ("_before_model", "_after_model", "_before_outer", "_keep")

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in self.NAMES:
            method = getattr(recording._Hooks, name)
            setattr(recording._Hooks, name, self._timed(method))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def hooks(run: Run) -> list[Row]:
    """Compare hook time with step time, of the same calls of the pipeline."""
    clock, pipe = HookClock(), _pipe()
    steps = 25
    options: dict[str, Any] = {
        "num_inference_steps": steps,
        "output_type": "latent",
        "prompt": PROMPT,
        "guidance_scale": 4.0,
    }
    return _hook_rows(clock, pipe, options, steps, run.repeats)


def hooks_sd15(run: Run) -> list[Row]:
    """Do so in a random UNet shaped as that of SD 1.5: 4 GB, half a minute a step."""
    del run
    clock = HookClock()
    pipe = load_pipeline("tiny", device="cpu")
    pipe.register_modules(
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval(),
        scheduler=DDIMScheduler(),
    )
    states = torch.randn(2, 1, 77, 768)
    options: dict[str, Any] = {
        "num_inference_steps": 3,
        "output_type": "latent",
        "prompt_embeds": states[0],
        "negative_prompt_embeds": states[1],
        "latents": torch.randn(1, 4, 64, 64),
        "guidance_scale": 7.5,
    }
    return _hook_rows(clock, pipe, options, 3, 1)


def _hook_rows(
    clock: HookClock, pipe: Any, options: dict[str, Any], steps: int, repeats: int
) -> list[Row]:
    rows = []
    for side, settings in (("default", TraceSettings()), ("exact", EVERYTHING)):
        ratios, each = [], []

        def call() -> Any:
            generator = torch.Generator().manual_seed(0)
            return np.asarray(pipe(**options, generator=generator).images)

        plain = call() if repeats > 1 else None
        for _ in range(repeats):
            clock.seconds = 0.0
            start = time.perf_counter()
            kept = {n: getattr(settings, n) for n in ("layers", "calls", "dtype")}
            with record(pipe, **kept) as recorder:
                found = call()
            took = time.perf_counter() - start - clock.seconds
            ratios.append(clock.seconds / took)
            each.append(took / steps)
            if plain is not None and not np.array_equal(plain, found):
                raise SystemExit("recording changed the result")
        rows.append(
            {
                "side": side,
                "ratio": statistics.median(ratios),
                "step": statistics.median(each),
                "bytes": bytes_of(recorder.traces[0]),
            }
        )
    return rows


def kept(run: Run) -> list[Row]:
    """Bytes kept and the peak while recording, with the shapes of SD 1.5."""
    calls = 6 if run.quick else SD15.calls
    options = ("--calls", str(calls))

    def median(side: str) -> dict[str, float]:
        several = [
            peak_of("record", side, *options, device=run.device)
            for _ in range(1 if run.quick else 3)
        ]
        return sorted(several, key=lambda found: found["extra"])[len(several) // 2]

    plain = median("naive")
    rows = []
    for side in ("default", "exact"):
        found = median(side)
        rows.append(
            {
                "side": side,
                "calls": calls,
                "naive_kept": plain["kept"],
                "kept": found["kept"],
                "naive_extra": plain["extra"],
                "extra": found["extra"],
            }
        )
    return rows


def optimize(run: Run) -> list[Row]:
    """Race to the IoU at which the published recipe ends, naive against ours.

    The naive side gets the calls that ours keeps, which is to its advantage.
    """
    rows = []
    for name in ("hat",) if run.quick else ("hat", "pizza", "tree"):
        _, mask, full = _drawn(name, 0)
        calls = quarter_calls(len(full.calls))
        row = _race(run, name, full.select(calls=calls), mask)
        rows.append(row | {"naive_all": _naive_on_all(run, name, full, mask)})
    return rows


def _naive_on_all(run: Run, name: str, full: Trace, mask: NDArray[np.uint8]) -> float:
    """Return seconds of the published recipe on every call, from six of its steps."""
    token, stamps = encode_phrase(_pipe(), name), list[float]()
    naive.optimize(
        [full],
        token.embedding[[0, token.span[1] - 1]],
        [torch.tensor(mask)],
        steps=6,
        on_step=lambda *_: stamps.append(run.clock.now()),
    )
    return 1000 * statistics.median(np.diff(stamps))


def optimize_all(run: Run) -> list[Row]:
    """Race once, the naive side on every call of the trace: minutes."""
    _, mask, full = _drawn("hat", 0)
    return [_race(run, "hat", full, mask)]


def _race(run: Run, name: str, full: Trace, mask: NDArray[np.uint8]) -> Row:
    token = encode_phrase(_pipe(), name)
    start = token.embedding[[0, token.span[1] - 1]]
    steps = 200 if run.quick else 1000
    stamps, losses, found = [], [], []

    def naive_step(_step: int, loss: float, rows: Any) -> None:
        stamps.append(run.clock.now())
        losses.append(loss)
        found.append(rows)

    begin = run.clock.now()
    naive.optimize([full], start, [torch.tensor(mask)], steps=steps, on_step=naive_step)
    whole = run.clock.now() - begin
    best = int(np.argmin(losses))
    goal = _iou(phrase_map(full, Token(name, "", found[best])), mask)
    first = next(
        i
        for i, rows in enumerate(found)
        if i == best
        or _iou(phrase_map(full, Token(name, "", rows)), mask) >= goal - EQUAL
    )
    naive_first = stamps[first] - begin

    wanted = quarter_calls(len(full.calls))
    default = full.select(calls=[full.calls[i] for i in wanted]).fine()
    default = default.to(None, torch.float16)
    ours, maps = [], []

    def our_step(_step: int, _loss: float, found: Any) -> None:
        ours.append(run.clock.now())
        maps.append(found[0])

    begin_ours = run.clock.now()
    result = optimize_token(
        default, token, mask, OptimizationSettings(), on_step=our_step
    )
    whole_ours = run.clock.now() - begin_ours
    scores = [_iou(_upsampled(each, mask.shape), mask) for each in maps]
    hit = next((i for i, score in enumerate(scores) if score >= goal - EQUAL), None)
    seconds = None if hit is None else ours[hit] - begin_ours
    return {
        "name": name,
        "calls": len(full.calls),
        "naive_steps": steps,
        "goal": goal,
        "start": scores[0],
        "naive": whole,
        "naive_first": naive_first,
        "naive_first_step": first,
        "ours": seconds,
        "our_step": hit,
        "our_whole": whole_ours,
        "our_iou": result.info["scores"]["after"],
        "ratio": None if seconds is None else whole / seconds,
        "ratio_first": None if seconds is None else naive_first / seconds,
    }


def less(run: Run) -> list[Row]:
    """IoU of words' maps on generated images: fewer calls, layers, bits."""
    names = list(CONTRASTS)[:2] if run.quick else list(CONTRASTS)
    scores: dict[str, list[tuple[float, float]]] = {}
    sizes: dict[str, int] = {}
    for name in names:
        token = encode_phrase(_pipe(), name)
        drawn = [_drawn(name, seed) for seed in range(SEEDS)]
        drawn = [d for d in drawn if _is_object(d[1])]
        if len(drawn) < 2:
            continue
        masks = [mask for _, mask, _ in drawn]
        for kind, choose in KINDS.items():
            traces = [choose(trace) for _, _, trace in drawn]
            maps = [phrase_map(t, token, normalize="minmax") for t in traces]
            threshold, _ = best_threshold(maps[:1], masks[:1])
            carried = [
                iou(each >= threshold, mask)
                for each, mask in zip(maps[1:], masks[1:], strict=True)
            ]
            own = [_iou(each, mask) for each, mask in zip(maps, masks, strict=True)]
            scores.setdefault(kind, []).append(
                (statistics.mean(carried), statistics.mean(own))
            )
            sizes[kind] = sum(layer.queries.nbytes for layer in traces[0].layers)
    return [
        {
            "kind": kind,
            "bytes": sizes[kind],
            "classes": len(found),
            "carried": statistics.mean(c for c, _ in found),
            "own": statistics.mean(o for _, o in found),
        }
        for kind, found in scores.items()
    ]


def _calls(*parts: float) -> Callable[[Trace], Trace]:
    def choose(trace: Trace) -> Trace:
        total = len(trace.calls)
        return trace.select(calls=sorted({int(total * part) for part in parts}))

    return choose


def _default(trace: Trace) -> Trace:
    chosen = trace.select(calls=quarter_calls(len(trace.calls))).fine()
    return chosen.to(None, torch.float16)


KINDS: dict[str, Callable[[Trace], Trace]] = {
    "everything, float32": lambda trace: trace,
    "fine layers": Trace.fine,
    "calls at 1/4, 1/2, 3/4": _calls(0.25, 0.5, 0.75),
    "call at 1/2": _calls(0.5),
    "first three calls": lambda trace: trace.select(calls=(0, 1, 2)),
    "last three calls": lambda trace: trace.select(calls=(-3, -2, -1)),
    "default: fine, 1/4, 1/2, 3/4, float16": _default,
}


@cache
def _drawn(name: str, seed: int) -> tuple[Any, Any, Trace]:
    article = "an" if name[0] in "aeiou" else "a"
    settings = GenerationSettings(f"{article} {name} {CONTRASTS[name]}", seed=seed)
    made = generate(_pipe(), settings, trace=EVERYTHING)
    return made.image, colour_mask(made.image), made.trace


def _is_object(mask: NDArray[np.uint8]) -> bool:
    low, high = PARTS_OF_AN_IMAGE
    return bool(low < mask.mean() < high)


def _iou(found: Any, mask: Any) -> float:
    return float(best_threshold([found], [mask])[1])


def _upsampled(found: torch.Tensor, size: Any) -> Any:
    large = torch.nn.functional.interpolate(
        found[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0]
    return (large / large.max()).numpy()
