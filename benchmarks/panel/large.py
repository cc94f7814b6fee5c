"""How long large pictures keep napari's window waiting, and how much memory they take.

    python benchmarks/panel/large.py                  # 2000, 4000 and 8000 pixels
    python benchmarks/panel/large.py --sizes 3500

Each size has a process with a real napari window (in an Xvfb of its own where there is
no display), in which a brush is dragged, a threshold is moved and the next picture is
shown; then plain napari does the same in the same window: it paints on a Labels layer
of its own, and gives its layers other labels, or another picture and other labels. What
the panel adds is the difference. A process each holds one picture with labels, with
and without the panel, for the memory.

On a machine that others use as well, what the window's thread computed says more than
what the clock says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from alone import run_alone, with_display

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 5
REST = 4.0  # seconds after a stroke: what is saved or looked at later
Times = tuple[float, float, float]  # computed in the window's thread, clock, longest


def picture(size: int, shift: int = 0) -> Any:
    """Return a picture and labels of it."""
    image = np.zeros((size, size, 3), np.uint8)
    image[shift::2] = 90
    labels = np.zeros((size, size), np.uint16)
    labels[size // 4 : size // 2, size // 4 + shift : size // 2] = 1
    return image, labels


def make_project(path: Path, size: int) -> None:
    """Make a project of two pictures with labels."""
    from napari_ovam.project import Project

    project = Project.create(path)
    for name in ("cat", "hat"):
        project.classes.add(name)
    for number, name in enumerate(("first", "second")):
        image, labels = picture(size, number)
        project.add_sample(image, name=name)
        project.save_labels(name, labels, "proposed")
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


def timed(act: Callable[[], Any], until: Callable[[], bool] = lambda: True) -> Times:
    """Do something, and let the window live until it has come of it what shall."""
    from qtpy.QtWidgets import QApplication

    clock, computed = time.monotonic(), time.thread_time()
    act()
    QApplication.processEvents()
    longest = time.monotonic() - clock
    longest = max(longest, pump(120, until), pump(0.3))
    return time.thread_time() - computed, time.monotonic() - clock - 0.3, longest


def stroke(viewer: Any, layer: Any, y: int) -> Times:
    """Drag a brush; return what its end took."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    viewer.layers.selection.active = layer
    layer.mode, layer.brush_size, layer.selected_label = "paint", 40, 2
    pump(0.5)
    native, left = viewer.window._qt_viewer.canvas.native, Qt.MouseButton.LeftButton
    x = native.size().width() // 2 - 60
    QTest.mousePress(native, left, pos=QPoint(x, y))
    for k in range(1, 11):
        QTest.mouseMove(native, QPoint(x + 6 * k, y))
        QApplication.processEvents()
    clock, computed = time.monotonic(), time.thread_time()
    QTest.mouseRelease(native, left, pos=QPoint(x + 60, y))
    QApplication.processEvents()
    computed, clock = time.thread_time() - computed, time.monotonic() - clock
    return computed, clock, max(clock, pump(REST))


def median(each: list[Times]) -> list[float]:
    found: list[float] = np.median(each, 0).tolist()
    return found


def window(folder: Path | None) -> tuple[Any, Any]:
    """Open napari's window, and in it the annotator with a project if there is one."""
    import napari

    viewer = napari.Viewer(show=False)
    viewer.window._qt_window.resize(1400, 900)
    viewer.window._qt_window.show()
    if folder is None:
        pump(3)
        return viewer, None
    _, panel = viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM annotator")
    session = panel.session
    pump(3)
    session.projects.open(folder)
    pump(300, lambda: session.current is not None)
    pump(5)
    return viewer, session


