"""The annotator in a real napari window, on a small random pipeline."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("qtpy")
pytest.importorskip("pytestqt")

from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QAbstractButton, QComboBox, QWidget
from superqt import QCollapsible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT = 120_000  # ms; generous, as machines that run tests are busy


@pytest.fixture(scope="session")
def napari_windows(qapp: Any) -> Iterator[Any]:
    """Keep the napari windows that the tests of a process use by turns."""
    # In a session the import belongs before the window; see the launcher.
    import diffusers  # noqa: F401
    import torch
    from napari_windows import Windows

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari._qt.qt_main_window.SHOW_QT_WARNING", False)
        patch.setattr("napari._qt.threads.status_checker.StatusChecker.start", Mock())
        patch.setattr("napari._qt.qt_viewer.QtViewer._get_console", _no_console)
        windows = Windows()
        yield windows
        windows.close()


def _no_console(_: Any) -> QWidget:
    console = QWidget()
    console._update_theme = lambda *_: None  # type: ignore[attr-defined]
    return console


@pytest.fixture
def make_napari_viewer(
    napari_windows: Any, qtbot: Any, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Any]]:
    """Return what gives an empty napari window, in place of napari's own fixture.

    After the test the window is emptied, and what the plugin left behind is an error.
    """
    failed = request.session.testsfailed
    yield napari_windows.take
    napari_windows.give_back(failed=request.session.testsfailed > failed)


@pytest.fixture
def dock(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Any]]:
    """Return what docks a widget of the plugin's in a window of its own.

    It is given the widget's name in the menu, a class such as `project_window.Window`
    to drive it, and the name of a section to unfold. Its session ends after the test.
    """
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    sessions = []

    def made(name: str, driver: Callable[..., Any], section: str = "") -> Any:
        viewer = make_napari_viewer(show=True)
        viewer.window._qt_window.resize(1100, 700)
        _, widget = viewer.window.add_plugin_dock_widget("napari-ovam", name)
        if section:
            widget.findChild(QWidget, f"fold_{section}").expand(animate=False)
        qtbot.waitExposed(viewer.window._qt_window)
        sessions.append(widget.session)
        return driver(viewer, qtbot, widget)

    yield made
    for session in sessions:
        session.close()


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, make_pipe: Callable[..., Any]
) -> Path:
    """Return a model on disk; the variable OVAM_TEST_MODEL names another one."""
    chosen = os.environ.get("OVAM_TEST_MODEL")
    if chosen:
        return Path(chosen)
    folder = tmp_path_factory.mktemp("model")
    make_pipe().save_pretrained(folder)
    (folder / "ovam_defaults.json").write_text('{"steps": 4}')
    return folder


@dataclass
class Panel:
    """The annotator as a person has it before them."""

    widget: Any
    viewer: Any
    bot: Any

    @property
    def session(self) -> Any:
        return self.widget.session

    @property
    def status(self) -> str:
        return self.find("status_text").text()

    def find(self, name: str) -> Any:
        found = self.widget.findChild(QWidget, name)
        assert found is not None, f"there is no widget {name!r}"
        return found

    def click(self, name: str) -> None:
        button = self.find(name)
        assert isinstance(button, QAbstractButton)
        assert button.isEnabled(), f"{name} cannot be pressed"
        above = button.parentWidget()
        while above is not None:  # nobody can press what is folded away
            if isinstance(above, QCollapsible) and not above.isExpanded():
                above.expand(animate=False)
            above = above.parentWidget()
        # one that was just shown has no height until its row is laid out anew
        self.bot.waitUntil(lambda: button.isVisible() and not button.size().isEmpty())
        self.widget.findChild(QWidget, "sections").ensureWidgetVisible(button)
        self.bot.mouseClick(button, Qt.MouseButton.LeftButton)

    def wait(self) -> None:
        """Wait until nothing runs any more."""

        def idle() -> bool:
            return not self.session.busy and self.session.labels.job is None

        self.bot.waitUntil(idle, timeout=TIMEOUT)

    def press(self, name: str) -> None:
        """Click a button and wait for what it starts."""
        self.click(name)
        self.wait()

    def layer(self, role: str, number: int = 0, sample: int = -1) -> Any:
        key = self.session.samples[sample].key
        return self.session.layers.find(key, role, number)

    def labels(self, sample: int = -1) -> Any:
        return self.layer("labels", sample=sample)

    def number(self, name: str) -> int:
        return self.session.classes.find(name).id

    @property
    def other(self) -> int:
        """The class that is not the one in the middle of the image."""
        data = self.labels().data
        middle = data[data.shape[0] // 2, data.shape[1] // 2]
        return next(e.id for e in self.session.classes if e.id != middle)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse on the canvas between fractions of its (height, width)."""
        canvas = self.viewer.window._qt_viewer.canvas.native
        size = canvas.size()

        def at(place: tuple[float, float]) -> QPoint:
            return QPoint(int(place[1] * size.width()), int(place[0] * size.height()))

        left = Qt.MouseButton.LeftButton
        self.bot.mouseMove(canvas, at(start))
        self.bot.mousePress(canvas, left, pos=at(start))
        for part in np.linspace(0, 1, 6)[1:]:
            place = tuple(a + (b - a) * part for a, b in zip(start, end, strict=True))
            self.bot.mouseMove(canvas, at(place))
            self.bot.wait(20)
        self.bot.mouseRelease(canvas, left, pos=at(end))
        self.bot.wait(50)

    def paint(self, label: int) -> np.ndarray:
        """Paint a stroke through the middle; return which pixels changed."""
        layer = self.labels()
        before = layer.data.copy()
        self.viewer.layers.selection.active = layer
        layer.mode = "paint"
        layer.selected_label = label
        layer.brush_size = 4
        self.drag((0.48, 0.48), (0.53, 0.53))
        layer.mode = "pan_zoom"
        changed = layer.data != before
        assert changed.any(), "the stroke changed nothing"
        return changed


@pytest.fixture
def panel(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Panel]:
    """Return the annotator, docked in a napari window that is shown."""
    from napari_ovam._qt.annotator import AnnotatorWidget

    monkeypatch.setenv("HOME", str(tmp_path))
    viewer = make_napari_viewer(show=True)
    widget = AnnotatorWidget(viewer)
    viewer.window.add_dock_widget(widget, name="OVAM annotator", area="right")
    viewer.window._qt_window.resize(1400, 900)
    made = Panel(widget, viewer, qtbot)
    model = made.find("model")
    assert isinstance(model, QComboBox)
    model.setCurrentText(str(model_folder))
    qtbot.waitExposed(viewer.window._qt_window)
    yield made
    widget.session.close()
