"""Export labels as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, LineEdit
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QWidget,
)

from napari_ovam._qt.session.settings import preferences
from napari_ovam._qt.widgets.section import (
    Section,
    button,
    chooser,
    form,
    listen,
    more,
    small_button,
)
from napari_ovam._qt.widgets.text import ElidedCheckBox, ElidedLabel

from .exporting import Exports

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session

_SCOPES = (
    "all images",
    "this image",
    "edited images",
    "accepted images",
    "selected images",
)


class ExportSection(Section):
    """Format, images, folder; Export."""

    title: ClassVar[str] = "Export"
    session: Session

    def build(self) -> None:
        """Make the widgets."""
        from napari_ovam.datasets.exporters import FORMATS, LOSSES
        from napari_ovam.datasets.returning import AS_IMPORTED, RETURNED

        self.format = chooser(
            "format",
            "indexed: PNGs of class ids; coco: JSON with masks; as-imported: as the "
            "data set came; docs/export.md has all",
            [*FORMATS, AS_IMPORTED],
        )
        self.scope = chooser("export_scope", "Which images to export", _SCOPES)
        self.row(QLabel("Format"), self.format, self.scope, stretch=1)
        self.losses = ElidedLabel("format_losses", tip="What the format does not hold")
        self.format.currentTextChanged.connect(
            lambda name: self.losses.setText(LOSSES.get(name, RETURNED))
        )
        self.losses.setText(LOSSES[self.format.currentText()])
        self.box.addWidget(self.losses)
        self.chosen = QListWidget()
        self.chosen.setObjectName("export_samples")
        self.chosen.setToolTip("Tick the images to export")
        self.chosen.setMaximumHeight(110)
        self.chosen.hide()
        self.box.addWidget(self.chosen)
        self.scope.currentTextChanged.connect(self._show_chosen)
        listen(self, self.session.samples_changed, self._fill_chosen)
        self._fill_chosen()
        self.folder = QLineEdit(preferences().folder or str(_free_folder()))
        self.folder.setObjectName("folder")
        self.folder.setToolTip("Where the dataset is written; made where it is missing")
        browse = small_button(
            "…", "folder_browse_button", self._browse, "Choose a folder"
        )
        self.row(QLabel("Folder"), self.folder, browse, stretch=1)
        self.overwrite = ElidedCheckBox(
            "overwrite", "replace an earlier export", "Other files in the folder stay"
        )
        self.export_button = button(
            "Export", "export_button", self.export, "Write images and labels"
        )
        self.row(self.overwrite, self.export_button)
        self.box.addWidget(more(self._form(), "split, other formats"))

    def _form(self) -> QWidget:
        self.split = LineEdit(label="Split", name="split")
        self.split.native.setPlaceholderText("0.8, 0.1, 0.1")
        self.split.tooltip = (
            "Shares of training, validation and test images; empty: all together"
        )
        self.history = CheckBox(label="Also where it came from", name="export_history")
        self.history.tooltip = (
            "A folder 'history': what set each pixel (a map, a click, a stroke …) and "
            "when"
        )
        self.also = LineEdit(label="Also as", name="also_as")
        self.also.native.setPlaceholderText("coco, voc")
        self.also.tooltip = "Further formats of the list, written in the same run"
        return form(self.split, self.also, self.history)

    def _formats(self) -> list[str]:
        from napari_ovam.datasets.exporters import HISTORY

        others = [name.strip() for name in self.also.value.split(",")]
        others += [HISTORY] if self.history.value else []
        return list(dict.fromkeys([self.format.currentText(), *filter(None, others)]))

    def export(self) -> None:
        """Export with the values of the form."""
        if self.scope.currentText() == _SCOPES[-1] and not self._ticked():
            self.session.complain("No image is selected: tick those to export")
            return
        where = self.folder.text(), self._formats()
        how: dict[str, Any] = {
            "overwrite": self.overwrite.isChecked(),
            "split": self.split.value,
        }
        self.session.feature(Exports).export(*where, self._keys(), **how)

    def _keys(self) -> list[str]:
        """Return the samples that are to be exported."""
        session, projects = self.session, self.session.projects
        scope = self.scope.currentText()
        if scope == "this image":
            return [session.current.key] if session.current else []
        if scope == "accepted images":
            return [key for key in projects.keys if projects.status(key) == "accepted"]
        if scope == "edited images":
            edited = ("edited", "accepted")
            return [key for key in projects.keys if projects.status(key) in edited]
        return self._ticked() if scope == _SCOPES[-1] else list(projects.keys)

    def _show_chosen(self, scope: str) -> None:
        self.chosen.setVisible(scope == _SCOPES[-1])

    def _fill_chosen(self) -> None:
        """List the samples; what was ticked stays so, new ones are not."""
        ticked = set(self._ticked())
        self.chosen.clear()
        projects = self.session.projects
        for number, key in enumerate(projects.keys, start=1):
            item = QListWidgetItem(f"{number}: {projects.title(key)}")
            item.setData(Qt.ItemDataRole.UserRole, key)
            item.setToolTip(projects.title(key))
            on = key in ticked
            item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
            self.chosen.addItem(item)

    def _ticked(self) -> list[str]:
        items = (self.chosen.item(row) for row in range(self.chosen.count()))
        return [
            str(item.data(Qt.ItemDataRole.UserRole))
            for item in items
            if item is not None and item.checkState() == Qt.CheckState.Checked
        ]

    def _browse(self) -> None:
        start = str(Path(self.folder.text()).expanduser())
        folder = QFileDialog.getExistingDirectory(self, "Export to", start)
        if folder:
            self.folder.setText(folder)


def _free_folder() -> Path:
    """Return a folder in the person's home that does not exist yet."""
    home = Path.home()
    folder, number = home / "ovam-dataset", 2
    while folder.exists():
        folder, number = home / f"ovam-dataset-{number}", number + 1
    return Path("~") / folder.name
