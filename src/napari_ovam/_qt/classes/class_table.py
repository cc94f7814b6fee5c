"""The rows of the class table: a model, so that 1,000 classes stay usable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtGui import QBrush, QColor, QFont

from napari_ovam._qt.widgets.colors import text_on
from napari_ovam._qt.widgets.section import listen

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam.datasets.project_class import ProjectClass

ID, NAME, PHRASE, THRESHOLD, TOKEN, KEY = range(6)
_HEADERS = ("id", "name", "phrase", "threshold", "token", "key")
_TIPS = (
    "The value of its pixels, which never changes; double-click for another colour",
    "As exported; double-click to change it",
    "What is looked for; ticked where it is among the phrases under Maps",
    "Of the map, 0 to 1; “auto” is each map's own",
    "Whether a phrase or an optimized token makes the map",
    "1 to 9: chooses the class for painting",
)
AUTO = "auto"


class ClassModel(QAbstractTableModel):
    """The classes that the filter lets through, one a row.

    Attributes
    ----------
    present
        Ids in the image that is shown.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._ids: list[int] = []
        self._text = ""
        self._only_present = False
        self.present: frozenset[int] = frozenset()
        listen(self, session.classes_changed, self.refresh)
        self.refresh()

    def entry(self, row: int) -> ProjectClass | None:
        """Return the class of a row."""
        if not 0 <= row < len(self._ids):
            return None
        return self._session.classes.get(self._ids[row])

    def row(self, number: int) -> int:
        """Return the row of a class; -1 where it is not shown."""
        return self._ids.index(number) if number in self._ids else -1

    def set_filter(self, text: str, only_present: bool) -> None:
        """Show classes with a text in name, phrase or id, of this image or of all."""
        self._text, self._only_present = text.strip().casefold(), only_present
        self.refresh()

    def set_present(self, present: frozenset[int]) -> None:
        """Say which classes the image holds."""
        if present != self.present:
            self.present = present
            self.refresh()

    def refresh(self) -> None:
        """Show the classes as they are now."""
        shown = [entry.id for entry in self._session.classes if self._matches(entry)]
        if shown != self._ids:
            self.beginResetModel()
            self._ids = shown
            self.endResetModel()
        elif shown:
            last = self.index(len(shown) - 1, KEY)
            self.dataChanged.emit(self.index(0, 0), last)

    def _matches(self, entry: ProjectClass) -> bool:
        if self._only_present and entry.id not in self.present:
            return False
        texts = (entry.name.casefold(), entry.phrase.casefold(), str(entry.id))
        return not self._text or any(self._text in text for text in texts)

    # -- Qt ------------------------------------------------------------------------

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many classes are shown."""
        return 0 if parent is not None and parent.isValid() else len(self._ids)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many columns there are."""
        return 0 if parent is not None and parent.isValid() else len(_HEADERS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = 0
    ) -> Any:
        """Return the name of a column, and what it means."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return _HEADERS[section]
        return _TIPS[section] if role == Qt.ItemDataRole.ToolTipRole else None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return whether a cell can be edited or ticked."""
        flags = super().flags(index)
        if index.column() in (NAME, PHRASE, THRESHOLD, KEY):
            flags |= Qt.ItemFlag.ItemIsEditable
        if index.column() == PHRASE:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Return what a cell shows."""
        entry = self.entry(index.row())
        if entry is None:
            return None
        column = index.column()
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return self._cell(entry, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            text = self._cell(entry, column)
            tip = _tip(entry) if column == NAME else _TIPS[column]
            if column == TOKEN and (figures := self._session.figures(entry.id)):
                tip = f"{figures} (IoU)\n{tip}"
            return f"{text}\n{tip}" if column in (NAME, PHRASE) else tip
        if role == Qt.ItemDataRole.CheckStateRole and column == PHRASE:
            state = Qt.CheckState
            return state.Checked if entry.active else state.Unchecked
        if column == ID and role == Qt.ItemDataRole.BackgroundRole:
            return QBrush(QColor(*entry.color))
        if column == ID and role == Qt.ItemDataRole.ForegroundRole:
            return QBrush(QColor(text_on(entry.color)))
        if role == Qt.ItemDataRole.FontRole and entry.id in self.present:
            font = QFont()
            font.setBold(column == NAME)
            return font
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = 0) -> bool:
        """Change a class as a person typed; the session says why it does not."""
        entry = self.entry(index.row())
        if entry is None:
            return False
        column, changes = index.column(), self._session.class_changes
        if role == Qt.ItemDataRole.CheckStateRole and column == PHRASE:
            changes.look_for([entry.id], Qt.CheckState(value) == Qt.CheckState.Checked)
            return True
        text = str(value).strip()
        if role != Qt.ItemDataRole.EditRole or text == self._cell(entry, column):
            return False
        if column == NAME:
            return changes.change(entry.id, name=text)
        if column == PHRASE:
            return changes.change(entry.id, phrase=text)
        if column == KEY:
            return changes.change(entry.id, key=text or None)
        if column == THRESHOLD:
            return self._set_threshold(entry, text)
        return False

    def _set_threshold(self, entry: ProjectClass, text: str) -> bool:
        if text.casefold() in ("", AUTO):
            return self._limit(entry.id, None)
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            self._session.complain(
                f"{text!r} is no threshold: give 0 to 1, or “{AUTO}”"
            )
            return False
        return self._limit(entry.id, value)

    def _limit(self, number: int, value: float | None) -> bool:
        done = self._session.class_changes.set_threshold(number, value)
        self._session.classes_changed.emit()
        return done

    def _cell(self, entry: ProjectClass, column: int) -> str:
        if column == TOKEN:
            there = self._session.view(entry.id).token is not None
            return ("on" if entry.source == "token" else "off") if there else "–"
        return _text(entry, column)


def _text(entry: ProjectClass, column: int) -> str:
    if column == ID:
        return str(entry.id)
    if column == NAME:
        return entry.name
    if column == PHRASE:
        return entry.phrase
    if column == THRESHOLD:
        return AUTO if entry.threshold is None else f"{entry.threshold:.2f}"
    return entry.key or ""


def _tip(entry: ProjectClass) -> str:
    kind = "its parts are objects" if entry.thing else "one region, not objects"
    return f"Class {entry.id}; {kind}"
