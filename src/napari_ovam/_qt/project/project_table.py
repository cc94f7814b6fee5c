"""The rows of the table of samples: picture, title and status."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap

from napari_ovam._qt.widgets.section import listen
from napari_ovam._qt.widgets.thumbnails import SIZE, Thumbnails, blank

from .review import Review

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session

STATUS_COLORS = {
    "new": "#8a8f99",
    "proposed": "#4f9dde",
    "edited": "#e0a526",
    "accepted": "#4caf6d",
    "rejected": "#d9604f",
}


@cache
def dot(status: str) -> QIcon:
    """Return a dot in the colour of a status."""
    picture = QPixmap(SIZE, SIZE)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(STATUS_COLORS[status]))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawEllipse(SIZE // 4, SIZE // 4, SIZE // 2, SIZE // 2)
    painter.end()
    return QIcon(picture)


class SampleTable(QAbstractTableModel):
    """What the filter of the session lets through, as two columns.

    Attributes
    ----------
    thumbnails
        The pictures.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._projects = session.projects
        self._review = session.feature(Review)
        self._keys: list[str] = []
        self._rows: dict[str, int] = {}
        self.thumbnails = Thumbnails(self._projects.image)
        self.thumbnails.made.connect(self._row_changed)
        listen(self, session.project_changed, self.thumbnails.clear)
        listen(self, session.samples_changed, self._fill)
        listen(self, self._review.filter_changed, self._fill)
        listen(self, session.sample_changed, self._status_changed)
        self._fill()

    def key(self, row: int) -> str:
        """Return the key of a row; empty where there is none."""
        return self._keys[row] if 0 <= row < len(self._keys) else ""

    def row(self, key: str) -> int:
        """Return the row of a key; -1 where it is not shown."""
        return self._rows.get(key, -1)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many samples are shown."""
        return 0 if parent is not None and parent.isValid() else len(self._keys)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return 2: picture and title, status."""
        return 0 if parent is not None and parent.isValid() else 2

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Return what a cell shows."""
        key = self.key(index.row())
        if not key:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            if index.column() == 1:
                return self._projects.status(key)
            return self._projects.title(key)
        if role == Qt.ItemDataRole.DecorationRole:
            if index.column() == 1:
                return dot(self._projects.status(key))
            return self.thumbnails.get(key) or blank()
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._projects.title(key)
        return None

    def _fill(self) -> None:
        shown = self._review.shown()
        if shown == self._keys:
            self._all_changed()
            return
        self.beginResetModel()
        self._keys = shown
        self._rows = {key: row for row, key in enumerate(shown)}
        self.endResetModel()

    def _all_changed(self) -> None:
        if self._keys:
            last = self.index(len(self._keys) - 1, 1)
            self.dataChanged.emit(self.index(0, 0), last)

    def _status_changed(self, key: str) -> None:
        if self._review.status or self._review.unsure_first:
            self._fill()
        else:
            self._row_changed(key)

    def _row_changed(self, key: str) -> None:
        row = self.row(key)
        if row >= 0:
            self.dataChanged.emit(self.index(row, 0), self.index(row, 1))
