"""The token library: tokens of all projects, to look through and to use."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QLabel,
    QListView,
    QMainWindow,
    QMenu,
    QMessageBox,
    QWidget,
)

from napari_ovam._qt.widgets.docks import NAMES, BelowDock, dock_of, selected_rows
from napari_ovam._qt.widgets.row import Row
from napari_ovam._qt.widgets.section import (
    button,
    debounced,
    line_edit,
    listen,
    menu_button,
    menu_entry,
)

from .library import Library
from .token_table import PREVIEW, TokenTable

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_ovam._qt.session.session import Session
    from napari_ovam.datasets.project_class import ProjectClass
    from napari_ovam.project.token_library.entry import TokenEntry


_SORTS = ("name", "iou", "date", "images", "phrase", "model")


class TokenLibraryWidget(BelowDock):
    """Lists the tokens of the library and gives them to classes.

    Parameters
    ----------
    session
        Gives classes their tokens.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session, NAMES["OVAM token library"])
        self._library = session.feature(Library)
        self.table = TokenTable(session)
        self.view = self._view()
        self.stack(self._filter_row(), self.view, self._use_row(), self._file_row())
        listen(self, self._library.changed, self._show)
        listen(self, session.classes_changed, self._show)
        listen(self, session.job_changed, self._job_changed)
        self.destroyed.connect(self.table.thumbnails.close)
        self._show()
        self._library.reload()

    # -- making ------------------------------------------------------------------

    def _filter_row(self) -> Row:
        self.text = line_edit("token_filter", "name or phrase", clears=True)
        self.text.textEdited.connect(debounced(self, self._filter))
        self.sort = QComboBox()
        self.sort.setObjectName("token_sort")
        self.sort.setToolTip("What the tokens are sorted by")
        for name in _SORTS:
            self.sort.addItem("IoU" if name == "iou" else name, name)
        self.sort.activated.connect(lambda _: self._filter())
        return Row(self.text, QLabel("by"), self.sort)

    def _view(self) -> QListView:
        view = QListView()
        view.setObjectName("tokens_table")
        view.setModel(self.table)
        view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        view.setIconSize(QSize(*PREVIEW))
        view.setUniformItemSizes(True)
        view.setDragEnabled(True)
        view.setDragDropMode(QAbstractItemView.DragDropMode.DragOnly)
        view.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        view.setTextElideMode(Qt.TextElideMode.ElideRight)
        view.setMinimumHeight(2 * PREVIEW[1])
        view.setToolTip("Drag a token onto a class")
        selection: Any = view.selectionModel()
        selection.selectionChanged.connect(lambda *_: self._show())
        return view

    def _use_row(self) -> Row:
        self.use_button = menu_button("Use for", "use_token_for_button", self._fill_use)
        self.save_button = menu_button(
            "Add",
            "add_token_button",
            self._fill_save,
            "Put the token of a class into the library",
        )
        return Row(self.use_button, self.save_button, stretch=None)

    def _file_row(self) -> Row:
        self.import_button = button(
            "Import…",
            "import_token_button",
            self._import,
            "Tokens of .safetensors files, and the reference's .npy and dictionary",
        )
        self.export_button = button(
            "Export…",
            "export_token_button",
            self._export,
            "As .safetensors, or the reference's .npy",
        )
        self.remove_button = button(
            "Remove…",
            "remove_token_button",
            self._remove,
            "Classes that use a token keep it, and Put back brings it back",
        )
        self.restore_button = button(
            "Put back",
            "restore_token_button",
            self._library.restore,
            "Put back every token that was removed",
        )
        return Row(
            self.import_button,
            self.export_button,
            self.remove_button,
            self.restore_button,
            stretch=None,
        )

    # -- showing -----------------------------------------------------------------

    def showEvent(self, event: QShowEvent | None) -> None:
        """List what other programs added."""
        super().showEvent(event)
        self._library.reload()

    def place(self) -> None:
        """Dock below the image, over the table of the project where that is there."""
        dock, window = dock_of(self), self.window()
        project = (
            None if window is None else window.findChild(QWidget, NAMES["OVAM project"])
        )
        other = None if project is None else dock_of(project)
        super().place()
        if dock is None or other is None or not isinstance(window, QMainWindow):
            return
        below = Qt.DockWidgetArea.BottomDockWidgetArea
        if not dock.isFloating() and window.dockWidgetArea(other) == below:
            window.tabifyDockWidget(other, dock)
            dock.raise_()

    def selected(self) -> list[TokenEntry]:
        """Return the tokens that are selected, from top to bottom."""
        return [self.table.entry(row) for row in selected_rows(self.view)]

    def _filter(self) -> None:
        sort = self.sort.currentData()
        self._library.set_filter(
            self.text.text().strip(), sort, descending=sort in ("iou", "date", "images")
        )

    def _job_changed(self) -> None:
        self._show()
        if not self.session.busy and not self._library.model:
            self._library.reload()  # a model may have been loaded

    def _show(self) -> None:
        session, chosen = self.session, self.selected()
        free = not session.busy
        why = self._library.why_not(chosen[0]) if len(chosen) == 1 else ""
        one = free and len(chosen) == 1
        self.use_button.setEnabled(one and not why and len(session.classes) > 0)
        self.use_button.setToolTip(
            f"This token {why}"
            if why
            else "Use the selected token for a class; or drag it onto the class"
        )
        self.save_button.setEnabled(free and bool(self._with_token()))
        self.import_button.setEnabled(free)
        self.export_button.setEnabled(one and not chosen[0].damaged)
        self.remove_button.setEnabled(free and bool(chosen))
        self.restore_button.setEnabled(free)

    def _with_token(self) -> list[ProjectClass]:
        session = self.session
        return [e for e in session.classes if session.view(e.id).token is not None]

    # -- doing -------------------------------------------------------------------

    def _fill_use(self, menu: QMenu) -> None:
        chosen = self.selected()
        for entry in self.session.classes if len(chosen) == 1 else ():
            call = partial(self.session.sources.give, {entry.id: chosen[0].path})
            menu_entry(menu, entry.name, call)

    def _fill_save(self, menu: QMenu) -> None:
        for entry in self._with_token():
            call = partial(self._library.save, entry.id)
            menu_entry(menu, f"The token of {entry.name}", call)

    def _import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Import tokens", "", "Tokens (*.safetensors *.npy)"
        )
        if path:
            self._library.import_file(Path(path))

    def _export(self) -> None:
        (entry,) = self.selected()
        path, kind = QFileDialog.getSaveFileName(
            self,
            "Export the token",
            entry.path.name,
            "Token (*.safetensors);;Reference (*.npy)",
            options=QFileDialog.Option.DontConfirmOverwrite,  # nothing is replaced
        )
        if path:
            if not Path(path).suffix:
                path += ".npy" if "npy" in kind else ".safetensors"
            self._library.export(entry.path, Path(path))

    def _remove(self) -> None:
        chosen = self.selected()
        names = ", ".join(entry.path.stem for entry in chosen)
        answer = QMessageBox.question(
            self,
            "Remove from the library",
            f"Remove {names}? Classes that use a token keep it, and Put back brings "
            "it back.",
        )
        if answer == QMessageBox.StandardButton.Yes:
            self._library.remove([entry.path for entry in chosen])
