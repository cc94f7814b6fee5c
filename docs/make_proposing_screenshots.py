"""Photograph proposals, improved tokens and the token library.

    python docs/make_proposing_screenshots.py [FOLDER]

Writes proposals-SIZE.png and token-library-SIZE.png to docs/images, or to FOLDER. The
scenes that come with the program are the images; those with a cat are accepted with
their exact masks.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from make_screenshots import OUT, start_display

SIZES = ((1400, 900),)
CLASSES = ("cat", "hat")


def make_project(folder: Path) -> None:
    """Take the scenes that come with the program; those with a cat are accepted."""
    import numpy as np

    from napari_ovam.project import Project
    from napari_ovam.scenes import load_scenes

    project = Project.create(folder)
    ids = {name: project.classes.add(name).id for name in CLASSES}
    scenes = sorted(load_scenes(), key=lambda s: "cat" not in s.classes.values())
    for scene in scenes:
        project.add_sample(scene.image, name=scene.name)
        here = {ids[name]: i for i, name in scene.classes.items() if name in ids}
        absent = set(ids.values()) - set(here)
        project.change_sample(scene.name, absent=absent)
        if "cat" in scene.classes.values():
            labels = np.zeros(scene.labels.shape, np.uint8)
            for number, there in here.items():
                labels[scene.labels == there] = number
            project.save_labels(scene.name, labels, "accepted", absent=absent)
    project.save()


def main(folder: Path, out: Path) -> None:
    """Propose, improve, use the tokens and keep them in the library."""
    import diffusers.pipelines.stable_diffusion  # noqa: F401 (before the window)
    import napari
    from PIL import Image
    from qtpy.QtWidgets import QApplication, QDialog

    make_project(folder)
    viewer = napari.Viewer(title="OVAM annotator", show=False)
    window: Any = viewer.window._qt_window
    window.setGeometry(0, 0, *SIZES[0])
    window.show()
    viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM annotator")
    _, table = viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM project")
    session = table.session

    def pump(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end or session.busy:
            QApplication.processEvents()
            time.sleep(0.01)

    def photograph(name: str) -> None:
        for width, height in SIZES:
            window.resize(width, height)
            pump(0.6)
            viewer.reset_view()
            pump(0.4)
            pixels: Any = window.screen().grabWindow(0).toImage()
            path = out / f"{name}-{width}x{height}.png"
            pixels.save(str(path))
            with Image.open(path) as taken:
                cut = taken.convert("RGB").crop((0, 0, width, height))
            cut.save(path, optimize=True)
            print(path.name, session.message)

    session.projects.open(folder)
    pump(3)
    session.proposing.propose(session.projects.keys)
    pump(2)
    session.proposing.improve()
    pump(1)
    (dialog,) = [d for d in window.findChildren(QDialog) if d.isVisible()]
    dialog.move(300, 120)
    pump(0.3)
    photograph("proposals")
    dialog.accept()
    pump(2)
    for entry in session.classes:
        if entry.token is not None:
            session.library.save(entry.id)
            pump(1)
    viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM token library")
    pump(2)
    photograph("token-library")
    viewer.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NAPARI_OVAM_TOKENS"] = str(Path(scratch) / "tokens")
        display = start_display(scratch)
        try:
            target = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
            main(Path(scratch) / "pets", target)
            sys.stdout.flush()
        finally:
            display.terminate()
            display.wait()
