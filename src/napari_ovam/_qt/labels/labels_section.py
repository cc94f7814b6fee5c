"""Labels from maps: the class table, thresholds, and a person's edits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, FloatSpinBox, SpinBox
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QLabel,
    QSizePolicy,
    QSlider,
    QToolButton,
    QWidget,
)

from napari_ovam._qt.layers.keys import described
from napari_ovam._qt.widgets.colors import text_on
from napari_ovam._qt.widgets.reach import tab_before
from napari_ovam._qt.widgets.section import (
    Section,
    button,
    check_box,
    clear,
    form,
    listen,
    more,
)
from napari_ovam._qt.widgets.text import ElidedLabel
from napari_ovam.segmentation.presence import ABSENT
from napari_ovam.segmentation.thresholds import THRESHOLD

from .labelling import Labelling
from .stack_labels import collect_stack
from .uncertainty import UncertainPlaces

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam.datasets.project_class import ProjectClass


MANY = 30  # classes: more have no row each, which would stop the window


class LabelsSection(Section):
    """One row a class, and what to do with the labels."""

    title: ClassVar[str] = "Labels"
    session: Session

    def build(self) -> None:
        """Make the widgets."""
        self._labels = self.session.feature(Labelling)
        self._uncertain = self.session.feature(UncertainPlaces)
        self._rows = self.grid(0, 2, 0, 3)
        self.labels_button = button(
            "Labels from maps",
            "labels_button",
            self._labels.labels_from_maps,
            "Propose labels; what you painted stays",
        )
        self.uncertain_button = button(
            "Next uncertain place",
            "uncertain_button",
            self._uncertain.next,
            "Go to where the labels are least sure; what is painted counts as settled",
        )
        self.row(self.labels_button, self.uncertain_button, stretch=None)
        self.edits = ElidedLabel("edits_text")
        self.discard_button = button(
            "Discard my edits",
            "discard_button",
            self._labels.discard_edits,
            "Give every painted pixel of this image back to the maps",
        )
        self.row(self.edits, self.discard_button)
        self.create_button = button("", "create_class_button", self._create)
        self.create_button.hide()
        self.box.addWidget(self.create_button)
        self.box.addWidget(more(self._form()))
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
        tip = "Change the labels while a threshold is moved"
        self.live = check_box(
            "Labels follow the slider", "live_preview", tip, checked=True
        )
        tip = "A layer that is red where the labels may be wrong"
        self.uncertain = check_box("Show uncertainty", "uncertainty", tip)
        self.uncertain.toggled.connect(self._uncertain.show)
        fields: Any = form(*changing)
        fields.layout().addRow(self.live)
        fields.layout().addRow(self.uncertain)
        self.stack_button = button(
            "All planes as one layer",
            "stack_labels_button",
            partial(collect_stack, self.session),
            "Add the labels of the whole stack as a layer of napari's own: a copy",
        )
        fields.layout().addRow(self.stack_button)
        for field in changing:
            field.changed.connect(self._options_changed)
        keys = QLabel("\n".join(["Keys on the layers:", described("\n")]))
        keys.setWordWrap(True)
        fields.layout().addRow(keys)
        made: QWidget = fields
        return made

    def _options_changed(self) -> None:
        self._labels.set_options(
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
        made: list[QWidget] = []
        for index, entry in enumerate(entries):
            row = self._row(entry)
            made += row
            for column, widget in enumerate(row):
                self._rows.addWidget(widget, index, column)
        tab_before(self.labels_button, made)
        if more := len(self.session.classes) - len(entries):
            said = ElidedLabel("more_classes", f"{more} more classes: see Classes")
            self._rows.addWidget(said, len(entries), 0, 1, -1)
        self._show_edits()

    def _row(self, entry: ProjectClass) -> list[QWidget]:
        number = entry.id
        color = QLabel(str(number))
        color.setObjectName(f"color_{number}")
        color.setToolTip("The value of its pixels; double-click it under Classes")
        color.setAlignment(Qt.AlignmentFlag.AlignCenter)
        color.setStyleSheet(
            f"background-color: rgb{entry.color}; color: {text_on(entry.color)};"
            "min-width: 22px;"
        )
        tip = "Change its name under Classes"
        name = ElidedLabel(f"class_name_{number}", entry.name, tip)
        value = QToolButton()
        value.setObjectName(f"automatic_{entry.id}")
        value.setFixedWidth(38)
        value.clicked.connect(partial(self._set, number, None))
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setObjectName(f"threshold_{entry.id}")
        slider.setRange(1, 100)
        slider.setToolTip("Pixels at least this likely become the class")
        slider.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        slider.setMinimumWidth(40)
        self._thresholds[entry.id] = slider, value
        self._show_threshold(entry)
        slider.valueChanged.connect(partial(self._threshold, number))
        slider.sliderReleased.connect(lambda: self._set(number, slider.value() / 100))
        current = self.session.current
        score = current.presence.get(entry.id, 1.0) if current is not None else 1.0
        absent = check_box(
            "absent?" if score < ABSENT else "absent",
            f"absent_{entry.id}",
            "Probably not in this picture: its phrase peaks no higher than others. "
            "Tick it if so"
            if score < ABSENT
            else "This class is not in this image",
            checked=current is not None and entry.id in current.absent,
        )
        absent.toggled.connect(partial(self._labels.set_absent, number))
        for widget in (slider, value):
            widget.setEnabled(entry.active)
        return [color, name, value, slider, absent]

    def _threshold(self, number: int, value: int) -> None:
        self._set(number, value / 100, live=self.live.isChecked())

    def _set(
        self, number: int, value: float | None, *_: Any, live: bool = True
    ) -> None:
        self.session.class_changes.set_threshold(number, value, live=live)
        self._show_threshold(self.session.classes[number])

    def _show_threshold(self, entry: ProjectClass) -> None:
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

    def _show_labels(self) -> None:
        for entry in self.session.classes:
            if entry.id in self._thresholds:
                self._show_threshold(entry)
        self._show_edits()

    def _show_edits(self) -> None:
        sample = self.session.current
        edits = sample.edits if sample is not None else None
        if sample is None or edits is None or sample.unlabelled:
            self.edits.setText("No labels yet")
        elif not edits.count:
            self.edits.setText("Exactly as the maps propose")
        else:
            self.edits.setText(f"{edits.count} pixels painted")
        self.discard_button.setEnabled(bool(edits and edits.count))
        in_stack = sample is not None and sample.plane is not None
        self.stack_button.setVisible(in_stack)
        unknown = self.session.unknown_ids(self.session.current)
        self.create_button.setVisible(bool(unknown))
        if unknown:
            self.create_button.setText(f"Create a class for label {unknown[0]}")

    def _create(self) -> None:
        unknown = self.session.unknown_ids(self.session.current)
        if unknown:
            self.session.class_changes.add(f"class {unknown[0]}", unknown[0])
