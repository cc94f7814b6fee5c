"""How fast, how small? Ratios to a naive implementation of the same method.

    python benchmarks/speed                      # the tables of docs/speed.md
    python benchmarks/speed --quick              # fewer calls, under two minutes
    python benchmarks/speed --only phrases steps
    python benchmarks/speed --only hooks-sd15 optimize-all    # minutes, 4 GB: not usual
    python benchmarks/speed --only published --published FOLDER    # vpulab/ovam itself
    python benchmarks/speed --device cuda
    python benchmarks/speed --write-docs         # also write the tables

Writes results.json beside this file (--quick: quick.json); a part that was not run
keeps its results.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import label_parts
import maps_parts
import model_parts
import profile_parts
import published_parts
import start
import torch
from maps_parts import Run
from tables import show, write_tables
from timing import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
PARTS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "phrases": maps_parts.phrases,
    "published": published_parts.published,
    "large": maps_parts.large,
    "steps": maps_parts.steps,
    "growth": maps_parts.growth,
    "pieces": profile_parts.pieces,
    "profile": profile_parts.profile,
    "kept": model_parts.kept,
    "less": model_parts.less,
    "hooks": model_parts.hooks,
    "optimize": model_parts.optimize,
    "labels": label_parts.labels,
    "start": start.start,
    "hooks-sd15": model_parts.hooks_sd15,
    "optimize-all": model_parts.optimize_all,
}
# What takes several GB or many minutes, or another program, is run when it is named.
USUAL = [p for p in PARTS if p not in ("hooks-sd15", "optimize-all", "published")]
QUICK = [name for name in USUAL if name not in ("large", "growth", "start")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=[*PARTS])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--published", type=Path, help="Of vpulab/ovam.")
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    run = Run(Clock(arguments.device), arguments.quick)
    parts = PARTS | {
        "published": partial(published_parts.published, folder=arguments.published)
    }
    out = arguments.out or HERE / ("quick.json" if arguments.quick else "results.json")
    usual = QUICK if arguments.quick else USUAL
    for part in usual if arguments.only is None else arguments.only:
        begin = time.perf_counter()
        rows = parts[part](run)
        seconds = round(time.perf_counter() - begin)
        found = _about(run, part) | {"seconds": seconds, "rows": rows}
        out.write_text(json.dumps(_read(out) | {part: found}, indent=1) + "\n")
        print(f"\n{part}, {seconds} s\n\n{show(part, found)}", flush=True)
    if arguments.write_docs:
        write_tables(_read(out))


def _read(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return known


def _about(run: Run, part: str) -> dict[str, Any]:
    about = {
        "command": f"python benchmarks/speed --only {part}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "machine": _machine(run.device),
    }
    if part in ("phrases", "large", "growth"):
        about["bandwidth"] = run.clock.bandwidth()
    return about


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, threads used: {torch.get_num_threads()}"


if __name__ == "__main__":
    main()
