"""How long a stroke on a large image keeps napari's window waiting.

    python benchmarks/panel/strokes.py                # 2000, 4000 and 8000 pixels
    python benchmarks/panel/strokes.py --sizes 3500

Each size has a process with a real napari window (in an Xvfb of its own where there is
no display). A brush is dragged over the labels of a project's image, and then over a
Labels layer of napari's own in the same window: what the panel adds is the difference.
On a machine that others use as well, what the window's thread computed says more than
what the clock says.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

STROKES = 5
WATCHED = 4.0  # seconds after a stroke: what is saved or looked at later


def make_project(path: Path, size: int) -> None:
    """Make a project of one image with labels."""
    from napari_ovam.project import Project

    project = Project.create(path)
    for name in ("cat", "hat"):
        project.classes.add(name)
    image = np.zeros((size, size, 3), np.uint8)
    image[::2] = 90
    labels = np.zeros((size, size), np.uint8)
    labels[size // 4 : size // 2, size // 4 : size // 2] = 1
    project.add_sample(image, name="large")
    project.save_labels("large", labels, "proposed")
    project.save()


def pump(seconds: float, until: Callable[[], bool] = lambda: False) -> float:
    """Let the window live; return its longest wait in seconds."""
    from qtpy.QtWidgets import QApplication

    end, longest, last = time.monotonic() + seconds, 0.0, time.monotonic()
    while last < end and not until():
        QApplication.processEvents()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        time.sleep(0.002)
    return longest


def stroke(viewer: Any, layer: Any, y: int) -> tuple[float, float, float, float]:
    """Drag a brush.

    Returns
    -------
    Seconds of a move, of its end, that the window's thread computed in its end, and of
    the longest wait after it.
    """
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    viewer.layers.selection.active = layer
    layer.mode, layer.brush_size, layer.selected_label = "paint", 40, 2
    pump(0.5)
    native, left = viewer.window._qt_viewer.canvas.native, Qt.MouseButton.LeftButton
    x = native.size().width() // 2 - 60

    def timed(act: Callable[[], Any]) -> float:
        start = time.monotonic()
        act()
        QApplication.processEvents()
        return time.monotonic() - start

    QTest.mousePress(native, left, pos=QPoint(x, y))
    moves = [
        timed(lambda k=k: QTest.mouseMove(native, QPoint(x + 6 * k, y)))
        for k in range(1, 11)
    ]
    computed = time.thread_time()
    end = timed(lambda: QTest.mouseRelease(native, left, pos=QPoint(x + 60, y)))
    computed = time.thread_time() - computed
    return statistics.median(moves), end, computed, pump(WATCHED)


def measure(size: int) -> None:
    """Open the window, paint, and print what was measured."""
    import napari

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        make_project(folder, size)
        viewer = napari.Viewer(show=False)
        viewer.window._qt_window.resize(1400, 900)
        viewer.window._qt_window.show()
        _, panel = viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM annotator")
        session = panel.session
        session.projects.open(folder)
        pump(300, lambda: session.current is not None)
        pump(5)
        labels = session.layers.find(session.current.key, "labels")
        middle = viewer.window._qt_viewer.canvas.native.height() // 2
        ours = [stroke(viewer, labels, middle + 12 * k) for k in range(STROKES)]
        plain = viewer.add_labels(np.zeros((size, size), np.uint16))
        pump(2)
        theirs = [stroke(viewer, plain, middle + 12 * k) for k in range(STROKES)]
        print(json.dumps([np.median(each, 0).tolist() for each in (ours, theirs)]))
        sys.stdout.flush()
        viewer.close()
        pump(1)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 4000, 8000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one)
        return
    command = [sys.executable, __file__, "--one"]
    if not os.environ.get("DISPLAY"):
        if shutil.which("xvfb-run") is None:
            raise SystemExit("there is no display: install xvfb, or set DISPLAY")
        command = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24", *command]
    print(
        "| size | a move, ms | plain napari's | its end, ms | plain napari's "
        "| computed in it, ms | plain napari's | longest wait in the 4 s after, ms "
        "| plain napari's |\n|---|---|---|---|---|---|---|---|---|"
    )
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as home:
            environment = {
                **os.environ,
                "HOME": home,
                "NAPARI_CONFIG": f"{home}/napari.yaml",
                "NAPARI_OVAM_SCRATCH": f"{home}/scratch",
            }
            environment.setdefault("OMP_NUM_THREADS", "1")
            done = subprocess.run(  # noqa: S603 (our own)
                [*command, str(size)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
            )
        if not done.stdout.strip():
            raise SystemExit(done.stderr)
        ours, plain = json.loads(done.stdout.splitlines()[-1])
        pairs = zip(ours, plain, strict=True)
        cells = [f"{1000 * a:.0f} | {1000 * b:.0f}" for a, b in pairs]
        print(f"| {size}×{size} | {' | '.join(cells)} |", flush=True)
    print(f"\nload {os.getloadavg()[1]:.1f}, {time.strftime('%F')}")


if __name__ == "__main__":
    main()
