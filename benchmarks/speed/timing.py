"""Clocks and peaks: medians of alternating repeats, and memory of fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Clock:
    """Seconds on a device.

    CUDA: events around the work. CPU: the process's own time where there is one thread,
    which others on the machine disturb least; else the wall's.
    """

    device: str

    def now(self) -> float:
        if self.device == "cpu" and torch.get_num_threads() == 1:
            return time.process_time()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, function: Callable[[], Any]) -> float:
        if self.device == "cpu":
            begin = self.now()
            function()
            return self.now() - begin
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        function()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def alternate(
        self, functions: dict[str, Callable[[], Any]], repeats: int
    ) -> dict[str, list[float]]:
        """Time each function in turn, again and again, after one warm-up."""
        for function in functions.values():
            function()
        found: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(repeats):
            for name, function in functions.items():
                found[name].append(self.seconds(function))
        return found

    def bandwidth(self) -> float:
        """Return the bytes a second that are read from memory, by a large sum."""
        large = torch.ones(2**27 if self.device == "cpu" else 2**29, device=self.device)
        times = self.alternate({"sum": large.sum}, 5)["sum"]
        return large.nbytes / statistics.median(times)


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median of the ratios of each repeat, so that drifts cancel."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def peak_of(name: str, *arguments: str, device: str = "cpu") -> dict[str, float]:
    """Return what `peaks.py` measures in a fresh process."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(HERE / "peaks.py"), name, *arguments, "--device", device],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"peaks.py {name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


class Peak:
    """Bytes of memory at the most within the block, above those before it.

    CPU: the resident set, whose high-water mark Linux lets a process set back. CUDA:
    what torch allocated.
    """

    def __init__(self, device: str) -> None:
        self.device, self.extra = device, 0

    def __enter__(self) -> Peak:
        if self.device == "cpu":
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status("VmRSS")
        else:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device == "cpu":
            self.extra = _status("VmHWM") - self._before
        else:
            torch.cuda.synchronize()
            self.extra = torch.cuda.max_memory_allocated() - self._before


def _status(field: str) -> int:
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024
