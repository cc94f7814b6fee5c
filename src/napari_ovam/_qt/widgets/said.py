"""What the session says, in one line, for docks that may be open without the panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel, QSizePolicy

from .section import COLOURS, Speaker, StatusLine, listen

if TYPE_CHECKING:
    from qtpy.QtGui import QResizeEvent


class SaidLine(QLabel):
    """The last sentence of the session; hidden where a status line is in the window.

    Parameters
    ----------
    session
        The session.
    """

    def __init__(self, session: Speaker) -> None:
        super().__init__()
        self.setObjectName("said_line")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        listen(self, session.said, self._show)
        start = QTimer(self)  # once it is in a window
        start.setSingleShot(True)
        start.timeout.connect(lambda: self._show(*session.message))
        start.start(0)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Cut the sentence where the room ends; the tooltip holds it whole."""
        super().resizeEvent(event)
        self._cut()

    def _show(self, text: str, kind: str) -> None:
        window = self.window()
        there = [] if window is None else window.findChildren(StatusLine)
        self.setVisible(not any(line.isVisible() for line in there))
        self.setStyleSheet(COLOURS[kind])
        self.setToolTip(text)
        self._cut()

    def _cut(self) -> None:
        metrics, text = self.fontMetrics(), self.toolTip()
        self.setText(
            metrics.elidedText(text, Qt.TextElideMode.ElideRight, self.width())
        )
