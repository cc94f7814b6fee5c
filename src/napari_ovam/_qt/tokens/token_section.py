"""Optimize a token from labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import ComboBox, SpinBox
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_ovam._qt.widgets.plot import LossPlot
from napari_ovam._qt.widgets.row import Row
from napari_ovam._qt.widgets.section import (
    Section,
    button,
    check_box,
    chooser,
    form,
    listen,
    more,
)
from napari_ovam._qt.widgets.text import ElidedLabel

from .learning import Learning
from .optimizing import Tokens

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample


class TokenSection(Section):
    """Class, images, Optimize; what came out and what to do with it."""

    title: ClassVar[str] = "Token"
    session: Session

    def build(self) -> None:
        """Make the widgets."""
        self.choice = chooser("token_class", "The class to find a token for", shown=4)
        self.scope = chooser(
            "token_scope",
            "The images whose labels the token learns from",
            ["this image", "all edited images"],
        )
        self.optimize_button = button(
            "Optimize",
            "optimize_button",
            self.optimize,
            "Find the token whose map fits the labels best",
        )
        self.row(self.choice, self.scope, self.optimize_button)
        self.plot = LossPlot()
        self.box.addWidget(self.plot)
        self.scores = ElidedLabel("scores_text", "No token yet")
        self.box.addWidget(self.scores)
        self.learn = check_box(
            "Learn from accepted images",
            "learn",
            "Refit the tokens of the classes in an image once you accept it, in the "
            "background; what is better on accepted images that it did not see is used "
            "for the next proposals",
            self.session.feature(Learning).set_on,
        )
        self.former_button = button(
            "Back to before it learned",
            "use_former_button",
            lambda: self.session.sources.back(self.number),
            "Use what the class had before it learned; it learns no more by itself",
        )
        self.row(self.learn, self.former_button, stretch=0)
        self.use_button = button(
            "Use for this class", "use_token_button", lambda: self._use("token")
        )
        self.back_button = button(
            "Back to the phrase", "use_phrase_button", lambda: self._use("phrase")
        )
        self.row(self.use_button, self.back_button, stretch=None)
        self.save_button = button("Save token…", "save_token_button", self._save)
        self.load_button = button("Load token…", "load_token_button", self._load)
        content: Any = self._form()
        content.layout().addRow(Row(self.save_button, self.load_button, stretch=None))
        self.box.addWidget(more(content, "save, load, settings"))
        listen(self, self.session.classes_changed, self._fill)
        listen(self, self.session.feature(Learning).changed, self._show)
        listen(self, self.session.optimized_step, self.plot.add)
        self.at_key("optimize", self.optimize)
        self.choice.currentIndexChanged.connect(lambda _: self._show())
        self._fill()

    def _form(self) -> QWidget:
        self.iterations = SpinBox(
            label="Iterations", name="iterations", min=0, max=100000, value=0
        )
        self.iterations.tooltip = "0: the recipe's own"
        self.recipe = ComboBox(
            label="Recipe", name="recipe", choices=["default", "ovam"], value="default"
        )
        self.recipe.tooltip = "ovam: as published, slower"
        return form(self.iterations, self.recipe)

    @property
    def number(self) -> int:
        """The id of the chosen class, 0 where there is none."""
        return int(self.choice.currentData() or 0)

    def optimize(self) -> None:
        """Optimize with the values of the form."""
        iterations = int(self.iterations.value) or None
        recipe = self.recipe.value

        def settings():  # type: ignore[no-untyped-def]
            from napari_ovam import OptimizationSettings

            return OptimizationSettings(recipe=recipe, iterations=iterations)

        self.plot.clear()
        self.session.feature(Tokens).optimize(self.number, self._samples(), settings)

    def _samples(self) -> list[LiveSample]:
        session = self.session
        if self.scope.currentIndex() == 0:
            return [session.current] if session.current else []
        return [s for s in session.samples if s.edits and not s.edits.are_proposal]

    def _fill(self) -> None:
        number = self.number
        with QSignalBlocker(self.choice):
            self.choice.clear()
            for entry in self.session.classes:
                self.choice.addItem(entry.name, entry.id)
            self.choice.setCurrentIndex(max(0, self.choice.findData(number)))
        self.choice.currentTextChanged.emit(self.choice.currentText())
        self._show()

    def _show(self) -> None:
        classes = self.session.classes
        entry = classes.get(self.number)
        view = self.session.view(entry.id) if entry is not None else None
        token = view.token if view is not None else None
        if entry is None or view is None or token is None:
            text = "No token yet"
        else:
            used = "in use" if entry.source == "token" else "not in use"
            text = self.session.figures(entry.id) or f"Token of {entry.name}"
            text = f"{text}, {used}"
        self.scores.setText(text)
        self.learn.setChecked(self.session.feature(Learning).on)
        self.former_button.setEnabled(view is not None and view.former is not None)
        has = entry is not None and token is not None
        self.use_button.setEnabled(has and entry.source == "phrase")  # type: ignore[union-attr]
        self.back_button.setEnabled(has and entry.source == "token")  # type: ignore[union-attr]
        self.save_button.setEnabled(has)
        self.load_button.setEnabled(entry is not None)

    def _use(self, source: str) -> None:
        self.session.sources.use(
            self.number, "token" if source == "token" else "phrase"
        )

    def _save(self) -> None:
        entry = self.session.classes[self.number]
        path, _ = QFileDialog.getSaveFileName(
            self, "Save token", f"{entry.name}.safetensors", "Token (*.safetensors)"
        )
        if path:
            self.session.feature(Tokens).save_token(entry.id, path)

    def _load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Load token", "", "Tokens (*.safetensors *.npy)"
        )
        if path:
            self.session.sources.give({self.number: Path(path).absolute()})
