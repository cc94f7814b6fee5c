"""Attention maps of phrases."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, ComboBox, FloatSlider
from qtpy.QtCore import QSignalBlocker, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QLabel, QPlainTextEdit, QWidget

from napari_ovam._qt.session.state import split_phrases
from napari_ovam._qt.widgets.reach import tab_before
from napari_ovam._qt.widgets.section import (
    Section,
    button,
    clear,
    form,
    listen,
    more,
    small_button,
)
from napari_ovam._qt.widgets.text import ElidedCheckBox, ElidedLabel, duration
from napari_ovam.segmentation.class_maps import LAYERS

from .live import LiveMaps
from .mapping import Maps

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam.datasets.project_class import ProjectClass


class PhraseEdit(QPlainTextEdit):
    """Two lines for phrases: a list is pasted as it is; Enter maps it."""

    returnPressed = Signal()

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.setTabChangesFocus(True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setFixedHeight(2 * self.fontMetrics().lineSpacing() + 12)
        # napari's themes give it the colour of what is behind it
        self.setStyleSheet(
            "QPlainTextEdit {background: rgba(128, 128, 128, 90); border-radius: 2px;}"
        )

    def text(self) -> str:
        """Return what is typed."""
        return self.toPlainText()

    def setText(self, text: str) -> None:
        """Replace what is typed."""
        self.setPlainText(text)

    def keyPressEvent(self, e: Any) -> None:
        """Map at Enter; a new line at Shift-Enter."""
        enter = e.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and not e.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.returnPressed.emit()
        else:
            super().keyPressEvent(e)


class MapsSection(Section):
    """Phrases, their pieces, and what makes each map."""

    title: ClassVar[str] = "Maps"
    session: Session

    def build(self) -> None:
        """Make the widgets."""
        maps = self.session.feature(Maps)
        self.phrases = PhraseEdit(self.session.phrases.text)
        self.phrases.setObjectName("phrases")
        self.phrases.setToolTip(
            "What to look for, separated by commas or lines; Enter maps. The nouns of "
            "the prompt are put here, what you type stays"
        )
        self.phrases.returnPressed.connect(self.map)
        self.phrases.textChanged.connect(self._typed)
        self.map_button = button(
            "Map", "map_button", self.map, "Show where the model sees each phrase"
        )
        self.row(QLabel("Phrases"), self.phrases, self.map_button, stretch=1)
        self._rows = self.grid(2, 1)
        self.opacity = FloatSlider(
            label="Opacity", name="opacity", min=0, max=1, value=1
        )
        self.opacity.value = self.session.map_opacity
        self.opacity.changed.connect(maps.set_opacity)
        self.layers = ComboBox(
            label="Layers", name="layers", choices=list(LAYERS), value=LAYERS[0]
        )
        self.layers.tooltip = (
            "fine: the up blocks (to a quarter of the finest grid), which are what is "
            "recorded by default; all: whatever was recorded"
        )
        self.layers.changed.connect(maps.set_layers)
        self.live = CheckBox(text="Follow typing", name="live", value=True)
        self.live.tooltip = "Show a map of what is typed, before it is a class"
        self.live.changed.connect(self.session.feature(LiveMaps).set_on)
        content: Any = form(self.opacity, self.layers, self.live)
        special = button(
            "Map special tokens",
            "special_button",
            lambda: maps.map_special(self.phrases.text()),
            "Where the start and end tokens look, which surround every phrase",
        )
        content.layout().addRow(special)
        self.exact_button = button(
            "", "exact_button", partial(self.session.do, "exact")
        )
        content.layout().addRow(self.exact_button)
        listen(self, self.session.current_changed, self._show_exact)
        self._show_exact()
        self._more = more(content)
        self.box.addWidget(self._more)
        listen(self, self.session.classes_changed, self._fill)
        listen(self, self.session.maps_seen, self._show_seen)
        listen(self, self.session.phrases.changed, self._show_phrases)
        self.at_key("map", self.map)
        self._fill()

    def _show_exact(self) -> None:
        sample = self.session.current
        exact = sample is not None and sample.exact
        self.exact_button.setText(
            "These maps are exact" if exact else "Make exact maps"
        )
        tip = (
            "Runs again and records everything in full precision; the same image, "
            "more memory"
        )
        if sample is not None and sample.seconds >= 1:
            tip += f"; about {duration(sample.seconds)}"
        self.exact_button.setToolTip(tip)
        able = sample is not None and sample.trace is not None and not sample.exact
        self.exact_button.setEnabled(able)

    def _typed(self) -> None:
        text = self.phrases.text()
        self.session.phrases.type(text)
        self.session.feature(LiveMaps).typed(text)

    def _show_phrases(self, text: str) -> None:
        with QSignalBlocker(self.phrases):
            self.phrases.setText(text)
        self.session.feature(LiveMaps).typed(text)

    def map(self) -> None:
        """Map the typed phrases."""
        self.session.feature(Maps).map_phrases(self.phrases.text())

    def _fill(self) -> None:
        clear(self._rows)
        made: list[QWidget] = []
        for index, entry in enumerate(self.session.classes.active):
            shown, *others = row = self._row(entry)
            made += row
            self._rows.addWidget(shown, index, 0)
            for column, widget in enumerate(others, start=1):
                self._rows.addWidget(widget, index, column)
            if not self._pieces(entry):  # the phrase has the room of both
                self._rows.addWidget(shown, index, 0, 1, 2)
        tab_before(self._more.toggleButton(), made)

    def _show_seen(self) -> None:
        for entry in self.session.classes.active:
            box: Any = self.findChild(QWidget, f"show_map_{entry.id}")
            if box is not None:
                with QSignalBlocker(box):
                    box.setChecked(self.session.view(entry.id).shown)

    def _row(self, entry: ProjectClass) -> list[QWidget]:
        view = self.session.view(entry.id)
        shown = ElidedCheckBox(f"show_map_{entry.id}", entry.phrase, "Show this map")
        shown.setChecked(view.shown)
        shown.toggled.connect(partial(self.session.show_map, entry.id))
        pieces = ElidedLabel(
            f"pieces_{entry.id}",
            self._pieces(entry),
            "The pieces that the model's tokenizer makes of the phrase",
        )
        source = QComboBox()
        source.setObjectName(f"source_{entry.id}")
        source.addItems(["phrase", "token"])
        source.setCurrentText(entry.source)
        source.setToolTip("Map the phrase, or the token that was optimized for it")
        if view.token is None:
            source.hide()
        source.textActivated.connect(partial(self._use, entry.id))
        remove = small_button(
            "×", f"remove_map_{entry.id}", partial(self._remove, entry), "Remove"
        )
        return [shown, pieces, source, remove]

    def _use(self, number: int, source: str) -> None:
        self.session.sources.use(number, "token" if source == "token" else "phrase")

    def _remove(self, entry: ProjectClass) -> None:
        rest = [
            phrase
            for phrase in split_phrases(self.phrases.text())
            if phrase.casefold() != entry.phrase.casefold()
        ]
        self.phrases.setText(", ".join(rest))
        self.session.feature(Maps).drop_phrase(entry.id)

    def _pieces(self, entry: ProjectClass) -> str:
        """Say what the tokenizer made of a phrase, where that is not its words."""
        pieces = self.session.view(entry.id).pieces
        if not pieces or list(pieces) == entry.phrase.split():
            return ""
        return f"{len(pieces)} pieces: {' · '.join(pieces)}"
