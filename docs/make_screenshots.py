"""Photograph the annotator at work, and every section with its settings open.

    python docs/make_screenshots.py

Writes docs/images/panel-SIZE-STEP.png and section-SIZE-NAME.png.

napari runs on a display of its own (Xvfb), with settings of its own, on the embedded
model; every button is pressed as a person would, in the order of the panel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parent / "images"
SIZES = ((1400, 900), (1024, 768))
PATIENCE = 600  # seconds that a step may take
STEPS = (
    ("image", "generate_button"),
    ("maps", "map_button"),
    ("labels", "labels_button"),
    ("token", "optimize_button"),
    ("export", "export_button"),
)


def start_display(folder: str) -> subprocess.Popen[bytes]:
    """Start an X server that chooses a free number, and set DISPLAY to it."""
    ready, told = os.pipe()
    screen = f"{SIZES[0][0]}x{SIZES[0][1]}x24"
    server = subprocess.Popen(  # noqa: S603
        ["Xvfb", "-displayfd", str(told), "-screen", "0", screen, "-nolisten", "tcp"],  # noqa: S607
        pass_fds=[told],
        stderr=subprocess.DEVNULL,
    )
    os.close(told)
    with os.fdopen(ready) as file:
        os.environ["DISPLAY"] = f":{file.readline().strip()}"
    os.environ["NAPARI_CONFIG"] = str(Path(folder) / "settings.yaml")
    os.environ["HOME"] = folder
    os.environ.pop("QT_QPA_PLATFORM", None)
    return server


def main() -> None:
    """Go through the whole job."""
    import diffusers.pipelines.stable_diffusion  # noqa: F401 (as the launcher does)
    import napari
    from PIL import Image
    from qtpy.QtWidgets import QAbstractButton, QApplication, QScrollArea
    from superqt import QCollapsible

    viewer = napari.Viewer(title="OVAM annotator", show=False)
    window = viewer.window._qt_window
    window.setGeometry(0, 0, *SIZES[0])
    window.show()
    _, panel = viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM annotator")
    session = panel.session
    scroll = panel.findChild(QScrollArea, "sections")

    def pump(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def settle() -> None:
        end = time.monotonic() + PATIENCE
        pump(0.3)
        while session.busy or session.labels.job is not None:
            if time.monotonic() > end:
                raise SystemExit(f"no end after {PATIENCE} s: {session.message}")
            pump(0.1)
        pump(0.3)

    def photograph(name: str, show: Any = None) -> None:
        kind, _, step = name.partition("-")
        for width, height in SIZES:
            window.resize(width, height)
            pump(0.5)
            if show is not None:
                scroll.ensureWidgetVisible(show)
            viewer.reset_view()
            pump(0.4)
            pixels = viewer.screenshot(canvas_only=False, flash=False)
            picture = Image.fromarray(pixels[..., :3])
            path = OUT / f"{kind}-{width}x{height}-{step}.png"
            picture.save(path, optimize=True)
            print(path.name, picture.size, session.message)

    OUT.mkdir(exist_ok=True)
    photograph("panel-start")
    for step, name in STEPS:
        button = panel.findChild(QAbstractButton, name)
        if step == "token":
            correct(session)
        button.click()
        settle()
        photograph(f"panel-{step}", button)
    folds = panel.findChildren(QCollapsible)
    for fold in folds:
        for other in folds:
            (other.expand if other is fold else other.collapse)(animate=False)
        for more in fold.findChildren(QAbstractButton, "more_button"):
            more.setChecked(True)
        pump(0.3)
        photograph(f"section-{fold.objectName().removeprefix('fold_')}")
    viewer.close()


def correct(session: Any) -> None:
    """Erase every part of the first class but the largest, as a person would."""
    from skimage.measure import label

    sample = session.current
    layer = session.layers.find(sample.key, "labels")
    number = layer.selected_label
    parts = label(layer.data == number)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    for part in set(np.flatnonzero(sizes)) - {int(sizes.argmax())}:
        row, column = np.argwhere(parts == part)[0]
        layer.fill((int(row), int(column)), 0)
    if sizes.astype(bool).sum() < 2:  # nothing to erase: make it a little larger
        rows, columns = np.nonzero(parts)
        place = (int(rows.min()), int(columns[rows.argmin()]))
        layer.paint(place, number)
    session.labels.take_edits(sample)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        display = start_display(scratch)
        try:
            main()
            sys.stdout.flush()
        finally:
            display.terminate()
            display.wait()
