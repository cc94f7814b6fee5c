"""What the sections of the panel share: session, layout, status line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from magicgui.widgets import CheckBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WIDTH = 360
COLOURS = {"info": "", "warning": "color: #d9a300;", "error": "color: #ff6b5e;"}


class Speaker(Protocol):
    """What a status line shows: a session."""

    said: Any
    job_changed: Any
    progressed: Any
    asked: Any

    @property
    def message(self) -> tuple[str, str]:
        """The last sentence, and its kind."""

    @property
    def busy(self) -> bool:
        """Whether a long task runs."""

    def cancel(self) -> None:
        """Ask it to stop."""


class StatusLine(QWidget):
    """What can be done next, or what is running, with progress and Cancel."""

    def __init__(self, session: Speaker) -> None:
        super().__init__()
        self._session = session
        self._since = 0.0
        self.setObjectName("status_line")
        self.text = QLabel()
        self.text.setObjectName("status_text")
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setMinimumHeight(4 * self.text.fontMetrics().lineSpacing())
        self.text.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.text.setSizePolicy(
            QSizePolicy.Policy.Ignored, QSizePolicy.Policy.MinimumExpanding
        )
        self.bar = QProgressBar()
        self.bar.setObjectName("progress_bar")
        self.cancel = button("Cancel", "cancel_button", session.cancel)
        row = QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addLayout(row)
        for widget in (self.bar, self.cancel):
            policy = widget.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            widget.setSizePolicy(policy)
        listen(self, session.said, self._show)
        listen(self, session.job_changed, self._show_job)
        listen(self, session.progressed, self._show_progress)
        self._show(*session.message)
        self._show_job()

    def _show(self, text: str, kind: str) -> None:
        self.text.setStyleSheet(COLOURS[kind])
        self.text.setText(text)
        self.text.setToolTip(text)

    def _show_job(self) -> None:
        self.bar.setVisible(self._session.busy)
        self.cancel.setVisible(self._session.busy)
        self._show_progress(0, 0)

    def _show_progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0 or total == 0:
            self._since = now
        # A bar draws itself, and with it the whole window, at once: let it wait.
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, total)  # 0, 0 shows that it works, not how far it is
        self.bar.setValue(done)
        left = ""
        if 0 < done < total:
            seconds = (now - self._since) / done * (total - done)
            left = f", {duration(seconds)} left"
        self.bar.setFormat(f"{done}/{total}{left}" if total else "")
        self.bar.setUpdatesEnabled(True)


class Section(QWidget):
    """One section of the panel.

    Parameters
    ----------
    session
        What it shows, and asks for changes.
    """

    title: ClassVar[str] = ""
    session: Any  # a session; each section says so for its own

    def __init__(self, session: Speaker) -> None:
        super().__init__()
        self.session = session
        self.box = QVBoxLayout(self)
        self.box.setContentsMargins(4, 2, 4, 4)
        self.box.setSpacing(4)
        self.build()

    def build(self) -> None:
        """Make the widgets and connect them to the session."""
        raise NotImplementedError

    def at_key(self, name: str, call: Callable[[], Any]) -> None:
        """Do what a key asks for by name, with the values of this section."""
        listen(
            self, self.session.asked, lambda asked: call() if asked == name else None
        )

    def row(self, *widgets: QWidget, stretch: int = 0) -> QHBoxLayout:
        """Add widgets side by side; the one at index `stretch` takes the room."""
        row = QHBoxLayout()
        row.setSpacing(4)
        for index, widget in enumerate(widgets):
            row.addWidget(widget, 1 if index == stretch else 0)
        self.box.addLayout(row)
        return row


class More(QWidget):
    """Advanced settings behind a small fold."""

    def __init__(self, content: QWidget, text: str = "more") -> None:
        super().__init__()
        self._fold = QToolButton()
        self._fold.setText(text)
        self._fold.setObjectName("more_button")
        self._fold.setCheckable(True)
        self._fold.setAutoRaise(True)
        self._fold.setArrowType(Qt.ArrowType.RightArrow)
        self._fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._content = content
        content.setVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._fold)
        layout.addWidget(content)
        self._fold.toggled.connect(self._toggle)

    def _toggle(self, opened: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow
        self._fold.setArrowType(arrow)
        self._content.setVisible(opened)


def button(
    text: str, name: str, clicked: Callable[[], Any], tip: str = ""
) -> QPushButton:
    """Return a push button with an object name."""
    made = QPushButton(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.clicked.connect(lambda *_: clicked())
    return made


def small_button(
    text: str, name: str, clicked: Callable[[], Any], tip: str
) -> QToolButton:
    """Return a button as wide as its one character."""
    made = QToolButton()
    made.setText(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.clicked.connect(lambda *_: clicked())
    return made


def listen(widget: QWidget, signal: Any, slot: Callable[..., Any]) -> None:
    """Connect a signal of the session for as long as the widget lives."""
    signal.connect(slot)
    widget.destroyed.connect(lambda *_: signal.disconnect(slot, missing_ok=True))


def form(*rows: Any) -> QWidget:
    """Return magicgui fields under one another, each with its name in Qt.

    A row is a field, or a field and the Qt widget beside it.
    """
    holder = QWidget()
    layout = QFormLayout(holder)
    layout.setContentsMargins(4, 0, 0, 0)
    layout.setSpacing(3)
    for row in rows:
        field, *beside = row if isinstance(row, tuple) else (row,)
        field.native.setObjectName(field.name)
        line = QHBoxLayout()
        line.addWidget(field.native, 1)
        for widget in beside:
            line.addWidget(widget)
        layout.addRow("" if isinstance(field, CheckBox) else field.label, line)
    return holder


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def clear(layout: Any) -> None:
    """Remove and delete every widget of a layout."""
    while layout.count():
        item = layout.takeAt(0)
        widget = item.widget()
        if widget is not None:
            widget.setParent(None)
            widget.deleteLater()
        elif item.layout() is not None:
            clear(item.layout())


def short(text: str, length: int) -> str:
    """Return a text that is cut to a length."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
