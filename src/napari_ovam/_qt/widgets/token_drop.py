"""Tables of classes onto which tokens of the library can be dragged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtCore import QMimeData
    from qtpy.QtWidgets import QAbstractItemView

MIME = "application/x-napari-ovam-token"
"""What is dragged out of the library: the path of a token's file."""


def dragged_token(mime: QMimeData | None) -> Path | None:
    """Return the file of a token that is dragged, if one is."""
    if mime is None or not mime.hasFormat(MIME):
        return None
    return Path(bytes(mime.data(MIME).data()).decode())


def accept_tokens(
    view: QAbstractItemView,
    give: Callable[[int, Path], object],
    class_of: Callable[[int], Any],
) -> None:
    """Let tokens be dropped on the rows of a view.

    Parameters
    ----------
    view
        The view.
    give
        Called with the id of a class and the file of a token.
    class_of
        Returns the class of a row; None where there is none.
    """
    viewport = view.viewport()
    if viewport is not None:
        viewport.setAcceptDrops(True)
        viewport.installEventFilter(_Target(view, give, class_of))


class _Target(QObject):
    """Takes tokens on a class; everything else goes to the view."""

    def __init__(
        self,
        view: QAbstractItemView,
        give: Callable[[int, Path], object],
        class_of: Callable[[int], Any],
    ) -> None:
        super().__init__(view)
        self._view, self._give, self._class_of = view, give, class_of

    def eventFilter(self, _: QObject | None, event: QEvent | None) -> bool:
        kinds = (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop)
        if event is None or event.type() not in kinds:
            return False
        drag: Any = event
        token = dragged_token(drag.mimeData())
        if token is None:
            return False
        place = drag.position().toPoint()
        entry = self._class_of(self._view.indexAt(place).row())
        if event.type() != QEvent.Type.DragEnter and entry is None:
            drag.ignore()
            return True
        drag.setDropAction(Qt.DropAction.CopyAction)
        drag.accept()
        if event.type() == QEvent.Type.Drop and entry is not None:
            self._give(entry.id, token)
        return True
