"""Widgets side by side, in as many lines as the width needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QResizeEvent

_SHOWN = 8  # characters of what takes the room of a row, before it is broken


class Row(QWidget):
    """Widgets side by side, in as many lines as the width needs.

    Parameters
    ----------
    widgets
        From left to right.
    stretch
        The index of the one that takes the room; the others share it where None does.
    """

    def __init__(self, *widgets: QWidget, stretch: int | None = 0) -> None:
        super().__init__()
        self._widgets = widgets
        self._wide = None if stretch is None else widgets[stretch]
        self._lines: list[list[QWidget]] = []
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.setSpacing(4)
        self._arrange([list(widgets)])

    def minimumSizeHint(self) -> QSize:
        """Return the width of the widest alone, and the height of what is shown."""
        shown = [w.minimumSizeHint().width() for w in self._widgets if not w.isHidden()]
        return QSize(max(shown, default=0), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Break the line where the room ends."""
        super().resizeEvent(event)
        self._fit()

    def event(self, event: QEvent | None) -> bool:
        """Fit anew when a widget is shown, hidden, or says more."""
        done = super().event(event)
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self._fit()
        return done

    def _fit(self) -> None:
        lines: list[list[QWidget]] = [[]]
        used = 0
        for widget in self._widgets:
            if widget.isHidden():
                lines[-1].append(widget)
                continue
            wanted = self._wanted(widget) + self._box.spacing()
            if used and used + wanted > self.width() + self._box.spacing():
                lines.append([])
                used = 0
            lines[-1].append(widget)
            used += wanted
        if lines != self._lines:
            self._arrange(lines)

    def _wanted(self, widget: QWidget) -> int:
        if widget is not self._wide:
            return widget.sizeHint().width()
        letters = _SHOWN * widget.fontMetrics().averageCharWidth()
        return max(letters, widget.minimumSizeHint().width())

    def _arrange(self, lines: list[list[QWidget]]) -> None:
        self._lines = lines
        while self._box.count():
            self._box.takeAt(0)
        for line in lines:
            row = QHBoxLayout()
            row.setSpacing(self._box.spacing())
            for widget in line:
                row.addWidget(widget, int(widget is self._wide))
            self._box.addLayout(row)
