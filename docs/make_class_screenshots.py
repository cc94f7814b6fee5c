"""Photograph the class table and the instances.

    python docs/make_class_screenshots.py

Writes docs/images/classes-SIZE.png, of the project that make_project_screenshots makes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from make_project_screenshots import SIZES, make_project
from make_screenshots import OUT, start_display


def main(folder: Path) -> None:
    """Open the project, import a list, show the instances, and take the pictures."""
    import napari
    from PIL import Image
    from qtpy.QtWidgets import QApplication, QWidget

    make_project(folder)
    viewer = napari.Viewer(title="OVAM annotator", show=False)
    window: Any = viewer.window._qt_window
    window.setGeometry(0, 0, *SIZES[0])
    window.show()
    _, panel = viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM annotator")
    session = panel.session

    def pump(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    session.projects.open(folder)
    pump(4)
    session.class_changes.import_preset("voc")
    pump(1)
    session.class_changes.change(1, key="1")
    session.class_changes.change(2, key="2")
    for name in ("image", "maps", "labels", "token", "export"):
        panel.findChild(QWidget, f"fold_{name}").collapse(animate=False)
    for name in ("classes", "instances"):
        panel.findChild(QWidget, f"fold_{name}").expand(animate=False)
    session.instances.show(True)
    panel.sections["Classes"].select(2)
    pump(2)
    session.class_changes.ask_delete([2])
    pump(2)
    OUT.mkdir(exist_ok=True)
    for width, height in SIZES:
        window.resize(width, height)
        pump(0.6)
        viewer.reset_view()
        pump(0.4)
        pixels = viewer.screenshot(canvas_only=False, flash=False)
        path = OUT / f"classes-{width}x{height}.png"
        Image.fromarray(pixels[..., :3]).save(path, optimize=True)
        print(path.name, session.message)
    viewer.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        display = start_display(scratch)
        try:
            main(Path(scratch) / "pets")
            sys.stdout.flush()
        finally:
            display.terminate()
            display.wait()
