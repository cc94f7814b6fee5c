"""What keys and the eye reach: the order of Tab, where it is, and scrolling there."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QPoint, QRect, QRectF, Qt, QTimer
from qtpy.QtGui import QPainter, QPen
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qtpy.QtCore import QObject
    from qtpy.QtGui import QPaintEvent

_MOST = 1000  # widgets that are gone past


class TabReached(QWidget):
    """A dock in which a line is around what Tab went to; napari's themes show none."""

    def __init__(self) -> None:
        super().__init__()
        self._line = _Line(self)
        app: Any = QApplication.instance()
        app.focusChanged.connect(self._line.leave)

    def focusNextPrevChild(self, next: bool) -> bool:
        """Go to another widget that is seen, and show which."""
        for _ in range(_MOST):
            done = super().focusNextPrevChild(next)
            there = QApplication.focusWidget()
            if not done or there is None or not self.isAncestorOf(there):
                return done
            if not _is_folded(there):
                self._line.surround(there)
                return done
        return False


class _Line(QWidget):
    """A line in the colour of the text, on the border of a widget that it follows."""

    def __init__(self, dock: QWidget) -> None:
        super().__init__(dock)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hide()
        self._dock = dock
        self._widget: QWidget | None = None
        self._timer = QTimer(self)  # once a layout is made
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._place)

    def surround(self, widget: QWidget) -> None:
        """Lie around a widget until something else has the focus."""
        self._widget = widget
        area = _scroll_area(widget)
        inside: Any = self._dock if area is None else area.widget()
        self.setParent(inside)
        for each in (widget, inside):
            each.installEventFilter(self)
        self._place()

    def leave(self, _old: object, now: QWidget | None) -> None:
        """Go away when the focus does."""
        if self._widget is not None and now is not self._widget:
            inside, widget = self.parentWidget(), self._widget
            self._widget = None
            self.hide()
            with suppress(RuntimeError):  # such as a row that was made anew
                for each in (inside, widget):
                    if each is not None:
                        each.removeEventFilter(self)

    def eventFilter(self, _watched: QObject | None, event: QEvent | None) -> bool:
        kinds = (QEvent.Type.Resize, QEvent.Type.Move, QEvent.Type.LayoutRequest)
        if event is not None and event.type() in kinds:
            self._timer.start(0)
        return False

    def _place(self) -> None:
        widget, inside = self._widget, self.parentWidget()
        if widget is not None and inside is not None:
            at = widget.mapTo(inside, QPoint(0, 0))
            self.setGeometry(QRect(at, widget.size()))
            self.setVisible(widget.isVisible())
            self.raise_()

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().color(self.foregroundRole()), 2))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 3, 3)


def _is_folded(widget: QWidget) -> bool:
    """Whether a widget is in a fold that is shut, which has no height then."""
    above: Any = widget
    while above is not None and above.height() > 0:
        above = None if above.isWindow() else above.parentWidget()
    return above is not None


def _scroll_area(widget: QWidget) -> QScrollArea | None:
    """Return what scrolls a widget; None where nothing does."""
    above: Any = widget.parentWidget()
    while above is not None and not isinstance(above, QScrollArea):
        above = above.parentWidget()
    return above if isinstance(above, QScrollArea) else None


def tab_before(widget: QWidget, several: Iterable[QWidget]) -> None:
    """Have Tab go through some widgets, made later than others, before another."""
    tab = Qt.FocusPolicy.TabFocus
    inserted = [each for each in several if each.focusPolicy() & tab == tab]
    before = widget.previousInFocusChain()
    while before is not None and (
        before in inserted or before.focusPolicy() & tab != tab
    ):
        before = before.previousInFocusChain()
    for each in inserted:
        QWidget.setTabOrder(before, each)
        before = each


def reveal(widget: QWidget) -> None:
    """Show a widget, and scroll to it where it would be out of sight."""
    widget.show()
    if (area := _scroll_area(widget)) is not None:
        later = QTimer(widget)  # once it has its place
        later.setSingleShot(True)
        later.timeout.connect(partial(area.ensureWidgetVisible, widget))
        later.start(0)
