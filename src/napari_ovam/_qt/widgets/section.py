"""What the sections of the panel and the docks share: rows, folds, status line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible
from superqt.utils import QSignalDebouncer

from .row import Row
from .text import ElidedComboBox, Message, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qtpy.QtCore import QObject
    from qtpy.QtGui import QAction

    from napari_ovam._qt.session.jobs import JobRunner, Kind
    from napari_ovam._qt.session.session import Session

_NO_LIMIT = 16_777_215  # Qt's own maximum of a height


class Progress(QWidget):
    """How far a job is, and Cancel; there as long as one runs.

    Parameters
    ----------
    runner
        Whose jobs they are.
    bar, cancel
        Object names.
    text
        Returns what the bar says; called with what is done and the total, which is 0
        where it is not known.
    """

    def __init__(
        self,
        runner: JobRunner,
        bar: str,
        cancel: str,
        text: Callable[[int, int], str],
    ) -> None:
        super().__init__()
        self._runner, self._text = runner, text
        self.bar = QProgressBar()
        self.bar.setObjectName(bar)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar, 1)
        layout.addWidget(button("Cancel", cancel, runner.cancel))
        listen(self, runner.job_changed, self._show_job)
        listen(self, runner.progressed, self._show)
        self._show_job()

    def _show_job(self) -> None:
        self.setVisible(self._runner.busy)
        self._show(0, 0)

    def _show(self, done: int, total: int) -> None:
        # A bar draws itself, and with it the whole window, at once: let it wait.
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, total)  # 0, 0 shows that it works, not how far it is
        self.bar.setValue(done)
        text, elide = self._text(done, total), Qt.TextElideMode.ElideMiddle
        metrics, room = self.bar.fontMetrics(), self.bar.width()
        self.bar.setFormat(metrics.elidedText(text, elide, room))
        self.bar.setToolTip(text)
        self.bar.setUpdatesEnabled(True)


class StatusLine(QWidget):
    """What can be done next, or what is running, with progress and Cancel."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._since = 0.0
        self.setObjectName("status_line")
        self.text = Message(session.viewer, "status_text", lines=4)
        progress = Progress(session, "progress_bar", "cancel_button", self._progress)
        policy = progress.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        progress.setSizePolicy(policy)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addWidget(progress)
        listen(self, session.said, self.text.say)
        self.text.say(*session.message)

    def _progress(self, done: int, total: int) -> str:
        now = time.monotonic()
        if done == 0 or total == 0:
            self._since = now
        left = ""
        if 0 < done < total:
            seconds = (now - self._since) / done * (total - done)
            left = f", {duration(seconds)} left"
        return f"{done}/{total}{left}" if total else ""


