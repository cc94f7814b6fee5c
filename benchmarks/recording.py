"""What recording costs: hook time over step time, and bytes kept.

    python benchmarks/recording.py         # the embedded model
    python benchmarks/recording.py --sd15  # random weights, SD 1.5 at 512x512

Hook time is the time spent inside the recording hooks of a pipeline call; step time is
the rest of the same call's denoising, so that the machine's mood hits both alike.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from napari_ovam import TraceSettings, load_pipeline, record, recording

if TYPE_CHECKING:
    from collections.abc import Callable


class HookClock:
    """Seconds spent in the recording hooks."""

    NAMES = ("_before_unet", "_after_unet", "_before_outer", "_keep")

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in self.NAMES:
            setattr(
                recording._Hooks, name, self._timed(getattr(recording._Hooks, name))
            )

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def sd15_shaped() -> Any:
    """Return the embedded pipeline with a random UNet shaped as that of SD 1.5."""
    pipe = load_pipeline("tiny", device="cpu")
    pipe.register_modules(
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval(),
        scheduler=DDIMScheduler(),
    )
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sd15", action="store_true")
    parser.add_argument("--runs", type=int, default=None)
    arguments = parser.parse_args()
    steps, runs = (2, 2) if arguments.sd15 else (25, 7)
    pipe = sd15_shaped() if arguments.sd15 else load_pipeline("tiny", device="cpu")
    options: dict[str, Any] = {"num_inference_steps": steps, "output_type": "latent"}
    if arguments.sd15:
        # random states of the real size: 77 tokens, 768 wide
        states = torch.randn(2, 1, 77, 768)
        options |= {"prompt_embeds": states[0], "negative_prompt_embeds": states[1]}
        options |= {"latents": torch.randn(1, 4, 64, 64), "guidance_scale": 7.5}
    else:
        options |= {"prompt": "a cat and a hat on the grass", "guidance_scale": 4.0}
    clock = HookClock()
    kinds = {
        "default settings (half precision, one half)": TraceSettings().dtype,
        "exact (as computed, one half)": None,
    }
    print(
        f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} "
    )
    print("| what is kept | hook / step time | step, ms | kept, MB a call |")
    print("|---|---|---|---|")
    for kind, dtype in kinds.items():
        ratios, each = [], []
        plain = pipe(**options, generator=torch.Generator().manual_seed(0)).images
        for _ in range(arguments.runs or runs):
            clock.seconds = 0.0
            start = time.perf_counter()
            with record(pipe, dtype=dtype) as recorder:
                recorded = pipe(
                    **options, generator=torch.Generator().manual_seed(0)
                ).images
            took = time.perf_counter() - start - clock.seconds
            ratios.append(clock.seconds / took)
            each.append(1000 * took / steps)
        if not np.array_equal(np.asarray(plain), np.asarray(recorded)):
            raise SystemExit("recording changed the result")
        trace = recorder.traces[0]
        size = sum(la.queries.nbytes for la in trace.layers) / len(trace.calls) / 1e6
        print(
            f"| {kind} | {statistics.median(ratios):.4f} | "
            f"{statistics.median(each):.1f} | {size:.2f} |"
        )


if __name__ == "__main__":
    main()
