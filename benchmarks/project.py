"""How fast a project of 1,000 images opens and is walked through in a napari window.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/project.py
    ... --images 1000 --size 512 --json result.json

The window is opened as `napari-ovam` opens it: what napari imports with its first
layers (pandas, pint) is imported before. A project with labels is made in a temporary
folder and opened in a real napari window with the annotator and the table docked; then
all images are gone through with what the key N does. Measured, in the GUI thread:

open
    From the call until the first image and its labels are drawn and the table is
    filled.
next
    From the key until image and labels are drawn.
jump
    The same for images that were not read ahead.
memory
    Resident memory (RSS) of the process, along the walk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = ("cat", "hat", "car", "boat", "fox")
PATIENCE = 60.0  # seconds


def make_project(folder: Path, count: int, size: int, seed: int = 0) -> None:
    """Write a project of pictures with smooth noise and five classes of discs."""
    from PIL import Image

    from napari_ovam.project import Project

    rng = np.random.default_rng(seed)
    project = Project.create(folder)
    for name in CLASSES:
        project.classes.add(name)
    rows, columns = np.mgrid[:size, :size]
    project.save()
    # The index is written once: with each image it would take minutes.
    save, project.save = project.save, lambda: None  # type: ignore[method-assign]
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        image = np.array(coarse.resize((size, size), Image.Resampling.BICUBIC))
        image ^= rng.integers(0, 16, image.shape, np.uint8)
        labels = np.zeros((size, size), np.uint8)
        for number in range(1, 1 + len(CLASSES)):
            row, column, radius = rng.random(3) * (size, size, size / 4)
            labels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = number
        about = {"title": f"a {CLASSES[index % 5]} on the grass {index}"}
        name = f"picture-{index:04d}"
        project.add_sample(image, {"prompt": about["title"]}, name, provenance=about)
        project.save_labels(name, labels, ("proposed", "edited")[index % 2])
    save()


def rss() -> float:
    """Return the resident memory of this process in MB; 0 where it is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Window:
    """A napari window with the annotator and the table of samples."""

    def __init__(self) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        from napari_ovam._qt.app import _make_first_layers
        from napari_ovam._qt.session.session import Session

        _make_first_layers()
        self.viewer = napari.Viewer(show=False)
        self.viewer.window._qt_window.setGeometry(0, 0, 1400, 900)
        self.viewer.window.show()
        for name in ("OVAM annotator", "OVAM project"):
            self.viewer.window.add_plugin_dock_widget("napari-ovam", name)
        self.session = Session.of(self.viewer)
        self._app: Any = QApplication
        self._drawn = False
        canvas = self.viewer.window._qt_viewer.canvas._scene_canvas
        canvas.events.draw.connect(self._draw)
        self.session.current_changed.connect(self._change)
        self.rest(1)

    def _draw(self, _: Any) -> None:
        self._drawn = True

    def _change(self) -> None:
        self._drawn = False  # with the sample that is current now

    def _events(self) -> None:
        from qtpy.QtCore import QEvent

        self._app.processEvents()
        # Only a running event loop deletes what was told to `deleteLater`.
        self._app.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)

    def rest(self, seconds: float) -> None:
        """Let the window work."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._events()
            time.sleep(0.002)

    def seconds(self, go: Callable[[], object], key: Callable[[], str]) -> float:
        """Return the seconds from `go()` until the sample of a key is drawn."""
        start = time.perf_counter()
        self._drawn = False
        go()
        while True:
            current = self.session.current
            if self._drawn and current is not None and current.key == key():
                return time.perf_counter() - start
            if time.perf_counter() - start > PATIENCE:
                raise SystemExit(f"nothing was shown: {self.session.message}")
            self._events()


def measure(folder: Path, count: int, pause: float) -> dict[str, Any]:
    """Open a project and walk through it."""
    window = Window()
    session, projects = window.session, window.session.projects
    before = rss()
    opened = window.seconds(
        lambda: projects.open(folder), lambda: next(iter(projects.keys), "")
    )
    assert len(projects.keys) == count
    window.rest(2)
    start = rss()
    steps, memory = [], [start]
    for index, key in enumerate(projects.keys[1:], start=1):
        steps.append(window.seconds(lambda: session.step(1), lambda key=key: key))
        window.rest(pause)
        if index % 50 == 0:
            memory.append(rss())
    rng = np.random.default_rng(1)
    jumps = []
    for row in rng.choice(count, min(50, count), replace=False):
        key = projects.keys[row]
        if session.sample(key) is None:
            jumps.append(
                window.seconds(partial(session.select, key), lambda key=key: key)
            )
            window.rest(pause)
    assert len(session.samples) <= 10
    window.viewer.close()
    return {
        "open_s": round(opened, 3),
        "next_ms": _spread(steps),
        "jump_ms": _spread(jumps),
        "memory_mb": {
            "before opening": round(before),
            "first image": round(memory[0]),
            "after 100": round(memory[min(2, len(memory) - 1)]),
            "at the end": round(memory[-1]),
            "highest": round(max(memory)),
            "every 50": [round(each) for each in memory],
        },
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    values = sorted(1000 * s for s in seconds)
    return {
        "median": round(statistics.median(values), 1),
        "95%": round(values[int(0.95 * (len(values) - 1))], 1),
        "highest": round(values[-1], 1),
        "count": len(values),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument(
        "--pause", type=float, default=0.05, help="seconds between two images"
    )
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NAPARI_CONFIG"] = str(Path(scratch) / "settings.yaml")
        os.environ["NAPARI_OVAM_SCRATCH"] = str(Path(scratch) / "scratch")
        folder = Path(scratch) / "thousand"
        start = time.perf_counter()
        make_project(folder, options.images, options.size)
        print(f"made in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        figures = measure(folder, options.images, options.pause)
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "load": [round(x, 1) for x in os.getloadavg()],
        "images": options.images,
        "size": options.size,
    }
    text = json.dumps({**about, **figures}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
