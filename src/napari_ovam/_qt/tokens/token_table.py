"""The rows of the token library: a picture and what a token's file says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from qtpy.QtCore import QAbstractListModel, QByteArray, QMimeData, QModelIndex, Qt
from qtpy.QtGui import QColor

from napari_ovam._qt.widgets.colors import muted
from napari_ovam._qt.widgets.section import listen
from napari_ovam._qt.widgets.thumbnails import Thumbnails, blank
from napari_ovam._qt.widgets.token_drop import MIME

from .library import Library

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_ovam._qt.session.session import Session
    from napari_ovam.project.token_library.entry import TokenEntry

PREVIEW = (96, 48)
"""Width and height of a picture in pixels: image and map side by side."""


class TokenTable(QAbstractListModel):
    """The tokens of the library that the filter lets through.

    Attributes
    ----------
    thumbnails
        The previews.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._library, self._viewer = session.feature(Library), session.viewer
        self._entries: list[TokenEntry] = []
        self.thumbnails = Thumbnails(_preview, PREVIEW)
        self.thumbnails.made.connect(lambda _: self._redraw())
        listen(self, self._library.changed, self._fill)
        self._fill()

    def entry(self, row: int) -> TokenEntry:
        """Return the token of a row."""
        return self._entries[row]

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many tokens are shown."""
        return 0 if parent is not None and parent.isValid() else len(self._entries)

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Return what a row shows."""
        if not 0 <= index.row() < len(self._entries):
            return None
        entry = self._entries[index.row()]
        why = self._library.why_not(entry)
        if role == Qt.ItemDataRole.DisplayRole:
            return described(entry, why, known=self._library.model)
        if role == Qt.ItemDataRole.DecorationRole:
            picture = entry.preview and self.thumbnails.get(_key(entry))
            return picture or blank(*PREVIEW)
        if role == Qt.ItemDataRole.ForegroundRole and why:
            return QColor(*muted(self._viewer.theme))
        if role == Qt.ItemDataRole.ToolTipRole:
            text = f"{entry.path.name}\ntext encoder: {entry.model or 'unknown'}"
            return f"{text}\n{why}" if why else text
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Let tokens that fit the model be dragged."""
        found = super().flags(index)
        if index.isValid() and not self._library.why_not(self.entry(index.row())):
            found |= Qt.ItemFlag.ItemIsDragEnabled
        return found

    def mimeTypes(self) -> list[str]:
        """Return what is dragged."""
        return [MIME]

    def mimeData(self, indexes: Iterable[QModelIndex]) -> QMimeData:
        """Return the file of the first token that is dragged."""
        made = QMimeData()
        for index in indexes:
            made.setData(MIME, QByteArray(str(self.entry(index.row()).path).encode()))
            break
        return made

    def _fill(self) -> None:
        if self._library.entries == self._entries:
            self._redraw()
            return
        self.beginResetModel()
        self._entries = list(self._library.entries)
        self.endResetModel()

    def _redraw(self) -> None:
        if self._entries:
            last = self.index(len(self._entries) - 1, 0)
            self.dataChanged.emit(self.index(0, 0), last)


def described(entry: TokenEntry, why: str, *, known: str) -> str:
    """Return what is said of a token, in three lines.

    Parameters
    ----------
    entry
        The token.
    why
        Why it cannot be used; empty if it can.
    known
        Hash of the model in use; empty if unknown.
    """
    first = entry.path.stem
    if entry.name != first:
        first += f" ({entry.name})"
    if entry.iou is not None:
        first += f" · IoU {entry.iou:.2f}"
    if entry.damaged:
        return f"{first}\n{why}"
    second = []
    if entry.phrase:
        second.append(f"“{entry.phrase}”")
    if entry.images:
        second.append(f"{entry.images} image{'s' * (entry.images != 1)}")
    if entry.date:
        second.append(entry.date[:10])
    model = f"model {entry.model[:8]}" if entry.model else "model unknown"
    if known and entry.model == known:
        model = "this model"
    return f"{first}\n{' · '.join(second)}\n{why or model}"


def _key(entry: TokenEntry) -> str:
    """Return a key for a preview that changes with the file behind it."""
    return str(entry.path.with_suffix(".png"))


def _preview(key: str) -> NDArray[np.uint8]:
    """Read a preview; in a thread."""
    with Image.open(Path(key)) as picture:
        return np.asarray(picture.convert("RGB"))
