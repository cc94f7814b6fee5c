"""The panel with the keyboard alone: where Tab goes, and that it is seen."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from project_window import Window, make_project
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QAbstractButton, QApplication, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def window(dock: Callable[..., Any], tmp_path: Path) -> Window:
    project = make_project(tmp_path / "pets")
    for entry in project.classes:
        project.classes.change(entry.id, active=True)
    project.save()
    made = dock("OVAM annotator", Window)
    made.open(project.path)
    made.viewer.window._qt_window.activateWindow()
    return made


def tab(window: Window) -> QWidget:
    """Press Tab; return what has the focus then."""
    window.bot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
    found = QApplication.focusWidget()
    assert found is not None
    return found


def test_tab_goes_down_the_panel_and_to_nothing_that_is_folded(window: Window) -> None:
    panel = window.widget
    start = window.find("prompt")
    start.setFocus()
    window.bot.waitUntil(start.hasFocus)
    names, heights = [], []
    for _ in range(100):
        there = tab(window)
        if not panel.isAncestorOf(there) or there is window.find("sample"):
            break
        names.append(there.objectName())
        content = window.find("sections").widget()
        if content.isAncestorOf(there):
            assert not there.visibleRegion().isEmpty(), names[-1]
            middle = QPoint(0, there.height() // 2)
            heights.append(there.mapTo(content, middle).y())
    for name in ("show_map_1", "threshold_2", "absent_2", "export_button"):
        assert name in names
    assert "delete_class_button" not in names  # Classes are folded
    late = [b for a, b in pairwise(heights) if b < a - 8]
    assert late == [], names


def test_what_tab_reached_is_seen(window: Window) -> None:
    window.find("map_button").setFocus()
    window.bot.waitUntil(window.find("map_button").hasFocus)
    line = window.widget._line
    assert not line.isVisible()
    for _ in range(3):
        there = tab(window)
        place = there.mapToGlobal(QPoint(0, 0))
        assert line.isVisible()
        assert line.mapToGlobal(QPoint(0, 0)) == place
        assert line.size() == there.size()
    window.session.classes_changed.emit()  # its row is made anew
    window.find("phrases").setFocus()
    window.bot.waitUntil(lambda: not line.isVisible())


def test_every_button_has_a_name(window: Window) -> None:
    for button in window.widget.findChildren(QAbstractButton):
        name = button.accessibleName() or button.text()
        shown = button.isVisibleTo(window.widget)
        assert not shown or any(c.isalpha() for c in name), button.objectName()
