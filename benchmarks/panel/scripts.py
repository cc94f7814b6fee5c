"""What is done in the window: each script yields what it waits for."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from watch import Watch

Script = Iterator[Callable[[], bool]]

STEPS = ("generate", "map", "typing", "labels", "paint", "optimize")
STEPS += ("generate again", "export")
JOBS = ("generate", "optimize", "load")


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
        elif step == "typing":
            yield from typing(panel)
        else:
            press(panel, step.split()[0])
            yield idle(panel)
            if panel.session.message[1] == "error":
                raise RuntimeError(panel.session.message[0])
        yield after(0.7)  # drawing, and the autosave
    watch.begin("")


def typing(panel: Any) -> Script:
    """Type one more phrase, as a hand does, wait for its map, and take it back."""
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QWidget

    phrases = panel.findChild(QWidget, "phrases")
    before = phrases.text()
    for letter in ", a green tree":
        QTest.keyClicks(phrases, letter)
        yield after(0.12)
    yield after(1)
    phrases.setText(before)
    yield after(0.5)


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
        elif step == "typing":
            typed = viewer.add_image(
                rng.random(size, np.float32), colormap="inferno", blending="additive"
            )
            for _ in range(3):
                typed.data = rng.random(size, np.float32)
                yield after(0.3)
            viewer.layers.remove(typed)
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