class SaidLine(Message):
    """What the session says, for docks; hidden where a status line is seen.

    Parameters
    ----------
    session
        The session.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session.viewer, "said_line", lines=2)
        listen(self, session.said, self._show)
        start = QTimer(self)  # once it is in a window
        start.setSingleShot(True)
        start.timeout.connect(lambda: self._show(*session.message))
        start.start(0)

    def _show(self, text: str, kind: Kind) -> None:
        window = self.window()
        there = [] if window is None else window.findChildren(StatusLine)
        self.setVisible(not any(line.isVisible() for line in there))
        self.say(text, kind)


class Section(QWidget):
    """One section of the panel.

    Parameters
    ----------
    session
        What it shows, and asks for changes.
    """

    title: ClassVar[str] = ""

    def __init__(self, session: Session) -> None:
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

    def row(self, *widgets: QWidget, stretch: int | None = 0) -> None:
        """Add widgets side by side; see `Row`."""
        self.box.addWidget(Row(*widgets, stretch=stretch))

    def grid(self, *stretch: int) -> QGridLayout:
        """Add a table of widgets, with the share of the width of each column."""
        made = QGridLayout()
        made.setHorizontalSpacing(4)
        made.setVerticalSpacing(2)
        for column, share in enumerate(stretch):
            made.setColumnStretch(column, share)
        self.box.addLayout(made)
        return made


def fold(
    text: str, content: QWidget, name: str, *, opened: bool = False
) -> QCollapsible:
    """Return a title that shows and hides what is below it: ▸ folded, ▾ open."""
    blank = QPixmap(1, 1)  # the title says it; superqt refuses PySide's empty icons
    blank.fill(Qt.GlobalColor.transparent)
    made = QCollapsible(text, expandedIcon=QIcon(blank), collapsedIcon=QIcon(blank))
    made.toggleButton().setIconSize(QSize(1, 1))
    made.setObjectName(name)
    made.setDuration(0)  # no animation: the form can be used at once
    layout: Any = made.layout()
    layout.setContentsMargins(2, 0, 2, 0)
    layout.setSpacing(0)
    # As the content itself, and not in it: a fold holds its content to the height
    # that it had, and a section grows with its classes and settings.
    made.setContent(content)

    def show(opened: bool) -> None:
        made.setText(f"{'▾' if opened else '▸'}  {text}")
        content.setMaximumHeight(_NO_LIMIT if opened else 0)

    made.toggled.connect(show)
    (made.expand if opened else made.collapse)(animate=False)
    return made


def more(content: QWidget, text: str = "more") -> QCollapsible:
    """Return advanced settings behind a small fold."""
    made = fold(text, content, "more")
    content.setVisible(False)
    made.toggled.connect(content.setVisible)
    title = made.toggleButton()
    title.setObjectName("more_button")
    title.setStyleSheet("text-align: left; border: none; background: transparent;")
    return made


def chooser(
    name: str, tip: str, items: Iterable[str] = (), *, shown: int = 6
) -> QComboBox:
    """Return a combo box that shows some characters; its tooltips hold all of them."""
    made = ElidedComboBox()
    made.setObjectName(name)
    made.setToolTip(tip)

    def explain(_parent: Any, first: int, last: int) -> None:
        for row in range(first, last + 1):
            made.setItemData(row, made.itemText(row), Qt.ItemDataRole.ToolTipRole)

    model: Any = made.model()
    model.rowsInserted.connect(explain)
    made.currentTextChanged.connect(lambda text: made.setToolTip(f"{text}\n{tip}"))
    made.addItems(list(items))
    _shorten(made, shown)
    return made


def _shorten(box: QComboBox, shown: int) -> None:
    policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    box.setSizeAdjustPolicy(policy)
    box.setMinimumContentsLength(shown)


def button(
    text: str, name: str, clicked: Callable[[], Any], tip: str = ""
) -> QPushButton:
    """Return a push button with an object name."""
    made = QPushButton(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.clicked.connect(lambda *_: clicked())
    return made


def menu_button(
    text: str, name: str, fill: Callable[[QMenu], None], tip: str = ""
) -> QPushButton:
    """Return a button with a menu, which `fill` fills each time that it opens."""
    made = QPushButton(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.setStyleSheet("padding-right: 18px;")
    menu = QMenu(made)
    menu.aboutToShow.connect(menu.clear)
    menu.aboutToShow.connect(lambda: fill(menu))
    made.setMenu(menu)
    return made


def small_button(
    text: str, name: str, clicked: Callable[[], Any], tip: str
) -> QToolButton:
    """Return a button as wide as its one character."""
    made = QToolButton()
    made.setText(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.setAccessibleName(tip)
    made.clicked.connect(lambda *_: clicked())
    return made


def menu_entry(menu: QMenu, text: str, call: Callable[[], Any]) -> QAction:
    """Add an entry that calls something to a menu."""
    made: Any = menu.addAction(text.replace("&", "&&"))
    made.triggered.connect(lambda *_: call())
    entry: QAction = made
    return entry


def check_box(
    text: str,
    name: str,
    tip: str,
    clicked: Callable[[bool], Any] | None = None,
    *,
    checked: bool = False,
) -> QCheckBox:
    """Return a check box with an object name."""
    made = QCheckBox(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.setChecked(checked)
    if clicked is not None:
        made.clicked.connect(clicked)
    return made


def line_edit(name: str, placeholder: str, *, clears: bool = False) -> QLineEdit:
    """Return a line to type in, which a button `clears`."""
    made = QLineEdit()
    made.setObjectName(name)
    made.setPlaceholderText(placeholder)
    made.setClearButtonEnabled(clears)
    return made


def listen(widget: QObject, signal: Any, slot: Callable[..., Any]) -> None:
    """Connect a signal of the session for as long as the widget lives."""
    signal.connect(slot)
    widget.destroyed.connect(lambda *_: signal.disconnect(slot, missing_ok=True))


def debounced(
    parent: QObject, call: Callable[[], object], pause: int = 150
) -> Callable[..., None]:
    """Return what calls `call` once it was not asked to for `pause` milliseconds."""
    made = QSignalDebouncer(parent=parent)
    made.setTimeout(pause)
    made.triggered.connect(lambda: call())
    return lambda *_: made.throttle()


def form(*rows: Any) -> QWidget:
    """Return magicgui fields under one another, each with its name in Qt.

    A row is a field, or a field and the Qt widget beside it.
    """
    holder = QWidget()
    layout = QFormLayout(holder)
    layout.setContentsMargins(4, 0, 0, 0)
    layout.setSpacing(3)
    layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
    for row in rows:
        field, *beside = row if isinstance(row, tuple) else (row,)
        field.native.setObjectName(field.name)
        if isinstance(field.native, QComboBox):
            _shorten(field.native, 6)
        line = QHBoxLayout()
        line.addWidget(field.native, 1)
        for widget in beside:
            line.addWidget(widget)
        if isinstance(field, CheckBox):
            layout.addRow(line)
        else:
            layout.addRow(field.label, line)
    return holder


def clear(layout: Any) -> None:
    """Remove and delete every widget of a layout."""
    while layout.count():
        item = layout.takeAt(0)
        widget = item.widget()
        if widget is not None:
            widget.hide()  # else Qt may yet show it, as a window of its own
            widget.setParent(None)
            widget.deleteLater()
        elif item.layout() is not None:
            clear(item.layout())