def ours(viewer: Any, session: Any, size: int) -> dict[str, list[float]]:
    """Measure the panel."""
    labels = session.layers.labels(session.current.key)
    middle = viewer.window._qt_viewer.canvas.native.height() // 2
    found = {
        "stroke": median(
            [stroke(viewer, labels, middle + 12 * k) for k in range(TIMES)]
        )
    }
    other = {"first": "second", "second": "first"}

    def step() -> Times:
        wanted = other[session.current.key]
        return timed(
            lambda: session.select(wanted), lambda: session.current.key == wanted
        )

    step()
    found["next"] = median([step() for _ in range(TIMES)])
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    session.current.maps[1] = np.broadcast_to(ramp, (size, size)).copy()
    session.show_map(1, shown=False)
    session.label_rules.automatic = True
    session.maps_changed.emit(session.current)

    def move(value: float) -> Times:
        before = session.current.edits.now
        return timed(
            lambda: session.class_changes.set_threshold(1, value),
            lambda: session.current.edits.now is not before,
        )

    move(0.2)
    found["threshold"] = median([move(0.3 + 0.1 * k) for k in range(TIMES)])
    return found


def plain(viewer: Any, size: int) -> dict[str, list[float]]:
    """Measure napari's own layers."""
    several = [picture(size, shift) for shift in (0, 1)]
    viewer.layers.clear()
    image = viewer.add_image(several[0][0], rgb=True)
    labels = viewer.add_labels(several[0][1])
    pump(3)
    middle = viewer.window._qt_viewer.canvas.native.height() // 2
    found = {
        "stroke": median(
            [stroke(viewer, labels, middle + 12 * k) for k in range(TIMES)]
        )
    }

    def step(number: int) -> None:
        image.data, labels.data = several[number]

    def move(number: int) -> None:
        labels.data = several[number][1]

    for name, act in (("next", step), ("threshold", move)):
        each = [timed(lambda k=k, act=act: act(k % 2)) for k in range(1, TIMES + 1)]
        found[name] = median(each)
    return found


def memory() -> float:
    """Return what the process holds, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return (
        next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1e3
    )


def measure(size: int, part: str) -> None:
    """Open a window, measure a part, and print it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        make_project(folder, size)
        found: Any
        if part == "memory":
            viewer, _ = window(None)
            before = memory()
            image, labels = picture(size)
            viewer.add_image(image, rgb=True)
            viewer.add_labels(labels)
            pump(5)
            found = memory() - before
        elif part == "panel memory":
            make_project(empty := Path(scratch) / "small", 64)
            viewer, session = window(empty)
            before = memory()
            session.projects.open(folder)
            pump(300, lambda: session.current is not None and not session.busy)
            pump(10)
            found = memory() - before
        else:
            viewer, session = window(folder)
            mine = ours(viewer, session, size)
            session.projects.leave()
            pump(60, lambda: not session.busy)
            found = [mine, plain(viewer, size)]
        print(json.dumps(found))
        sys.stdout.flush()
    os._exit(0)


def run(size: int, part: str) -> Any:
    """Measure a part in a process and a home of its own."""
    command = [sys.executable, __file__, "--one", str(size), "--part", part]
    done, _ = run_alone(with_display(command), 900)
    if not done.stdout.strip():
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 4000, 8000])
    parser.add_argument("--parts", nargs="+", default=["times", "memory"])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--part", default="times", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one, arguments.part)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%F')}\n")
    print(
        "| size | step | computed, ms | plain napari's | takes, ms | plain napari's "
        "| longest wait, ms | plain napari's |\n|---|---|---|---|---|---|---|---|"
    )
    for size in arguments.sizes:
        if "times" in arguments.parts:
            mine, theirs = run(size, "times")
            for step, times in mine.items():
                pairs = zip(times, theirs[step], strict=True)
                cells = [f"{1000 * a:.0f} | {1000 * b:.0f}" for a, b in pairs]
                print(f"| {size}×{size} | {step} | {' | '.join(cells)} |", flush=True)
        if "memory" in arguments.parts:
            mine, theirs = run(size, "panel memory"), run(size, "memory")
            print(f"{size}: {mine:.0f} MB, plain {theirs:.0f} MB", flush=True)
    print(f"\nload {os.getloadavg()[1]:.1f}, {time.strftime('%F')}")


if __name__ == "__main__":
    main()
