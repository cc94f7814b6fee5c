"""Labels from maps: the class table, thresholds, and a person's edits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, FloatSpinBox, SpinBox
from qtpy.QtCore import QSignalBlocker, Qt
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

from napari_ovam._qt.layers.keys import described
from napari_ovam._qt.widgets.section import More, Section, button, clear, form, listen
from napari_ovam.segmentation.class_maps import THRESHOLD

if TYPE_CHECKING:
    from napari_ovam._qt.session.state import ClassEntry


MANY = 30  # classes: more have no row each, which would stop the window


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
        self.doubt = QCheckBox("show doubt")
        self.doubt.setObjectName("doubt")
        self.doubt.setToolTip("A layer that is bright where the labels may be wrong")
        self.doubt.toggled.connect(self.session.doubts.show)
        self.doubt_button = button(
            "Next doubtful place",
            "doubt_button",
            self.session.doubts.next,
            "Go to where the labels are least sure; what is painted counts as settled",
        )
        self.row(self.doubt_button, self.doubt)
        self.create_button = button("", "create_class_button", self._create)
        self.create_button.hide()
        self.box.addWidget(self.create_button)
        self.box.addWidget(More(self._form()))
        self._thresholds: dict[int, tuple[QSlider, QToolButton]] = {}
        listen(self, self.session.classes_changed, self._fill)
        listen(self, self.session.current_changed, self._fill)
        listen(self, self.session.labels_changed, self._show_labels)
        self._fill()

    def _form(self) -> QWidget:
        self.smoothing = SpinBox(
            label="Smoothing", name="smoothing", min=0, max=50, value=0
        )
        self.smallest = SpinBox(
            label="Smallest object", name="smallest", min=0, max=100000, value=0
        )
        self.smallest.tooltip = "In pixels; smaller parts are left out"
        self.unsure = FloatSpinBox(
            label="Unsure from", name="unsure", min=0, max=1, step=0.1, value=0
        )
        self.unsure.tooltip = (
            "Pixels at least this uncertain become 255, unsure, which nothing learns "
            "from and no score counts; 0 leaves none unsure"
        )
        self.holes = CheckBox(text="Fill holes", name="holes", value=False)
        changing = (self.smoothing, self.smallest, self.holes, self.unsure)
        fields: Any = form(*changing)
        for field in changing:
            field.changed.connect(self._options_changed)
        keys = QLabel("\n".join(["Keys on the layers:", described("\n")]))
        fields.layout().addRow(keys)
        made: QWidget = fields
        return made

    def _options_changed(self) -> None:
        self.session.labels.set_options(
            smoothing=float(self.smoothing.value),
            min_size=int(self.smallest.value),
            fill_holes=bool(self.holes.value),
            unsure=float(self.unsure.value),
        )

    def _fill(self) -> None:
        clear(self._rows)
        self._thresholds = {}
        entries = list(self.session.classes)
        if len(entries) > MANY:  # the class table shows the others
            entries = self.session.classes.active[:MANY]
        for index, entry in enumerate(entries):
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
        value = QToolButton()
        value.setObjectName(f"automatic_{entry.id}")
        value.setFixedWidth(38)
        value.clicked.connect(lambda: self._automatic(entry))
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setObjectName(f"threshold_{entry.id}")
        slider.setRange(1, 100)
        slider.setToolTip("Pixels at least this likely become the class")
        slider.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        slider.setMinimumWidth(50)
        self._thresholds[entry.id] = slider, value
        self._show_threshold(entry)
        slider.valueChanged.connect(partial(self._threshold, entry))
        slider.sliderReleased.connect(
            lambda: self.session.labels.set_threshold(entry.id, slider.value() / 100)
        )
        absent = QCheckBox("absent")
        absent.setObjectName(f"absent_{entry.id}")
        absent.setToolTip("This class is not in this image")
        current = self.session.current
        absent.setChecked(current is not None and entry.id in current.absent)
        absent.toggled.connect(partial(self.session.labels.set_absent, entry.id))
        for widget in (slider, value):
            widget.setEnabled(entry.active)
        return [colour, name, value, slider, absent]

    def _threshold(self, entry: ClassEntry, value: int) -> None:
        self.session.labels.set_threshold(
            entry.id, value / 100, live=self.live.isChecked()
        )
        self._show_threshold(entry)

    def _automatic(self, entry: ClassEntry) -> None:
        self.session.labels.set_threshold(entry.id, None)
        self._show_threshold(entry)

    def _show_threshold(self, entry: ClassEntry) -> None:
        """Show a class's threshold."""
        slider, value = self._thresholds[entry.id]
        level = entry.threshold
        value.setText("auto" if level is None else f"{level:.2f}")
        value.setToolTip(
            "What is more likely the class than not: move the slider for another"
            if level is None
            else f"How likely a pixel of the {entry.source} must be; click for 0.5"
        )
        if level is None:
            level = THRESHOLD
        if not slider.isSliderDown():
            with QSignalBlocker(slider):
                slider.setValue(round(min(level, 1.0) * 100))

    def _rename(self, entry: ClassEntry, field: QLineEdit) -> None:
        if field.text() != entry.name:
            self.session.labels.change_class(entry.id, name=field.text())
            field.setText(entry.name)

    def _recolour(self, entry: ClassEntry) -> None:
        colour = QColorDialog.getColor(QColor(*entry.color), self)
        if colour.isValid():
            rgb = (colour.red(), colour.green(), colour.blue())
            self.session.labels.change_class(entry.id, color=rgb)

    def _show_labels(self) -> None:
        for entry in self.session.classes:
            if entry.id in self._thresholds:
                self._show_threshold(entry)
        self._show_edits()

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
            self.session.guarded(self._create_class, unknown[0])

    def _create_class(self, number: int) -> None:
        self.session.labels.add_class(f"class {number}", number)
