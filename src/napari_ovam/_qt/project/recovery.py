"""Offers the work of an earlier start that was never put anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_ovam._qt.session.background import Background
from napari_ovam._qt.widgets.row import Row
from napari_ovam._qt.widgets.section import button, listen
from napari_ovam.project.scratch import clean, count_images, mark_done, unfinished

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ovam._qt.session.session import Session


class RecoveryBar(QWidget):
    """One unfinished scratch project at a time: open it, or do not ask again."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.setObjectName("recovery")
        self._session = session
        self._found: list[tuple[Path, int]] = []
        self.text = QLabel()
        self.text.setObjectName("recovery_text")
        self.text.setWordWrap(True)
        self.open_button = button(
            "Open it",
            "recover_button",
            self._open,
            "Go on with it; what is in this window is kept as well",
        )
        self.forget_button = button(
            "Do not ask again",
            "forget_button",
            self._forget,
            "Its files stay for a month",
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 2)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addWidget(Row(self.open_button, self.forget_button))
        self.hide()
        listen(self, session.job_changed, self._show)
        listen(self, session.project_changed, self._look)
        self._search = Background(session, "Looking for unsaved work", lambda _: None)
        self._look()

    def _look(self) -> None:
        """Look, also when the work of this window was put away for a project."""
        work = (lambda _: _find_unfinished()), self._offer
        self._search.ask("unfinished", lambda: work)

    def _offer(self, found: list[tuple[Path, int]]) -> None:
        self._found = found
        self._show()

    def _show(self) -> None:
        self.setVisible(bool(self._found))
        if self._found:
            path, count = self._found[0]
            day, _, rest = path.name[:17].rpartition("-")
            when = f"{day} {rest[:2]}:{rest[2:4]}" if rest[:4].isdigit() else path.name
            images = f"{count} image{'s' * (count != 1)}"
            self.text.setText(f"Unsaved work of {when}: {images}.")
            self.text.setToolTip(str(path))
        for each in (self.open_button, self.forget_button):
            each.setEnabled(not self._session.busy)

    def _open(self) -> None:
        if self._found and not self._session.refused():
            path, _ = self._found.pop(0)
            self._session.projects.open(path)
            self._show()

    def _forget(self) -> None:
        if self._found:
            path, _ = self._found.pop(0)
            try:
                mark_done(path)
            except OSError as error:
                self._session.complain(error)
            self._show()


def _find_unfinished() -> list[tuple[Path, int]]:
    """Return unfinished scratch projects and how many images they have.

    Those that were finished a month ago are deleted, as nothing else would do so.
    """
    clean()
    return [(path, count_images(path)) for path in unfinished()]
