"""Click an object, and what is not of it, with the mouse in the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from film import RIGHT, Film
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget
from window import Window

from napari_ovam.project import Project
from napari_ovam.scenes import load_scenes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

CAT, HAT = (196, 184), (50, 58)  # in the scene of a cat and a hat


def photograph_clicks(out: Path, home: Path) -> None:
    """Find a cat by a click, and take a click on a hat for what is no cat."""
    shown, film, exact = _open(out, home)
    film.click(film.on_picture(*CAT))
    film.click(film.on_picture(*HAT), RIGHT)
    shown.find("sections").ensureWidgetVisible(shown.find("click_button"))
    shown.pump(1)
    path = out / "clicks.png"  # all colours: few pixels have those of clicks
    shown.window.screen().grabWindow(0).save(str(path))
    with Image.open(path) as taken:
        taken.convert("RGB").crop((0, 0, 1400, 900)).save(path, optimize=True)
    shown.session.clicks.accept()
    found = shown.session.layers.labels("cat-hat-room").data == 1
    assert (found & exact).sum() > 0.9 * (found | exact).sum()
    shown.session.close()
    shown.viewer.close()


def film_clicks(out: Path, home: Path) -> None:
    """Find a cat by a click, accept it, and a hat of another class: five seconds."""
    shown, film, exact = _open(out, home)
    film.hold(0.4)
    film.click(film.on_picture(*CAT))
    film.hold(0.6)
    film.key(Qt.Key.Key_Return)
    film.hold(0.4)
    film.key(Qt.Key.Key_C)
    film.click(film.on_picture(*HAT))
    film.hold(0.6)
    film.key(Qt.Key.Key_Return)
    film.hold(1.5)
    labels = shown.session.layers.labels("cat-hat-room").data
    assert ((labels == 1) & exact).sum() > 0.9 * ((labels == 1) | exact).sum()
    assert (labels == 2).any()
    film.save(out / "clicks.webp")
    shown.session.close()
    shown.viewer.close()


def _open(out: Path, home: Path) -> tuple[Window, Film, NDArray[np.bool_]]:
    """Open a picture of a cat and a hat, ready for clicks; return where the cat is."""
    scene = next(s for s in load_scenes() if set(s.classes.values()) == {"cat", "hat"})
    project = Project.create(home / "pets")
    for name in ("cat", "hat"):
        project.classes.add(name)
    project.classes.change(1, color=(0, 158, 115))  # seen on a yellow cat
    project.add_sample(scene.image, name="cat-hat-room")
    project.save()
    shown = Window(out, home / "pets")
    shown.panel.findChild(QWidget, "fold_clicks").expand(animate=False)
    shown.press("click_button")
    shown.press("look_button")
    shown.window.resize(1400, 900)
    shown.viewer.reset_view()
    shown.find("sections").ensureWidgetVisible(shown.find("click_button"))
    shown.pump(1)
    number = next(i for i, name in scene.classes.items() if name == "cat")
    return shown, Film(shown), scene.labels == number
