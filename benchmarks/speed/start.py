"""Napari's start, alone and with the panel docked: fresh processes, in turn."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maps_parts import Row, Run

# From the start of Python to a window that is shown and drawn: the process's own time,
# which others on the machine disturb least, and the wall's.
_CHILD = """
import os, sys, time
import napari
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer()
if sys.argv[1] == "docked":
    viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM annotator")
QApplication.processEvents()
viewer.screenshot(canvas_only=False, flash=False)
print("SHOWN", time.process_time(), time.time() - float(os.environ["BEGIN"]))
sys.stdout.flush()
os._exit(0)
"""


def start(run: Run) -> list[Row]:
    """Time the window, in an Xvfb where there is no display."""
    found: dict[str, list[tuple[float, float]]] = {"alone": [], "docked": []}
    repeats = 1 if run.quick else 7
    for repeat in range(repeats + 1):
        for side, times in found.items():
            seconds = _seconds(side)
            if repeat:  # the first reads the files from disk
                times.append(seconds)
    ratios = [b / a for (a, _), (b, _) in zip(*found.values(), strict=True)]
    row = {"ratio": statistics.median(ratios)}
    for side, times in found.items():
        row[side] = statistics.median(own for own, _ in times)
        row[f"{side}_wall"] = statistics.median(wall for _, wall in times)
    return [row]


def _seconds(side: str) -> tuple[float, float]:
    screen: list[str] = []
    if not os.environ.get("DISPLAY"):
        if shutil.which("xvfb-run") is None:
            raise SystemExit("there is no display: install xvfb, or set DISPLAY")
        screen = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24"]
    with tempfile.TemporaryDirectory() as home:
        environment: dict[str, Any] = os.environ | {
            "NAPARI_CONFIG": str(Path(home) / "settings.yaml"),
            "XDG_DATA_HOME": home,
            "XDG_CACHE_HOME": home,
            "HF_HUB_OFFLINE": "1",
            "BEGIN": str(time.time()),
        }
        done = subprocess.run(  # noqa: S603 - our own script
            [*screen, sys.executable, "-c", _CHILD, side],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    shown = [x for x in done.stdout.splitlines() if x.startswith("SHOWN")]
    if not shown:
        raise SystemExit(f"napari did not start:\n{done.stderr[-2000:]}")
    own, wall = shown[0].split()[1:]
    return float(own), float(wall)
