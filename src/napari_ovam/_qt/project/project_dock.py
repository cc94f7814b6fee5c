"""The table of a project's images, to go through and to review."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from qtpy.QtCore import QModelIndex, QSignalBlocker, QSize, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHeaderView,
    QLabel,
    QMenu,
    QTableView,
)

from napari_ovam._qt.layers.keys import ACTIONS, keys
from napari_ovam._qt.widgets.docks import (
    NAMES,
    BelowDock,
    dress_table,
    select_row,
    selected_rows,
)
from napari_ovam._qt.widgets.row import Row
from napari_ovam._qt.widgets.section import (
    button,
    check_box,
    debounced,
    line_edit,
    listen,
    menu_button,
    menu_entry,
)
from napari_ovam._qt.widgets.text import ElidedLabel
from napari_ovam._qt.widgets.thumbnails import SIZE
from napari_ovam.images.files import PICTURE_SUFFIXES
from napari_ovam.project.index import Status

from .adding import Adding
from .project_table import SampleTable, dot
from .proposing_row import ProposingRow
from .review import Review

if TYPE_CHECKING:
    from qtpy.QtGui import QKeyEvent

    from napari_ovam._qt.session.session import Session

_BUTTONS = (
    ("previous", "<"),
    ("next", ">"),
    ("next_open", "Next to review"),
    ("accept", "Accept"),
    ("reject", "Reject"),
)
_MASKS = {
    "indexed": "Masks as pictures",
    "coco": "COCO",
    "voc": "Pascal VOC",
    "cvat": "CVAT",
    "labelme": "LabelMe",
    "label-studio": "Label Studio",
    "datumaro": "Datumaro",
}
"""Forms of `datasets.importers.open_source`, and what they are called."""


class ProjectWidget(BelowDock):
    """Opens and saves projects, lists their images, and reviews them.

    Parameters
    ----------
    session
        Whose project it is.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session, NAMES["OVAM project"])
        self._reviewing = session.feature(Review)
        self.table = SampleTable(session)
        self.view = self._view()
        self.stack(
            self._project_row(),
            self._filter_row(),
            self.view,
            self._review_row(),
            ProposingRow(session, self.selected),
        )
        for changed in (session.project_changed, session.samples_changed):
            listen(self, changed, self._show_project)
        listen(self, self._reviewing.filter_changed, self._show_count)
        listen(self, session.sample_changed, lambda _: self._show_count())
        listen(self, session.current_changed, self._show_current)
        listen(self, session.job_changed, self._show_busy)
        self.destroyed.connect(self.table.thumbnails.close)
        self._show_keys()
        self._show_project()

    # -- making ------------------------------------------------------------------

    def _project_row(self) -> Row:
        self.name = ElidedLabel("project_name")
        self.open_button = button(
            "Open…", "open_project_button", self._open, "Open a project folder"
        )
        self.new_button = button(
            "New…", "new_project_button", self._new, "Make a project in an empty folder"
        )
        self.add_button = menu_button(
            "Add…",
            "add_button",
            self._fill_add,
            "Add pictures, an OME-Zarr store, or pictures with masks of other tools",
        )
        self.save_button = button(
            "Save as…",
            "save_project_button",
            self._save_as,
            "Put the work of this window into a project folder",
        )
        self.close_button = button(
            "Close",
            "close_project_button",
            self.session.projects.leave,
            "Close the project; everything in it is saved",
        )
        return Row(
            self.name,
            self.open_button,
            self.new_button,
            self.add_button,
            self.save_button,
            self.close_button,
        )

    def _filter_row(self) -> Row:
        self.status = QComboBox()
        self.status.setObjectName("status_filter")
        self.status.addItem("all", "")
        for status in get_args(Status):
            self.status.addItem(dot(status), status, status)
        self.status.activated.connect(
            lambda index: self._reviewing.set_filter(status=self.status.itemData(index))
        )
        self.text = line_edit("text_filter", "name or prompt", clears=True)
        # a letter alone would look through 1,000 rows
        self.text.textEdited.connect(
            debounced(self, lambda: self._reviewing.set_filter(text=self.text.text()))
        )
        self.unsure = check_box(
            "least sure first",
            "unsure_first",
            "Go first through the images whose proposed labels are most in doubt: what "
            "is corrected there teaches most",
            lambda on: self._reviewing.set_order(unsure_first=on),
        )
        self.count = QLabel()
        self.count.setObjectName("project_count")
        self.keys_button = menu_button(
            "Keys",
            "keys_button",
            self._fill_keys,
            "What keys do on the image and in this table; change them under File > "
            "Preferences > OVAM",
        )
        show = QLabel("Show")
        return Row(
            show,
            self.status,
            self.text,
            self.unsure,
            self.count,
            self.keys_button,
            stretch=2,
        )

    def _view(self) -> QTableView:
        view = _Table(self.session)
        columns = dress_table(view, "samples_table", self.table, SIZE + 4)
        view.setIconSize(QSize(SIZE, SIZE))
        view.setMinimumHeight(2 * SIZE)
        columns.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        columns.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        columns.resizeSection(1, 110)
        columns.hide()
        selection: Any = view.selectionModel()
        selection.currentRowChanged.connect(self._row_chosen)
        view.doubleClicked.connect(self._row_chosen)
        return view

    def _review_row(self) -> Row:
        do = self.session.do
        self._review = {
            name: button(text, f"{name}_button", partial(do, name))
            for name, text in _BUTTONS
        }
        return Row(*self._review.values(), stretch=None)

    def _show_keys(self) -> None:
        chosen = keys()
        for action in ACTIONS:
            made = self._review.get(action.name)
            if made is not None:
                text = action.text[0].upper() + action.text[1:]
                key = chosen[action.name]
                made.setToolTip(f"{text} ({key})" if key else text)

    def _fill_keys(self, menu: QMenu) -> None:
        chosen = keys()
        for action in ACTIONS:
            text = f"{action.text}\t{chosen[action.name]}"
            menu_entry(menu, text, partial(self.session.do, action.name))

    # -- showing -----------------------------------------------------------------

    def _show_project(self) -> None:
        projects = self.session.projects
        opened = projects.opened
        if opened.chosen:
            self.name.setText(opened.path.name + " (read only)" * opened.read_only)
            self.name.setToolTip(str(opened.path))
        else:
            self.name.setText("Not in a project yet" if projects.keys else "No project")
            self.name.setToolTip("Work is kept safe, and offered at the next start")
        self.save_button.setVisible(not opened.chosen)
        self.close_button.setVisible(opened.chosen)
        self.status.setCurrentIndex(
            max(0, self.status.findData(self._reviewing.status))
        )
        self.text.setText(self._reviewing.text)
        self._show_count()
        self._show_busy()
        self._show_current()

    def _show_busy(self) -> None:
        free = not self.session.busy
        others = self.open_button, self.new_button, self.add_button, self.close_button
        for each in others:
            each.setEnabled(free)
        self.save_button.setEnabled(free and bool(self.session.projects.keys))

    def _show_count(self) -> None:
        projects = self.session.projects
        shown, total = self.table.rowCount(), len(projects.keys)
        self.count.setText(str(total) if shown == total else f"{shown} of {total}")
        for made in self._review.values():
            made.setEnabled(bool(total))

    def _show_current(self) -> None:
        current = self.session.current
        row = self.table.row(current.key) if current is not None else -1
        selection: Any = self.view.selectionModel()
        viewport: Any = self.view.viewport()
        with QSignalBlocker(selection):
            if row < 0:
                selection.clear()
            elif self.view.currentIndex().row() != row:
                select_row(self.view, row)
                self.view.scrollTo(self.table.index(row, 0))
        viewport.update()

    def selected(self) -> list[str]:
        """Return the keys of the selected samples, from top to bottom."""
        return [self.table.key(row) for row in selected_rows(self.view)]

    def _row_chosen(self, index: QModelIndex, *_: Any) -> None:
        key = self.table.key(index.row())
        current = self.session.current
        if key and (current is None or key != current.key):
            self._reviewing.show(key)

    # -- folders -----------------------------------------------------------------

    def _ask(self, text: str) -> Path | None:
        opened = self.session.projects.opened
        start = opened.path.parent if opened.chosen else Path.home()
        folder = QFileDialog.getExistingDirectory(self, text, str(start))
        return Path(folder) if folder else None

    def _open(self) -> None:
        if folder := self._ask("Open a project folder"):
            self.session.projects.open(folder)

    def _new(self) -> None:
        if folder := self._ask("An empty folder for the project"):
            self.session.projects.create(folder)

    def _fill_add(self, menu: QMenu) -> None:
        adding = self.session.feature(Adding)
        menu_entry(menu, "Pictures…", self._add_pictures)
        menu_entry(menu, "Folder of pictures…", partial(self._add_folder, "pictures"))
        menu_entry(menu, "OME-Zarr store…", partial(self._add_folder, "OME-Zarr"))
        masks: Any = menu.addMenu("Pictures with masks")
        for form, text in _MASKS.items():
            menu_entry(masks, f"{text}…", partial(self._add_masks, form))
        menu.addSeparator()

        def turn() -> None:
            adding.by_reference = not adding.by_reference

        # napari's style shows no box beside an entry that can be ticked
        tick = "✓ " if adding.by_reference else ""
        menu_entry(menu, f"{tick}Leave pictures where they are (no copies)", turn)
        if adding.refers:
            menu_entry(menu, "Locate missing pictures…", self._locate)

    def _add_pictures(self) -> None:
        kinds = f"Images (*{' *'.join(PICTURE_SUFFIXES)})"
        files, _ = QFileDialog.getOpenFileNames(
            self, "Add pictures", str(Path.home()), kinds
        )
        if files:
            self.session.feature(Adding).add([Path(file) for file in files])

    def _add_folder(self, what: str) -> None:
        if folder := self._ask(f"Add a folder of {what}"):
            self.session.feature(Adding).add([folder])

    def _add_masks(self, form: str) -> None:
        if folder := self._ask(f"The folder of pictures and masks: {_MASKS[form]}"):
            self.session.feature(Adding).add_masks(folder, form)

    def _locate(self) -> None:
        if folder := self._ask("The folder in which the pictures are now"):
            self.session.feature(Adding).locate(folder)

    def _save_as(self) -> None:
        if folder := self._ask("An empty folder for the project"):
            self.session.projects.save_as(folder)


class _Table(QTableView):
    """A table in which the keys do what they do on the image."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Do what a key stands for, else what it does in tables."""
        pressed = "" if event is None else _written(event)
        for name, key in keys().items():
            if key and key == pressed:
                self._session.do(name)
                return
        super().keyPressEvent(event)


def _written(event: QKeyEvent) -> str:
    """Return a key with its modifiers, as `keys.keys` writes it."""
    modifiers = Qt.KeyboardModifier
    parts = [
        name
        for name, modifier in (
            ("Ctrl", modifiers.ControlModifier),
            ("Shift", modifiers.ShiftModifier),
            ("Alt", modifiers.AltModifier),
            ("Meta", modifiers.MetaModifier),
        )
        if event.modifiers() & modifier
    ]
    return "-".join([*parts, QKeySequence(event.key()).toString()])
