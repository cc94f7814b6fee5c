"""Docks in napari's window: found, shown, and put below the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDockWidget,
    QHeaderView,
    QMainWindow,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from .reach import TabReached
from .section import SaidLine

if TYPE_CHECKING:
    from qtpy.QtCore import QAbstractItemModel
    from qtpy.QtGui import QShowEvent

    from napari_ovam._qt.session.session import Session

_TALL = 1000  # pixels of a window in which two tables below the image leave it room

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


class BelowDock(TabReached):
    """A table with rows of buttons around it, which docks itself below the image.

    Parameters
    ----------
    session
        What it shows.
    name
        Object name.
    """

    def __init__(self, session: Session, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.session = session
        self._placed = False
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(4, 2, 4, 2)
        self._box.setSpacing(3)

    def stack(self, *widgets: QWidget) -> None:
        """Put widgets below one another, and what the session says at the end."""
        for widget in (*widgets, SaidLine(self.session)):
            self._box.addWidget(widget, int(isinstance(widget, QAbstractItemView)))

    def showEvent(self, event: QShowEvent | None) -> None:
        """Go below the image, where a table leaves the panel its height."""
        super().showEvent(event)
        if not self._placed:
            self._placed = True
            QTimer.singleShot(0, self.place)

    def place(self) -> None:
        """Dock below the image."""
        place_below(self)


def dress_table(
    view: QTableView, name: str, model: QAbstractItemModel, height: int
) -> QHeaderView:
    """Show a model as rows of a height that are selected whole; return its header."""
    view.setObjectName(name)
    view.setModel(model)
    view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
    view.setShowGrid(False)
    view.setWordWrap(False)
    view.setTabKeyNavigation(False)
    rows: Any = view.verticalHeader()
    rows.hide()
    rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
    rows.setDefaultSectionSize(height)
    columns: Any = view.horizontalHeader()
    return columns


def selected_rows(view: QAbstractItemView) -> list[int]:
    """Return the rows of a view that are selected, from top to bottom."""
    return sorted({index.row() for index in view.selectedIndexes()})


def select_row(view: QAbstractItemView, row: int) -> None:
    """Select a row of a view and no other, also while Shift or Ctrl is held down."""
    selection, model = view.selectionModel(), view.model()
    if selection is not None and model is not None:
        flags = selection.SelectionFlag
        alone = flags.ClearAndSelect | flags.Rows
        selection.setCurrentIndex(model.index(row, 0), alone)


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
    bottom = Qt.DockWidgetArea.BottomDockWidgetArea
    there = [
        other
        for name in NAMES.values()
        if (inner := window.findChild(BelowDock, name)) is not None
        and (other := dock_of(inner)) not in (None, dock)
        and window.dockWidgetArea(other) == bottom
    ]
    window.addDockWidget(bottom, dock)
    if there and window.height() >= _TALL:
        window.splitDockWidget(there[-1], dock, Qt.Orientation.Vertical)
    else:
        window.resizeDocks([dock], [window.height() // 3], Qt.Orientation.Vertical)
