"""Tables of classes onto which tokens of the library can be dragged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt

from .library import dragged_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QAbstractItemView

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import ClassEntry


def accept_tokens(
    view: QAbstractItemView,
    session: Session,
    class_of: Callable[[int], ClassEntry | None],
) -> None:
    """Let tokens be dropped on the rows of a view.

    Parameters
    ----------
    view
        The view.
    session
        Gives the token to the class.
    class_of
        Returns the class of a row; None where there is none.
    """
    viewport = view.viewport()
    if viewport is not None:
        viewport.setAcceptDrops(True)
        viewport.installEventFilter(_Target(view, session, class_of))


class _Target(QObject):
    """Takes tokens on a class; everything else goes to the view."""

    def __init__(
        self,
        view: QAbstractItemView,
        session: Session,
        class_of: Callable[[int], ClassEntry | None],
    ) -> None:
        super().__init__(view)
        self._view, self._session, self._class_of = view, session, class_of

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
            self._session.use_token(entry.id, token)
        return True
