"""The class table: add, rename, recolour, merge and delete classes, import lists."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QMenu,
    QTableView,
    QVBoxLayout,
)

from napari_ovam._qt.session.jobs import short
from napari_ovam._qt.widgets.docks import dress_table, select_row, selected_rows
from napari_ovam._qt.widgets.reach import reveal
from napari_ovam._qt.widgets.section import (
    Section,
    button,
    check_box,
    chooser,
    debounced,
    line_edit,
    listen,
    menu_button,
    menu_entry,
)
from napari_ovam._qt.widgets.text import Message
from napari_ovam._qt.widgets.token_drop import accept_tokens
from napari_ovam.datasets.project_class import KEYS

from .class_table import ID, NAME, PHRASE, ClassModel

if TYPE_CHECKING:
    from qtpy.QtCore import QModelIndex

    from napari_ovam._qt.session.class_changes import Removal
    from napari_ovam._qt.session.session import Session
    from napari_ovam.datasets.project_class import ProjectClass

_PRESETS = {"voc": "Pascal VOC, 20 classes", "coco": "COCO, 80 classes"}
_IN_LEGEND = 12


class ClassSection(Section):
    """The class table of the session, with a filter and a legend."""

    title: ClassVar[str] = "Classes"
    session: Session

    def build(self) -> None:
        """Make the widgets."""
        self._changes = self.session.class_changes
        self.legend = Message(self.session.viewer, "legend", lines=2)
        self.box.addWidget(self.legend)
        self._filter_row()
        self.model = ClassModel(self.session)
        self.view = self._view()
        self.box.addWidget(self.view)
        self._add_row()
        self._button_row()
        self.question = _Question(self)
        self.box.addWidget(self.question)
        soon = debounced(self, self._look)  # a stroke ends with several changes at once
        for signal in (self.session.labels_changed, self.session.current_changed):
            listen(self, signal, soon)
        listen(self, self.session.classes_changed, self._show_legend)
        listen(self, self.session.classes_changed, self._show_selected)
        listen(self, self.session.job_changed, self._show_selected)
        listen(self, self._changes.asked, self.question.ask)
        self._look()
        self._show_legend()
        self._show_selected()

    # -- making ----------------------------------------------------------------------

    def _filter_row(self) -> None:
        self.filter = line_edit("class_filter", "name, phrase or id", clears=True)
        self.filter.textChanged.connect(lambda _: self._filter())
        tip = "Show only the classes that the labels hold"
        self.here = check_box("in this image", "classes_here", tip)
        self.here.toggled.connect(lambda _: self._filter())
        self.row(self.filter, self.here)

    def _view(self) -> QTableView:
        view = QTableView()
        columns = dress_table(view, "classes_table", self.model, 22)
        view.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        view.setTextElideMode(Qt.TextElideMode.ElideRight)
        view.setFixedHeight(190)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        view.customContextMenuRequested.connect(self._menu_at)
        columns.setMinimumSectionSize(30)
        columns.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        for column in (NAME, PHRASE):
            columns.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        view.doubleClicked.connect(self._double_clicked)
        view.clicked.connect(self._clicked)
        selection: Any = view.selectionModel()
        selection.selectionChanged.connect(lambda *_: self._show_selected())
        self.model.modelAboutToBeReset.connect(self._remember)
        self.model.modelReset.connect(self._restore)
        sources = self.session.sources
        accept_tokens(view, lambda n, file: sources.give({n: file}), self.model.entry)
        return view

    def _add_row(self) -> None:
        self.name = line_edit("new_class", "new class")
        self.name.returnPressed.connect(self._add)
        self.lists = menu_button(
            "Lists",
            "class_lists_button",
            self._fill_lists,
            "Add the classes of a file or of a well-known data set",
        )
        add = button("Add", "add_class_button", self._add, "Add a class of this name")
        self.row(self.name, add, self.lists)

    def _fill_lists(self, menu: QMenu) -> None:
        menu_entry(menu, "From a file…", self._import)
        for name, text in _PRESETS.items():
            menu_entry(menu, text, partial(self._changes.import_preset, name))

    def _button_row(self) -> None:
        self.thing = check_box(
            "objects",
            "class_thing",
            "Parts of the class are objects to count, and not one region like the sky",
            self._set_thing,
        )
        self.paint_button = button(
            "Paint", "paint_class_button", self._paint, "Choose it for the brush"
        )
        self.merge_button = button(
            "Merge…", "merge_class_button", self._merge, "Make it part of another class"
        )
        self.delete_button = button(
            "Delete…", "delete_class_button", self._delete, "Delete what is selected"
        )
        self.row(self.thing, self.paint_button, self.merge_button, self.delete_button)

    # -- selection -------------------------------------------------------------------

    def selected(self) -> list[ProjectClass]:
        """Return the selected classes, in their order."""
        found = map(self.model.entry, selected_rows(self.view))
        return sorted((e for e in found if e is not None), key=lambda e: e.id)

    def select(self, number: int) -> None:
        """Select a class."""
        row = self.model.row(number)
        if row >= 0:
            select_row(self.view, row)
            self.view.scrollTo(self.model.index(row, NAME))

    def _remember(self) -> None:
        self._had = [entry.id for entry in self.selected()]

    def _restore(self) -> None:
        rows = [row for n in self._had if (row := self.model.row(n)) >= 0]
        selection: Any = self.view.selectionModel()
        flag = selection.SelectionFlag
        for row in rows:
            selection.select(self.model.index(row, ID), flag.Select | flag.Rows)
        self._show_selected()

    def _show_selected(self) -> None:
        chosen = self.selected()
        one = chosen[0] if len(chosen) == 1 else None
        self.thing.setEnabled(bool(chosen))
        self.thing.setChecked(bool(chosen) and all(e.thing for e in chosen))
        self.paint_button.setEnabled(one is not None)
        several = len(self.session.classes) > 1
        self.merge_button.setEnabled(one is not None and several)
        self.delete_button.setEnabled(bool(chosen))

    def _filter(self) -> None:
        self.model.set_filter(self.filter.text(), self.here.isChecked())

    # -- doing -----------------------------------------------------------------------

    def _add(self) -> None:
        made = self._changes.add(self.name.text())
        if made is not None:
            self.name.clear()
            self.select(made.id)

    def _import(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self,
            "Add the classes of a file",
            filter="Class lists (*.txt *.json *.yaml *.yml *.names);;All files (*)",
        )
        if chosen:
            self._changes.import_file(Path(chosen))

    def _clicked(self, index: QModelIndex) -> None:
        entry = self.model.entry(index.row())
        if entry is not None and index.column() in (ID, NAME):
            self._changes.paint(entry.id)

    def _double_clicked(self, index: QModelIndex) -> None:
        entry = self.model.entry(index.row())
        if entry is not None and index.column() == ID:
            self._recolor(entry)

    def _recolor(self, entry: ProjectClass) -> None:
        color = QColorDialog.getColor(QColor(*entry.color), self)
        if color.isValid():
            rgb = (color.red(), color.green(), color.blue())
            self._changes.change(entry.id, color=rgb)

    def _set_thing(self, thing: bool) -> None:
        for entry in self.selected():
            self._changes.change(entry.id, thing=thing)

    def _paint(self) -> None:
        for entry in self.selected():
            self._changes.paint(entry.id)

    def _delete(self) -> None:
        self._changes.ask_delete([entry.id for entry in self.selected()])

    def _merge(self) -> None:
        chosen = self.selected()
        if len(chosen) == 1:
            self.question.choose(chosen[0])

    def _menu_at(self, place: QPoint) -> None:
        entry = self.model.entry(self.view.indexAt(place).row())
        if entry is None:
            return
        chosen = [e.id for e in self.selected()] or [entry.id]
        menu = QMenu(self)
        menu_entry(menu, "Colour…", partial(self._recolor, entry))
        keys: Any = menu.addMenu("Key")
        for key in ("", *KEYS):
            call = partial(self._changes.change, entry.id, key=key or None)
            menu_entry(keys, key or "none", call)
        look = partial(self._changes.look_for, chosen)
        menu_entry(menu, "Look for what is selected", partial(look, True))
        menu_entry(menu, "Do not look for it", partial(look, False))
        if self.session.view(entry.id).former is not None:
            back = partial(self.session.sources.back, entry.id)
            menu_entry(menu, "Back to before it learned", back)
        if entry.id in self.model.present:
            more = partial(self.session.more_wanted.emit, entry.id)
            menu_entry(menu, "Find more like this", more)
        menu_entry(menu, "Delete…", self._delete)
        viewport: Any = self.view.viewport()
        menu.exec(viewport.mapToGlobal(place))

    # -- the legend ------------------------------------------------------------------

    def _look(self) -> None:
        sample = self.session.current
        found: frozenset[int] = frozenset()
        if sample is not None and sample.edits is not None:
            found = sample.edits.now.ids
        if found != self.model.present:
            self.model.set_present(found)
            self._show_legend()

    def _show_legend(self) -> None:
        known = [e for e in self.session.classes if e.id in self.model.present]
        parts = [
            f'<span style="color: rgb{entry.color}">■</span>&nbsp;'
            f"{escape(short(entry.name, 24)).replace(' ', '&nbsp;')}"
            for entry in known[:_IN_LEGEND]
        ]
        if len(known) > _IN_LEGEND:
            parts.append(f"and {len(known) - _IN_LEGEND} more")
        self.legend.setHtml("&ensp; ".join(parts) or "No class in this image")
        self.legend.setToolTip(
            "In this image: " + ", ".join(short(e.name, 60) for e in known[:50])
        )


class _Question(QFrame):
    """What deleting and merging ask, below the table; the window stays usable."""

    def __init__(self, section: ClassSection) -> None:
        super().__init__()
        self.setObjectName("class_question")
        self._session = section.session
        self._removal: Removal | None = None
        self._number = 0
        self.text = Message(self._session.viewer, "class_question_text", lines=3)
        self.into = chooser("merge_into", "The class that it becomes part of")
        self.yes = button("", "class_yes_button", self._go_on)
        self.no = button("Cancel", "class_no_button", self.hide)
        row = QHBoxLayout()
        row.addWidget(self.into, 1)
        row.addStretch()
        row.addWidget(self.yes)
        row.addWidget(self.no)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 2)
        layout.addWidget(self.text)
        layout.addLayout(row)
        listen(self, self._session.classes_changed, self._still)
        self.hide()

    def choose(self, entry: ProjectClass) -> None:
        """Ask which class another becomes part of."""
        self._removal, self._number = None, entry.id
        self.into.clear()
        for other in self._session.classes:
            if other.id != entry.id:
                self.into.addItem(f"{other.id}: {short(other.name, 60)}", other.id)
        self.into.show()
        self.text.say(f"Make {short(entry.name)} part of:")
        self.yes.setText("Merge…")
        reveal(self)

    def ask(self, removal: Removal) -> None:
        """Say how many images hold what is to go, and ask whether it shall."""
        self._removal = removal
        classes = self._session.classes
        named = [short(classes[n].name) for n in removal.numbers if n in classes]
        names = ", ".join(named[:3])
        if len(named) > 3:
            names += f" and {len(named) - 3} more"
        count = removal.images
        held = f"{count} image{'s' * (count != 1)} hold{'s' * (count == 1)}"
        held = f"{held} {'it' if len(named) == 1 else 'them'}"
        if removal.into:
            other = short(classes[removal.into].name)
            text = f"Merge {names} into {other}? {held}; the pixels become {other}."
            word = "Merge"
        else:
            text = f"Delete {names}? {held}; the pixels become background."
            word = "Delete"
        self.text.say(f"{text} This cannot be undone.")
        self.yes.setText(word)
        self.into.hide()
        reveal(self)

    def _go_on(self) -> None:
        removal = self._removal
        self.hide()
        if removal is None:
            self._session.class_changes.ask_merge(self._number, self.into.currentData())
        else:
            self._session.class_changes.remove(removal)

    def _still(self) -> None:
        """Take the question back where its classes are gone."""
        removal, classes = self._removal, self._session.classes
        if removal is None:
            gone = self._number not in classes
        else:
            into = removal.into
            gone = any(n not in classes for n in removal.numbers)
            gone = gone or (into != 0 and into not in classes)
        if gone:
            self.hide()
