"""The buttons of a project that propose labels and improve tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QLabel,
    QMenu,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_ovam._qt.session.jobs import short
from napari_ovam._qt.widgets.row import Row
from napari_ovam._qt.widgets.section import (
    Progress,
    button,
    listen,
    menu_button,
    menu_entry,
)

from .proposing import Proposing
from .review import Review

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ovam._qt.session.session import Session
    from napari_ovam.workflows.improving import Improvement, ImproveReport


_OFFERED = 6  # classes to find more of


class ProposingRow(Row):
    """Proposes labels and improves tokens; shows how far a job is, and Cancel.

    Parameters
    ----------
    session
        The session.
    selected
        Returns the keys of the samples that are selected in the table.
    """

    def __init__(self, session: Session, selected: Callable[[], list[str]]) -> None:
        self._session, self._selected = session, selected
        self._proposing = session.feature(Proposing)
        self.propose = menu_button(
            "Propose labels",
            "propose_button",
            self._fill,
            "Look for the phrases and tokens of all classes. Images that you edited, "
            "accepted or rejected are never touched",
        )
        self.improve = button(
            "Improve tokens…",
            "improve_button",
            self._proposing.improve,
            "Optimize a token for each class on the accepted images, and compare it "
            "with what the class has on images left out",
        )
        progress = Progress(
            session, "project_progress", "project_cancel_button", self._progress
        )
        super().__init__(self.propose, self.improve, progress, stretch=2)
        listen(self, session.job_changed, self._show_job)
        listen(self, self._proposing.improved, self._show_report)
        self._show_job()

    def scopes(self) -> list[tuple[str, list[str], bool]]:
        """Return what can be proposed for: text, keys, and whether it is done anew."""
        session = self._session
        current = [session.current.key] if session.current is not None else []
        chosen, every = self._selected(), session.projects.keys
        listed = session.feature(Review).shown()
        found = [
            ("This image, also anew", current, True),
            (f"Selected images ({len(chosen)})", chosen, False),
            (f"All images ({len(every)})", list(every), False),
            (f"All images, also anew ({len(every)})", list(every), True),
        ]
        if len(listed) != len(every):
            found.insert(2, (f"Images in the list ({len(listed)})", listed, False))
        return found

    def _fill(self, menu: QMenu) -> None:
        menu.setToolTipsVisible(True)
        for text, keys, redo in self.scopes():
            call = partial(self._proposing.propose, keys, redo=redo)
            entry = menu_entry(menu, text, call)
            entry.setEnabled(bool(keys))
            if redo:
                entry.setToolTip("Labels that were proposed before are made anew")
        self._fill_more(menu)

    def _fill_more(self, menu: QMenu) -> None:
        """Offer to look for more of what the image that is shown holds."""
        session, sample = self._session, self._session.current
        held = sample.edits.now.ids if sample is not None and sample.edits else ()
        entries = [entry for entry in session.classes if entry.id in held]
        if not entries:
            return
        menu.addSeparator()
        entry = menu_entry(
            menu, "Carry on to the images that follow", self._proposing.carry_on
        )
        entry.setToolTip(
            "As in a stack or film: each object is looked for near where it was"
        )
        for each in entries[:_OFFERED]:
            call = partial(self._proposing.find_more, each.id)
            entry = menu_entry(menu, f"More like this {short(each.name)}", call)
            entry.setToolTip(
                "Learn it from this image alone, and look for it in all images that "
                "are new or proposed"
            )

    def _show_job(self) -> None:
        for widget in (self.propose, self.improve):
            widget.setVisible(not self._session.busy)

    def _progress(self, done: int, total: int) -> str:
        job = self._session.job
        title = job.title if job is not None else ""
        if title == "Proposing labels" and total:
            return f"image {min(done + 1, total)} of {total}"
        return f"{title} %p%" if total else title

    def _show_report(self, report: ImproveReport) -> None:
        ImprovedTokens(self._session, report, self.window()).show()


class ImprovedTokens(QDialog):
    """What new tokens are worth, class by class; nothing is changed without it.

    Parameters
    ----------
    session
        The session.
    report
        Of `improve_tokens`, with nothing stored.
    parent
        The window that it belongs to.
    """

    def __init__(
        self, session: Session, report: ImproveReport, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setObjectName("improved_tokens")
        self.setWindowTitle("Improved tokens")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._session, self._results = session, report.results
        text = QLabel(
            "IoU of each class with what it has now, and with a new token made from "
            "accepted images; on accepted images that were left out. The library keeps "
            "the tokens that are replaced."
        )
        text.setWordWrap(True)
        self.table = _table(report.results)
        notes = QLabel(_notes(report))
        notes.setObjectName("improved_notes")
        notes.setWordWrap(True)
        notes.setVisible(bool(notes.text()))
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        use = button("Use the chosen tokens", "use_improved_button", self.accept)
        self.buttons.addButton(use, QDialogButtonBox.ButtonRole.AcceptRole)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(text)
        layout.addWidget(self.table, 1)
        layout.addWidget(notes)
        layout.addWidget(self.buttons)
        self.resize(560, min(520, 230 + 28 * len(report.results)))

    @property
    def chosen(self) -> list[Improvement]:
        """The results whose token is to be used."""
        return [
            result
            for row, result in enumerate(self._results)
            if (item := self.table.item(row, 4)) is not None
            and item.checkState() == Qt.CheckState.Checked
        ]

    def accept(self) -> None:
        """Use the chosen tokens; stay open while a job keeps them from being used."""
        if self._session.refused():
            return
        self._session.feature(Proposing).use(self.chosen)
        super().accept()


def _table(results: tuple[Improvement, ...]) -> QTableWidget:
    table = QTableWidget(len(results), 5)
    table.setObjectName("improved_table")
    table.setHorizontalHeaderLabels(["Class", "Before", "After", "On", "Use it"])
    table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
    table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
    rows, columns = table.verticalHeader(), table.horizontalHeader()
    if rows is not None and columns is not None:
        rows.hide()
        columns.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        columns.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    for row, each in enumerate(results):
        scored = f"{len(each.left_out)} left out" if each.left_out else "itself"
        if each.known:
            scored += ", known"
        texts = [each.name, f"{each.before:.3f}", f"{each.after:.3f}", scored, ""]
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            item.setToolTip(_about(each))
            table.setItem(row, column, item)
        use: Any = table.item(row, 4)
        use.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
        state = Qt.CheckState
        use.setCheckState(state.Checked if each.better else state.Unchecked)
    return table


def _about(each: Improvement) -> str:
    count = len(each.images)
    text = f"{each.name}: made from {count} image{'s' * (count != 1)}"
    if not each.left_out:
        return f"{text} and scored on it, which says little: accept more images"
    text += f", scored on {', '.join(each.left_out)}; before: its {each.source}"
    if each.known:
        text += ". The token in use had learned from these: before is too good"
    return text


def _notes(report: ImproveReport) -> str:
    """Return what a person should know beside the figures, a line each."""
    alone = [each.name for each in report.results if not each.left_out]
    lines = []
    if alone:
        names = ", ".join(alone)
        lines.append(f"{names}: made from one image and scored on it; accept more.")
    lines += [f"{name}: skipped, {why}." for name, why in report.skipped.items()]
    lines += [f"{name}: not used, {why}." for name, why in report.failed.items()]
    more = len(lines) - 6
    return "\n".join([*lines[:6], *([f"and {more} more"] if more > 0 else [])])
