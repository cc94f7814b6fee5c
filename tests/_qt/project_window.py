"""A project on disk and a napari window that it is opened in, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from napari_ovam.project import Project

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64


def make_project(path: Path, count: int = 4) -> Project:
    """Make a project whose images are told apart by their first pixel."""
    rng = np.random.default_rng(0)
    project = Project.create(path)
    for name in ("cat", "hat"):
        project.classes.add(name)
    for index in range(count):
        image = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        image[0, 0] = index
        about = {"title": f"picture {index}"}
        project.add_sample(image, name=f"picture-{index}", provenance=about)
        if index % 2:
            labels = np.zeros((SIZE, SIZE), np.uint8)
            labels[8:24, 8:24] = 1
            project.save_labels(f"picture-{index}", labels, "proposed")
    project.save()
    return project


@dataclass
class Window:
    """A napari window with the table of samples, as a person has it before them."""

    viewer: Any
    bot: Any
    widget: Any

    @property
    def session(self) -> Any:
        return self.widget.session

    @property
    def said(self) -> str:
        text: str = self.session.message[0]
        return text

    @property
    def shown(self) -> str:
        """The title of the sample that is shown."""
        return self.session.current.name if self.session.current else ""

    @property
    def image(self) -> Any:
        return self.session.layers.find(self.session.current.key, "image")

    @property
    def labels(self) -> Any:
        return self.session.layers.find(self.session.current.key, "labels")

    def find(self, name: str) -> Any:
        found = self.widget.findChild(QWidget, name)
        assert found is not None, f"there is no widget {name!r}"
        return found

    def click(self, name: str) -> None:
        made = self.find(name)
        assert made.isEnabled(), f"{name} cannot be pressed"
        self.bot.waitUntil(lambda: not made.size().isEmpty())
        self.bot.mouseClick(made, Qt.MouseButton.LeftButton)

    def wait(self) -> None:
        self.bot.waitUntil(lambda: not self.session.busy, timeout=60_000)

    def open(self, path: Path) -> None:
        """Open a project; wait until its first image is there, or a word on it."""
        self.session.projects.open(path)
        self.wait()
        if self.session.projects.keys:
            self.until_shown()

    def until_shown(self, title: str = "") -> None:
        def there() -> bool:
            return bool(self.shown) and title in ("", self.shown)

        self.bot.waitUntil(there, timeout=10_000)

    def rows(self) -> list[tuple[str, str]]:
        """Titles and statuses in the table."""
        table = self.widget.table
        return [
            (table.index(row, 0).data(), table.index(row, 1).data())
            for row in range(table.rowCount())
        ]

    def click_row(self, row: int) -> None:
        view = self.widget.view
        place = view.visualRect(self.widget.table.index(row, 0)).center()
        self.bot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=place)

    def press(self, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key on the image."""
        canvas = self.viewer.window._qt_viewer.canvas.native
        canvas.setFocus()
        self.bot.keyClick(canvas, key, modifier)

    def paint(self, row: int, column: int, number: int = 2) -> None:
        """Paint a dot, as a click with the brush does."""
        self.labels.brush_size = 6
        with self.labels.block_history():
            self.labels.paint((row, column), number)

    def written(self) -> Project:
        """Wait for at most three seconds; return what is on the disk."""
        autosave = self.session.saving.autosave
        self.bot.waitUntil(lambda: autosave.pending == 0, timeout=3000)
        return Project.open(autosave.project.path)
