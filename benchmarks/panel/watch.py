"""Notes when napari's GUI thread is blocked, and by what."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BEAT = 0.005  # seconds between two beats of an idle GUI thread


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
        self.follows = 0  # labels that were shown while a threshold was dragged
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
