"""How long the panel blocks napari's window, and how long closing it takes.

    python benchmarks/panel.py            # three runs, some minutes
    python benchmarks/panel.py --blocks   # every block, and where it was

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
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.viewer import Viewer

    Script = Iterator[Callable[[], bool]]

BEAT = 0.005  # seconds between two beats of an idle GUI thread
LIMIT = 0.050  # seconds: what the panel may take
STEPS = ("generate", "map", "labels", "paint", "optimize", "generate again", "export")
JOBS = ("generate", "optimize", "load")


@dataclass
class Block:
    """A time in which the GUI thread answered nothing."""

    step: str
    wall: float  # seconds
    cpu: float  # seconds that the GUI thread itself computed
    seen: dict[str, int] = field(default_factory=dict)  # whose code, by looks
    places: dict[str, int] = field(default_factory=dict)

    def part(self, whose: str) -> float:
        """Return the seconds in which the code of `whose` ran."""
        return self.wall * self.seen.get(whose, 0) / max(1, sum(self.seen.values()))


class Watch:
    """Notes when the GUI thread is blocked, and by what."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.step = ""
        self.blocks: list[Block] = []
        self.seconds: dict[str, float] = {}
        self._gui = threading.get_ident()
        self._looks: list[tuple[str, str]] = []
        self._last, self._cpu = time.perf_counter(), time.thread_time()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self._timer.start(round(1000 * BEAT))
        threading.Thread(target=self._look, daemon=True).start()

    def begin(self, step: str) -> None:
        """Count what comes to a step."""
        now = time.perf_counter()
        if self.step:
            self.seconds[self.step] = now - self._since
        self.step, self._since = step, now

    def _beat(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        late = now - self._last - BEAT
        if self.step and late > 0.02:
            seen = Counter(whose for whose, _ in self._looks)
            places = Counter(place for _, place in self._looks)
            self.blocks.append(
                Block(self.step, late, cpu - self._cpu, dict(seen), dict(places))
            )
        self._last, self._cpu = time.perf_counter(), time.thread_time()
        self._looks = []

    def _look(self) -> None:
        before = time.perf_counter()
        while True:
            time.sleep(BEAT)
            now = time.perf_counter()
            if now - self._last > 2 * BEAT:
                self._looks += _look_around(self._gui, now - before)
            before = now


def _look_around(gui: int, since: float) -> list[tuple[str, str]]:
    """Return one look for each beat `since` the last chance to look."""
    # Kept no longer than this call: a frame keeps its painters and locks alive.
    frames = sys._current_frames()
    look, others = _whose(frames.get(gui)), _others(frames, gui)
    # A late look: this thread was kept from Python's lock, by a job if there is one,
    # else by the GUI thread itself.
    late = ("job", others) if others else look
    return [late] * (round(since / BEAT) - 2) + [look]


def _whose(frame: Any) -> tuple[str, str]:
    """Return whose code runs: the innermost package's that is napari's or ours."""
    places: list[tuple[str, str]] = []
    while frame is not None:
        name = frame.f_code.co_filename
        place = f"{Path(name).parent.name}/{Path(name).name}:{frame.f_lineno}"
        if "napari_ovam" in name:
            places.append(("panel", place))
        elif "/napari/" in name or "/vispy/" in name:
            places.append(("napari", place))
        frame = frame.f_back
    # The event loop itself, and the window that every event goes through.
    loop = ("_qt/app.py", "_qt/qt_event_loop.py", "_qt/qt_main_window.py")
    while places and places[-1][1].startswith(loop):
        places.pop()
    if not places:
        return "Qt", "Qt"
    whose, inner = places[0]
    ours = next((place for who, place in places if who == "panel"), "")
    return whose, inner if ours in ("", inner) else f"{inner} < {ours}"


def _others(frames: dict[int, Any], gui: int) -> str:
    """Return where the threads are that run a job."""
    places = []
    for thread, frame in frames.items():
        inner, found = frame, ""
        while frame is not None and not found:
            name = Path(frame.f_code.co_filename)
            if "napari_ovam" in name.parts and name.name != "autosave.py":
                at = f"{Path(inner.f_code.co_filename).name}:{inner.f_lineno}"
                found = f"{at} in {name.name}:{frame.f_lineno}"
            frame = frame.f_back
        if found and thread != gui:
            places.append(found)
    return ", ".join(places)


# -- the scripts: each yields what it waits for -------------------------------------


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def drive(script: Script, then: Callable[[], Any]) -> Any:
    """Follow a script by a timer; returns the timer, to be kept."""
    from qtpy.QtCore import QTimer

    timer, waiting = QTimer(), after(0)

    def poll() -> None:
        nonlocal waiting
        if waiting():
            try:
                waiting = next(script)
            except StopIteration:
                timer.stop()
                then()
            except Exception:  # noqa: BLE001 (any)
                traceback.print_exc()  # napari would show it and go on
                os._exit(1)

    timer.timeout.connect(poll)
    timer.start(10)
    return timer


def panel_of(viewer: Viewer) -> Any:
    from napari_ovam._qt.annotator import AnnotatorWidget

    return viewer.window._qt_window.findChild(AnnotatorWidget)


def press(panel: Any, name: str) -> None:
    from qtpy.QtWidgets import QPushButton, QWidget

    button = panel.findChild(QPushButton, f"{name}_button")
    panel.findChild(QWidget, "sections").ensureWidgetVisible(button)
    button.click()


def idle(panel: Any) -> Callable[[], bool]:
    session = panel.session
    return lambda: not session.busy and session.labels.job is None


def work(viewer: Viewer, watch: Watch) -> Script:
    """Press the buttons one after another."""
    panel = panel_of(viewer)
    yield after(3)  # the first drawing of the window
    for step in STEPS:
        watch.begin(step)
        if step == "paint":
            yield from stroke(viewer)
        else:
            press(panel, step.split()[0])
            yield idle(panel)
            if panel.session.message[1] == "error":
                raise RuntimeError(panel.session.message[0])
        yield after(0.7)  # drawing, and the autosave
    watch.begin("")


def stroke(viewer: Viewer) -> Script:
    """Drag a brush over the canvas, as a hand does: 60 moves in a second."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    layer = viewer.layers.selection.active
    layer.mode, layer.selected_label = "paint", 2
    canvas = viewer.window._qt_viewer.canvas.native
    left, size = Qt.MouseButton.LeftButton, canvas.size()
    QTest.mousePress(canvas, left, pos=QPoint(size.width() // 2, size.height() // 2))
    for part in np.linspace(0, 0.1, 60):
        at = QPoint(
            int(size.width() * (0.5 + part)), int(size.height() * (0.5 + part / 2))
        )
        QTest.mouseMove(canvas, at)
        yield after(0.016)
    QTest.mouseRelease(canvas, left, pos=at)
    layer.mode = "pan_zoom"


def plain(viewer: Viewer, watch: Watch) -> Script:
    """Make and change the same layers as `work` by napari alone."""
    from napari.utils.colormaps import Colormap, DirectLabelColormap

    rng = np.random.default_rng(0)
    # As large as what the embedded model makes, and as often as the panel shows it.
    size, small = (256, 256), (32, 32)
    picture = rng.integers(0, 255, (*size, 3), np.uint8)
    colours = {1: "red", 2: "blue", None: "magenta"}
    layers: list[Any] = []

    def image() -> Script:
        for index in range(25):
            unfinished = rng.integers(0, 255, (*small, 3), np.uint8)
            if index == 0:
                preview = viewer.add_image(
                    unfinished, rgb=True, scale=(8, 8), translate=(3.5, 3.5)
                )
            else:
                preview.data = unfinished
            yield after(0.1)
        viewer.layers.remove(preview)
        layers.append(viewer.add_image(picture, rgb=True))
        viewer.reset_view()

    def maps() -> None:
        for name in ("cat", "hat"):
            values = rng.random(size, np.float32)
            layer = viewer.add_image(
                values,
                name=name,
                colormap=Colormap([[0, 0, 0, 1], [1, 0, 0, 1]]),
                blending="additive",
                opacity=0.6,
                contrast_limits=(0.1, 1),
            )
            layers.append(layer)

    def labels() -> None:
        layer = viewer.add_labels(
            rng.integers(0, 3, size, np.uint16),
            opacity=0.6,
            colormap=DirectLabelColormap(color_dict=colours),
        )
        layers.append(layer)

    yield after(3)
    for step in STEPS:
        watch.begin(step)
        if step == "generate":
            yield from image()
        elif step == "map":
            maps()
        elif step == "labels":
            labels()
            for layer in layers[1:3]:
                layer.visible = False
        elif step == "paint":
            yield from stroke(viewer)
        elif step == "optimize":
            for _ in range(60):
                layers[1].data = rng.random(small, np.float32)
                layers[1].scale = (8, 8)
                yield after(0.05)
            layers[1].scale = (1, 1)
            layers[1].data = rng.random(size, np.float32)
            layers[3].data = rng.integers(0, 3, size, np.uint16)
        elif step == "generate again":
            yield from image()
            for layer in layers[:4]:
                layer.visible = False
            maps()
            labels()
        yield after(0.7)
    watch.begin("")


def close(viewer: Viewer, job: str) -> Script:
    """Close the window in the middle of a job."""
    from qtpy.QtWidgets import QWidget

    panel = panel_of(viewer)
    session = panel.session
    yield after(2)
    if job == "optimize":
        for name in ("generate", "map", "labels"):
            press(panel, name)
            yield idle(panel)
        panel.findChild(QWidget, "iterations").setValue(100_000)
    reported: list[int] = []
    session.progressed.connect(lambda done, _: reported.append(done))
    press(panel, "optimize" if job == "optimize" else "generate")
    if job == "load":
        yield lambda: session.job is not None and bool(session.job.holds)
    else:
        yield lambda: max(reported, default=0) >= 5
    print(json.dumps({"closed": time.time()}), flush=True)
    viewer.window._qt_window.close()


# -- one process a run --------------------------------------------------------------


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
            script = plain if part == "plain" else work
            kept.append(drive(script(viewer, kept[0]), report))
        run()

    napari.run = run_script
    if part == "plain":
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
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "HOME": home,
            "NAPARI_CONFIG": f"{home}/napari.yaml",
            "NAPARI_OVAM_SCRATCH": f"{home}/scratch",
        }
        environment.setdefault("OMP_NUM_THREADS", "1")
        process = subprocess.run(  # noqa: S603 (our own)
            [sys.executable, __file__, "--part", part],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=600,
        )
        ended = time.time()
    said = process.stderr.replace("WARNING: could not determine DPI\n", "")
    # Of plain napari only the time is asked; looking at a thread can keep a painter.
    if process.returncode or (said and part != "plain"):
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
    parser.add_argument("--only", choices=["blocks", "closing"])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments.part)
        return
    if not os.environ.get("DISPLAY"):
        if shutil.which("xvfb-run") is None:
            raise SystemExit("there is no display: install xvfb, or set DISPLAY")
        screen = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24"]
        command = [*screen, sys.executable, *sys.argv]
        raise SystemExit(subprocess.call(command))  # noqa: S603 (our own)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%F')}\n")
    if arguments.only != "closing":
        report_blocks(arguments.runs, every=arguments.blocks)
    if arguments.only != "blocks":
        report_closing(arguments.runs)


def report_blocks(runs: int, *, every: bool) -> None:
    ours = [measured("work") for _ in range(runs)]
    theirs = [measured("plain") for _ in range(runs)]
    if every:
        for run in ours:
            for each in run["blocks"]:
                if each["wall"] > LIMIT:
                    print(json.dumps(each))
    print(
        "| step | takes, s | longest block, ms | plain napari's, ms | ratio "
        "| in the panel's code | kept waiting by the job | in Qt "
        "| plain napari: in Qt |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for step in STEPS:
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
        print(
            f"| {step} | " + " | ".join([*cells, *(f"{p:.0f}" for p in parts)]) + " |"
        )


def report_closing(runs: int) -> None:
    print("\n| closed during | from close to the process's end, s |")
    print("|---|---|")
    for job in JOBS:
        seen = [measured(job) for _ in range(runs)]
        seconds = [each["ended"] - each["closed"] for each in seen]
        print(f"| {job} | {statistics.median(seconds):.2f} |")


if __name__ == "__main__":
    main()
