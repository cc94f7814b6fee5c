"""Labels from maps: the class table, thresholds, and a person's edits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, ComboBox, SpinBox
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QGridLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSlider,
    QToolButton,
    QWidget,
)

from .keys import described
from .section import More, Section, button, clear, form, listen

if TYPE_CHECKING:
    from .state import ClassEntry


_FOLLOW = "follow the image"
_REFINE = {
    _FOLLOW: "walk",
    "guided filter": "guided",
    "superpixels": "superpixels",
    "as in the map": "",
}


class LabelsSection(Section):
    """One row a class, and what to do with the labels."""

    title: ClassVar[str] = "Labels"

    def build(self) -> None:
        """Make the widgets."""
        self._rows = QGridLayout()
        self._rows.setHorizontalSpacing(4)
        self._rows.setVerticalSpacing(2)
        self._rows.setColumnStretch(3, 1)
        self.box.addLayout(self._rows)
        self.labels_button = button(
            "Labels from maps",
            "labels_button",
            self.session.labels.labels_from_maps,
            "Propose labels; what you painted stays",
        )
        self.live = QCheckBox("live preview")
        self.live.setObjectName("live_preview")
        self.live.setChecked(True)
        self.live.setToolTip("Change the labels while a threshold is moved")
        self.row(self.labels_button, self.live)
        self.edits = QLabel()
        self.edits.setObjectName("edits_text")
        self.discard_button = button(
            "Discard my edits",
            "discard_button",
            self.session.labels.discard_edits,
            "Give every painted pixel of this image back to the maps",
        )
        self.row(self.edits, self.discard_button)
        self.create_button = button("", "create_class_button", self._create)
        self.create_button.hide()
        self.box.addWidget(self.create_button)
        self.box.addWidget(More(self._form()))
        self._sliders: dict[int, QSlider] = {}
        listen(self, self.session.classes_changed, self._fill)
        listen(self, self.session.current_changed, self._fill)
        listen(self, self.session.labels_changed, self._show_edits)
        self._fill()

    def _form(self) -> QWidget:
        self.refine = ComboBox(
            label="Borders", name="refine", choices=list(_REFINE), value=_FOLLOW
        )
        self.refine.tooltip = "Whether and how the labels' borders follow the image"
        self.refine.changed.connect(
            lambda chosen: self.session.labels.set_refine(_REFINE[chosen])
        )
        self.smoothing = SpinBox(
            label="Smoothing", name="smoothing", min=0, max=50, value=0
        )
        self.smallest = SpinBox(
            label="Smallest object", name="smallest", min=0, max=100000, value=0
        )
        self.smallest.tooltip = "In pixels; smaller parts are left out"
        self.holes = CheckBox(text="Fill holes", name="holes", value=False)
        fields: Any = form(self.refine, self.smoothing, self.smallest, self.holes)
        for field in (self.smoothing, self.smallest, self.holes):
            field.changed.connect(self._options_changed)
        keys = QLabel(f"Keys on the layers: {described()}")
        keys.setWordWrap(True)
        fields.layout().addRow(keys)
        made: QWidget = fields
        return made

    def _options_changed(self) -> None:
        self.session.labels.set_options(
            smoothing=float(self.smoothing.value),
            min_size=int(self.smallest.value),
            fill_holes=bool(self.holes.value),
        )

    def _fill(self) -> None:
        clear(self._rows)
        self._sliders = {}
        for index, entry in enumerate(self.session.classes):
            for column, widget in enumerate(self._row(entry)):
                self._rows.addWidget(widget, index, column)
        self._show_edits()

    def _row(self, entry: ClassEntry) -> list[QWidget]:
        colour = QToolButton()
        colour.setObjectName(f"colour_{entry.id}")
        colour.setText(str(entry.id))
        colour.setToolTip("Class id; click to choose its colour")
        red, green, blue = entry.color
        text = "black" if red * 3 + green * 6 + blue > 1100 else "white"
        colour.setStyleSheet(
            f"background-color: rgb({red}, {green}, {blue}); color: {text};"
            "min-width: 22px;"
        )
        colour.clicked.connect(lambda *_: self._recolour(entry))
        name = QLineEdit(entry.name)
        name.setObjectName(f"class_name_{entry.id}")
        name.setToolTip("The name of the class, as exported")
        name.setMaximumWidth(80)
        name.editingFinished.connect(lambda: self._rename(entry, name))
        value = QLabel(f"{entry.threshold:.2f}")
        value.setToolTip(
            f"The threshold of the {entry.source}: 0 is the map's lowest value, 1 its "
            "highest"
        )
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setObjectName(f"threshold_{entry.id}")
        slider.setRange(1, 100)
        slider.setValue(round(entry.threshold * 100))
        slider.setToolTip("Pixels of the map at or above this become the class")
        slider.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        slider.setMinimumWidth(50)
        slider.valueChanged.connect(partial(self._threshold, entry, value))
        slider.sliderReleased.connect(
            lambda: self.session.labels.set_threshold(entry.id, slider.value() / 100)
        )
        self._sliders[entry.id] = slider
        absent = QCheckBox("absent")
        absent.setObjectName(f"absent_{entry.id}")
        absent.setToolTip("This class is not in this image")
        current = self.session.current
        absent.setChecked(current is not None and entry.id in current.absent)
        absent.toggled.connect(partial(self.session.labels.set_absent, entry.id))
        for widget in (slider, value):
            widget.setEnabled(entry.active)
        return [colour, name, value, slider, absent]

    def _threshold(self, entry: ClassEntry, shown: QLabel, value: int) -> None:
        shown.setText(f"{value / 100:.2f}")
        self.session.labels.set_threshold(
            entry.id, value / 100, live=self.live.isChecked()
        )

    def _rename(self, entry: ClassEntry, field: QLineEdit) -> None:
        if field.text() != entry.name:
            self.session.labels.change_class(entry.id, name=field.text())
            field.setText(entry.name)

    def _recolour(self, entry: ClassEntry) -> None:
        colour = QColorDialog.getColor(QColor(*entry.color), self)
        if colour.isValid():
            rgb = (colour.red(), colour.green(), colour.blue())
            self.session.labels.change_class(entry.id, color=rgb)

    def _show_edits(self) -> None:
        sample = self.session.current
        edits = sample.edits if sample is not None else None
        if edits is None:
            self.edits.setText("No labels yet")
        elif not edits.count:
            self.edits.setText("Exactly as the maps propose")
        else:
            self.edits.setText(f"{edits.count} pixels painted")
        self.discard_button.setEnabled(bool(edits and edits.count))
        unknown = self.session.labels.unknown_ids()
        self.create_button.setVisible(bool(unknown))
        if unknown:
            self.create_button.setText(f"Create a class for label {unknown[0]}")

    def _create(self) -> None:
        unknown = self.session.labels.unknown_ids()
        if unknown:
            self.session.labels.add_class(f"class {unknown[0]}", unknown[0])
