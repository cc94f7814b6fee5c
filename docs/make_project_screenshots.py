"""Photograph a project in the annotator.

    python docs/make_project_screenshots.py

Writes docs/images/project-SIZE.png. The images are made by the embedded model, their
labels by its maps; some are accepted as a person would.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from make_screenshots import OUT, start_display

SIZES = ((1400, 900), (1100, 700))
PROMPTS = (
    "a cat and a hat on the grass",
    "a car on the snow",
    "a fox on the sand",
    "a boat and a cat on the water",
    "a hat on the grass",
    "a cat on the snow",
)


def make_project(folder: Path) -> None:
    """Generate images into a project and propose labels for most of them."""
    from napari_ovam import GenerationSettings, generate, load_pipeline
    from napari_ovam.project import Project
    from napari_ovam.workflows.proposals import ProposalSettings, propose

    project = Project.create(folder)
    for name in ("cat", "hat", "car", "fox", "boat"):
        project.classes.add(name)
    project.save()
    pipe = load_pipeline("tiny")
    for seed, prompt in enumerate(PROMPTS):
        settings = {"prompt": prompt, "seed": seed}
        made = generate(pipe, GenerationSettings(prompt, seed=seed))
        project.add_sample(made.image, settings, provenance={"title": prompt})
        if seed < len(PROMPTS) - 1:
            name = project.samples[-1].name
            here = [e.id for e in project.classes if f" {e.name} " in f"{prompt} "]
            propose(project, pipe, [name], classes=here, settings=ProposalSettings())


def main(folder: Path) -> None:
    """Open the project, review some of it, and take the pictures."""
    import napari
    from PIL import Image
    from qtpy.QtWidgets import QApplication

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
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    session.projects.open(folder)
    pump(4)
    session.review.accept()
    pump(2)
    session.review.reject()
    pump(2)
    session.review.step(1)
    pump(2)
    layer = session.layers.find(session.current.key, "labels")
    with layer.block_history():
        layer.brush_size = 8
        layer.paint((20, 20), layer.selected_label)
    pump(3)
    OUT.mkdir(exist_ok=True)
    for width, height in SIZES:
        window.resize(width, height)
        pump(0.6)
        viewer.reset_view()
        pump(0.4)
        pixels = viewer.screenshot(canvas_only=False, flash=False)
        path = OUT / f"project-{width}x{height}.png"
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
