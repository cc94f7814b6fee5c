"""How long the panel blocks napari's window, and how long closing it takes.

    python benchmarks/panel                    # three runs, some minutes
    python benchmarks/panel --only project --runs 1
    python benchmarks/panel --blocks           # every block, and where it was
    python benchmarks/panel --write-docs       # also write the tables

Each run is a process that opens a real napari window (in an Xvfb of its own where
there is no display) as `napari-ovam` does, and presses the panel's buttons with the
values that are there. A timer beats in the GUI thread; between two beats nobody could
press, type or paint. While a beat is late, a thread looks where the GUI thread is.

Beside it stands plain napari: the same layers made and changed in the same window by
napari alone, without the panel, the model or a job.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alone import run_alone, with_display
from project_scripts import FOLDER, MOVES, PROJECT_STEPS, plain_project, project
from scripts import JOBS, STEPS, close, drive, plain, work
from watch import Block, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 0.050  # seconds: what the panel may take
PAGE = Path(__file__).parents[2] / "docs" / "panel-speed.md"
SCRIPTS = {
    "work": work,
    "plain": plain,
    "project": project,
    "plain_project": plain_project,
}
# What is compared: ours, plain napari, and the steps of both.
TABLES = {
    "blocks": ("work", "plain", STEPS),
    "project": ("project", "plain_project", PROJECT_STEPS),
}


def run_part(part: str) -> None:
    """Open a window, follow a script in it, and print what was seen."""
    import napari

    from napari_ovam._qt import app

    kept: list[Any] = []
    run = napari.run

    def report() -> None:
        viewer = napari.current_viewer()
        found = {
            "blocks": [asdict(block) for block in kept[0].blocks],
            "seconds": kept[0].seconds,
            "follows": kept[0].follows,
        }
        print(json.dumps(found), flush=True)
        viewer.window._qt_window.close()

    def run_script() -> None:
        viewer = napari.current_viewer()
        viewer.window._qt_window.resize(1400, 900)
        if part in JOBS:
            kept.append(drive(close(viewer, part), lambda: None))
        else:
            kept.append(Watch())
            kept.append(drive(SCRIPTS[part](viewer, kept[0]), report))
        run()

    napari.run = run_script
    if part.startswith("plain"):
        from qtpy.QtWidgets import QWidget

        viewer = napari.Viewer()
        empty = QWidget()
        empty.setFixedWidth(360)
        viewer.window.add_dock_widget(empty, area="right")
        napari.run()
    else:
        raise SystemExit(app.launch())


def measured(part: str) -> dict[str, Any]:
    """Run a part in a process and a home of its own; return what it printed."""
    process, ended = run_alone([sys.executable, __file__, "--part", part], 600)
    said = process.stderr.replace("WARNING: could not determine DPI\n", "")
    # Of plain napari only the time is asked; looking at a thread can keep a painter.
    if process.returncode or (said and not part.startswith("plain")):
        print(f"{part}: exit code {process.returncode}\n{said}", file=sys.stderr)
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return {**found, "ended": ended}


def longest(
    runs: list[dict[str, Any]], step: str, of: Callable[[Block], float]
) -> float:
    """Return the median run's longest time in a block of a step, in milliseconds."""
    each = []
    for run in runs:
        blocks = [Block(**block) for block in run["blocks"] if block["step"] == step]
        each.append(max(map(of, blocks), default=0.0))
    return 1000 * statistics.median(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--blocks", action="store_true", help="list every block")
    parser.add_argument("--only", nargs="*", choices=[*TABLES, "closing"])
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments.part)
        return
    if not os.environ.get("DISPLAY"):
        command = with_display([sys.executable, *sys.argv])
        raise SystemExit(subprocess.call(command))  # noqa: S603 (our own)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%F')}\n")
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.only or (*TABLES, "closing"):
            if name == "project" and FOLDER not in os.environ:
                os.environ[FOLDER] = make_project(Path(scratch) / "project")
            if name in TABLES:
                table = blocks(name, arguments.runs, every=arguments.blocks)
            else:
                table = closing(arguments.runs)
            print(table, flush=True)
            if arguments.write_docs:
                write(name, table)


def make_project(path: Path) -> str:
    """Make the project of benchmarks/project.py, a minute's work."""
    sys.path.append(str(Path(__file__).parents[1]))
    import project

    project.make_project(path, 1000, 512)
    return str(path)


def write(name: str, table: str) -> None:
    """Replace what stands between <!-- table: NAME --> and <!-- end -->."""
    pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
    text = PAGE.read_text()
    PAGE.write_text(
        re.sub(pattern, lambda m: m[1] + table + m[2], text, flags=re.DOTALL)
    )


def blocks(name: str, runs: int, *, every: bool) -> str:
    """Return the longest block of each step, ours beside plain napari's."""
    part, plain_part, steps = TABLES[name]
    ours = [measured(part) for _ in range(runs)]
    theirs = [measured(plain_part) for _ in range(runs)]
    if every:
        for run in ours:
            for each in run["blocks"]:
                if each["wall"] > LIMIT:
                    print(json.dumps(each))
    lines = [
        "| step | takes, s | longest block, ms | plain napari's, ms | ratio "
        "| in the panel's code | kept waiting by the job | in Qt "
        "| plain napari: in Qt |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for step in steps:
        took = statistics.median(run["seconds"][step] for run in ours)
        block = longest(ours, step, lambda block: block.wall)
        plain_block = longest(theirs, step, lambda block: block.wall)
        ratio = f"{block / plain_block:.1f}" if plain_block else "–"
        parts = [
            longest(ours, step, lambda block, w=whose: block.part(w))
            for whose in ("panel", "job", "Qt")
        ]
        parts.append(longest(theirs, step, lambda block: block.part("Qt")))
        cells = [f"{took:.1f}", f"{block:.0f}", f"{plain_block:.0f}", ratio]
        cells += [f"{each:.0f}" for each in parts]
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    if name == "project":
        shown = statistics.median(run["follows"] for run in ours)
        lines.append(
            f"\nWhile the slider moved {MOVES} times in a second, labels were shown "
            f"{shown:.0f} times."
        )
    return "\n".join([*lines, "", about(name, runs), ""])


def closing(runs: int) -> str:
    """Return how long the process lives on after its window was closed."""
    lines = ["| closed during | from close to the process's end, s |", "|---|---|"]
    for job in JOBS:
        seen = [measured(job) for _ in range(runs)]
        seconds = [each["ended"] - each["closed"] for each in seen]
        lines.append(f"| {job} | {statistics.median(seconds):.2f} |")
    return "\n".join([*lines, "", about("closing", runs), ""])


def about(name: str, runs: int) -> str:
    import napari
    import torch

    return (
        f"*`python benchmarks/panel --only {name}`; medians of {runs} runs; torch "
        f"{torch.__version__}, one thread, napari {napari.__version__}, OpenGL in "
        f"software under Xvfb, {os.cpu_count()} cores, {time.strftime('%F')}, load "
        f"{os.getloadavg()[1]:.1f}.*"
    )


if __name__ == "__main__":
    main()
