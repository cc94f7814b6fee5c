"""Optimize a token from labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import ComboBox, SpinBox
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from napari_ovam._qt.widgets.plot import LossPlot
from napari_ovam._qt.widgets.row import Row
from napari_ovam._qt.widgets.section import (
    Section,
    button,
    check_box,
    chooser,
    form,
    listen,
    menu_button,
    menu_entry,
    more,
)
from napari_ovam._qt.widgets.text import ElidedLabel

from .learning import Learning
from .optimizing import Tokens

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam.datasets.project_class import Source


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
        self.source_button = menu_button(
            "Looked for by its phrase",
            "source_button",
            self._fill_sources,
            "What the class is looked for by",
        )
        self.row(self.source_button, stretch=0)
        self.row(self.learn, stretch=0)
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
        samples, left = self._samples(), 0
        if self.scope.currentIndex() == 1:
            here = {sample.key for sample in samples}
            known = self.session.project.samples
            edited = [s.name for s in known if s.status in ("edited", "accepted")]
            left = len(set(edited) - here)
        tokens = self.session.feature(Tokens)
        tokens.optimize(self.number, samples, settings, left)

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
        source = "phrase" if entry is None else entry.source
        self.source_button.setText(f"Looked for by its {source}")
        former = view is not None and view.former is not None
        self.source_button.setEnabled(token is not None or former)
        self.save_button.setEnabled(entry is not None and token is not None)
        self.load_button.setEnabled(entry is not None)

    def _fill_sources(self, menu: QMenu) -> None:
        session, number = self.session, self.number
        view = session.view(number)
        sources: tuple[Source, ...] = ("phrase", "token")
        for source in sources if view.token is not None else ():
            use = partial(session.sources.use, number, source)
            entry = menu_entry(menu, f"By its {source}", use)
            entry.setCheckable(True)
            entry.setChecked(session.classes[number].source == source)
        if view.former is not None:
            back = partial(session.sources.back, number)
            entry = menu_entry(menu, "Back to before it learned", back)
            entry.setToolTip("The class then learns no more by itself")

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
