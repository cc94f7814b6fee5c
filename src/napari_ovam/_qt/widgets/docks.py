"""Docks in napari's window: found, shown, and put below the image."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

NAMES = {
    "OVAM annotator": "ovam_annotator",
    "OVAM project": "ovam_project",
    "OVAM token library": "ovam_tokens",
}
"""Widgets of the manifest, and their names in Qt."""


def show_dock(viewer: Any, name: str) -> None:
    """Dock a widget of the manifest in a viewer's window, unless it is there."""
    window = viewer.window
    there = window._qt_window.findChild(QWidget, NAMES[name])
    if there is None:
        window.add_plugin_dock_widget("napari-ovam", name)
        return
    dock = dock_of(there)
    if dock is not None:
        dock.show()
        dock.raise_()


def dock_of(widget: QWidget) -> QDockWidget | None:
    """Return the dock that a widget is in."""
    parent: Any = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    found: QDockWidget | None = parent
    return found


def place_below(widget: QWidget) -> None:
    """Dock a widget below the image, where it leaves the panel its height."""
    dock = dock_of(widget)
    window = None if dock is None or dock.isFloating() else dock.parent()
    if dock is None or not isinstance(window, QMainWindow):
        return
    for corner, area in (
        (Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea),
        (Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea),
    ):
        window.setCorner(corner, area)
    window.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, dock)
    window.resizeDocks([dock], [window.height() // 3], Qt.Orientation.Vertical)
