"""A project of many images gone through, and a threshold that is dragged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scripts import after, idle, panel_of

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from scripts import Script
    from watch import Watch

OPEN, NEXT, ACCEPT, DRAG = PROJECT_STEPS = (
    "open a project of 1,000 images",
    "next image",
    "accept",
    "drag a threshold, 1024×1024, three classes",
)
# Where the project is: made once, for all runs.
FOLDER = "NAPARI_OVAM_BENCHMARK_PROJECT"
TIMES, MOVES = 20, 30


def large(seed: int = 0) -> Any:
    """Return an image (1024, 1024, 3) and three maps as smooth as a model's."""
    rng = np.random.default_rng(seed)
    coarse = gaussian_filter(rng.random((3, 64, 64)), (0, 4, 4))
    maps = coarse.repeat(16, 1).repeat(16, 2)
    maps = gaussian_filter(maps, (0, 8, 8))
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    maps = ((maps - low) / (high - low)).astype(np.float32)
    image = (255 * np.moveaxis(maps, 0, -1)).astype(np.uint8)
    return np.ascontiguousarray(image), maps


def project(viewer: Viewer, watch: Watch) -> Script:
    """Open a project, go to the next image, accept, and drag a threshold."""
    panel = panel_of(viewer)
    session = panel.session
    viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM project")
    yield after(3)
    watch.begin(OPEN)
    session.projects.open(Path(os.environ[FOLDER]))
    yield lambda: session.current is not None and not session.busy
    yield after(1.5)
    for step, go in ((NEXT, lambda: session.step(1)), (ACCEPT, session.review.accept)):
        watch.begin(step)
        for _ in range(TIMES):
            key = session.current.key
            go()
            yield lambda key=key: session.current.key != key
            yield after(0.15)
    watch.begin("")
    session.projects.leave()
    yield idle(panel)
    yield after(1)
    yield from drag(panel, watch)
    watch.begin("")


def drag(panel: Any, watch: Watch) -> Script:
    """Drag the slider of one class of three, whose maps are of 1024x1024."""
    from qtpy.QtWidgets import QWidget

    session = panel.session
    image, maps = large()
    session.class_changes.use_phrases(["one", "two", "three"])
    ids = [entry.id for entry in session.classes.active]
    session.classes_changed.emit()
    made = dict(zip(ids, maps, strict=True))
    session.projects.add(image, "large", choice=session.choice, maps=made)
    session.labels.labels_from_maps()
    yield idle(panel)
    yield after(2)
    shown: list[None] = []
    session.labels_changed.connect(lambda: shown.append(None))
    slider = panel.findChild(QWidget, f"threshold_{ids[0]}")
    watch.begin(DRAG)
    for value in np.linspace(35, 75, MOVES).round().astype(int).tolist():
        slider.setValue(value)
        yield after(1 / 30)
    yield idle(panel)
    watch.follows = len(shown)
    yield after(0.5)


def plain_project(viewer: Viewer, watch: Watch) -> Script:
    """Show and change the same layers by napari alone."""
    from napari.utils.colormaps import DirectLabelColormap

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (512, 512, 3), np.uint8) for _ in range(4)]
    masks = [rng.integers(0, 6, (512, 512), np.uint16) for _ in range(4)]
    colours = {1: "red", 2: "blue", 3: "green", None: "magenta"}
    yield after(3)
    watch.begin(OPEN)
    image = viewer.add_image(images[0], rgb=True)
    labels = viewer.add_labels(
        masks[0], colormap=DirectLabelColormap(color_dict=colours), opacity=0.6
    )
    viewer.reset_view()
    yield after(1.5)
    for step in (NEXT, ACCEPT):
        watch.begin(step)
        for index in range(TIMES):
            image.data, labels.data = images[index % 4], masks[index % 4]
            yield after(0.15)
    watch.begin("")
    viewer.layers.clear()
    picture, maps = large()
    viewer.add_image(picture, rgb=True)
    labels = viewer.add_labels(
        np.zeros((1024, 1024), np.uint16),
        colormap=DirectLabelColormap(color_dict=colours),
        opacity=0.6,
    )
    viewer.reset_view()
    yield after(2)
    watch.begin(DRAG)
    for value in np.linspace(0.35, 0.75, MOVES):
        labels.data = (maps[0] >= value).astype(np.uint16)
        yield after(1 / 30)
    yield after(0.5)
    watch.begin("")
