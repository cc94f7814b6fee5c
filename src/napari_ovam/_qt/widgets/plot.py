"""A small live plot of a loss."""

from __future__ import annotations

from qtpy.QtCore import QPointF
from qtpy.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QWidget


class LossPlot(QWidget):
    """A line of the values so far, with the first and the lowest written beside.

    It is seen once there is one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("loss_plot")
        self.setFixedHeight(48)
        self.setToolTip("The loss of the optimization, step by step")
        self.points: list[tuple[int, float]] = []
        self.hide()

    def clear(self) -> None:
        """Start anew."""
        self.points = []
        self.update()

    def add(self, step: int, loss: float) -> None:
        """Add a value."""
        self.points.append((step, loss))
        self.show()
        self.update()

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        """Draw the line."""
        painter = QPainter(self)
        self._draw(painter)
        painter.end()

    def _draw(self, painter: QPainter) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colour = self.palette().windowText().color()
        area = self.rect().adjusted(4, 4, -4, -4)
        faint = QPen(colour)
        faint.setWidthF(0.4)
        painter.setPen(faint)
        painter.drawRect(area)
        if not self.points:
            return
        losses = [loss for _, loss in self.points]
        low, high = min(losses), max(losses)
        last = max(1, self.points[-1][0])
        line = QPolygonF(
            [
                QPointF(
                    area.left() + area.width() * step / last,
                    area.bottom() - area.height() * (loss - low) / ((high - low) or 1),
                )
                for step, loss in self.points
            ]
        )
        pen = QPen(colour)
        pen.setWidthF(1.5)
        painter.setPen(pen)
        painter.drawPolyline(line)
        text = f"{high:.3g} → {low:.3g}"
        painter.drawText(area.adjusted(0, 0, -4, 0), 0x22, text)  # top right
