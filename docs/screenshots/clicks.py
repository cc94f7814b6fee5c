"""Click an object, and what is not of it, with the mouse in the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QWidget
from window import Window

from napari_ovam.project import Project
from napari_ovam.scenes import load_scenes

if TYPE_CHECKING:
    from pathlib import Path

CAT, HAT = (196, 184), (50, 58)  # in the scene of a cat and a hat


def photograph_clicks(out: Path, home: Path) -> None:
    """Find a cat by a click, and take a click on a hat for what is no cat."""
    scene = next(s for s in load_scenes() if set(s.classes.values()) == {"cat", "hat"})
    project = Project.create(home / "pets")
    for name in ("cat", "hat"):
        project.classes.add(name)
    project.add_sample(scene.image, name="cat-hat-room")
    project.save()
    shown = Window(out, home / "pets")
    shown.panel.findChild(QWidget, "fold_clicks").expand(animate=False)
    shown.press("click_button")
    shown.press("look_button")
    shown.window.resize(1400, 900)
    shown.viewer.reset_view()
    shown.pump(1)
    canvas, camera = shown.viewer.window._qt_viewer.canvas.native, shown.viewer.scene
    buttons = (Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton)
    for (row, column), button in zip((CAT, HAT), buttons, strict=True):
        _, y, x = camera.camera.center
        size, zoom = canvas.size(), camera.camera.zoom
        across = round(size.width() / 2 + (column - x) * zoom)
        down = round(size.height() / 2 + (row - y) * zoom)
        QTest.mouseClick(canvas, button, pos=QPoint(across, down))
        while shown.session.clicks.busy:
            shown.pump(0.1)
    shown.find("sections").ensureWidgetVisible(shown.find("click_button"))
    shown.pump(1)
    path = out / "clicks.png"  # all colours: few pixels have those of clicks
    shown.window.screen().grabWindow(0).save(str(path))
    with Image.open(path) as taken:
        taken.convert("RGB").crop((0, 0, 1400, 900)).save(path, optimize=True)
    shown.session.clicks.accept()
    found = shown.session.layers.labels("cat-hat-room").data == 1
    number = next(i for i, name in scene.classes.items() if name == "cat")
    exact = scene.labels == number
    assert (found & exact).sum() > 0.9 * (found | exact).sum()
    shown.session.close()
    shown.viewer.close()
