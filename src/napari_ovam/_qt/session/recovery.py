"""Offers the work of an earlier start that was never put anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_ovam._qt.widgets.section import Row, button, listen
from napari_ovam.project.scratch import mark_done

from .saving import find_unfinished
from .worker import Job

if TYPE_CHECKING:
    from pathlib import Path

    from .session import Session


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
            "Open it", "recover_button", self._open, "Add its images to this window"
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
        listen(self, session.projects.changed, self._look)
        self._opened = session.projects.opened
        self._look_now()

    def _look(self) -> None:
        """Look again when the work of this window was put away for a project."""
        if self._session.projects.opened is not self._opened:
            self._opened = self._session.projects.opened
            self._look_now()

    def _look_now(self) -> None:
        self._search = Job(lambda _: find_unfinished(), "Looking for unsaved work")
        self._search.returned.connect(self._offer)
        self._search.errored.connect(lambda _: None)  # nothing to offer
        self._search.start()

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
            self._session.saving.recover(path)
            self._show()

    def _forget(self) -> None:
        if self._found:
            path, _ = self._found.pop(0)
            try:
                mark_done(path)
            except OSError as error:
                self._session.complain(error)
            self._show()
