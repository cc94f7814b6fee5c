"""The models there are: on this machine, and on the hub."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_ovam._qt.session.jobs import JobRunner
from napari_ovam._qt.session.state import ModelChoice
from napari_ovam._qt.session.worker import Job
from napari_ovam._qt.widgets.colors import muted
from napari_ovam._qt.widgets.section import button, clear
from napari_ovam._qt.widgets.text import Message
from napari_ovam.base.progress import Cancelled

from . import model_jobs
from .model_getting import HubBox
from .trace_cache_box import TraceCacheBox

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ovam._qt.session.session import Session
    from napari_ovam.diffusion.memory import MemoryPlan
    from napari_ovam.hub.store import LocalModel

    from .model_jobs import Fit

_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_SOURCES = {"embedded": "built in", "hub": "hub", "folder": "folder", "file": "file"}


class ModelPicker(QDialog):
    """Lists models, says what each takes, and gets others from the hub.

    It is hidden, not closed: a download goes on without it, and beside other work.

    Parameters
    ----------
    session
        Whose models are loaded as planned here.
    parent
        The window that it belongs to.
    """

    chosen = Signal(str)  # what `load_pipeline` takes

    def __init__(self, session: Session, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setObjectName("model_picker")
        self.setWindowTitle("Models")
        self.resize(680, 640)
        self.session = session
        self.getting = JobRunner()
        self._models: list[LocalModel] = []
        self._files: list[str] = []  # that a person pointed at here
        self._asked: Job | None = None  # the last question about a model's memory
        self._listing: Job | None = None
        self._wanted = ""  # what is selected when the list has come
        layout = QVBoxLayout(self)
        layout.addWidget(self._here(), 1)
        self.hub = HubBox(session.viewer, self.getting, self._alive)
        self.hub.got.connect(self._got)
        layout.addWidget(self.hub)
        self.traces = TraceCacheBox()
        layout.addWidget(self.traces)

    def _here(self) -> QWidget:
        box = QGroupBox("On this computer")
        inner = QVBoxLayout(box)
        self.list = QTreeWidget()
        self.list.setObjectName("model_list")
        self.list.setHeaderLabels(["Model", "Size", "Architecture", "Where"])
        self.list.setRootIsDecorated(False)
        self.list.setColumnWidth(0, 260)
        self.list.setColumnWidth(1, 75)
        self.list.setColumnWidth(2, 190)
        self.list.itemSelectionChanged.connect(self._selected)
        self.list.itemDoubleClicked.connect(lambda *_: self.use())
        inner.addWidget(self.list, 1)
        self.about = Message(self.session.viewer, "model_about", lines=4)
        self.about.say("Looking for models…")
        inner.addWidget(self.about)
        self.options = QHBoxLayout()
        inner.addLayout(self.options)
        row = QHBoxLayout()
        self.use_button = button("Use", "use_model_button", self.use, "For new images")
        self.convert_button = button(
            "Convert to safetensors",
            "convert_model_button",
            self._convert,
            "Only tensors are read: no code of the file runs. The pickle stays",
        )
        row.addWidget(self.use_button)
        row.addWidget(self.convert_button)
        row.addStretch(1)
        row.addWidget(
            button("File…", "model_file_button", self._browse_file, "A checkpoint")
        )
        row.addWidget(
            button(
                "Folder…",
                "model_folder_button",
                self._browse_folder,
                "A diffusers folder, or one with models in it; it is remembered",
            )
        )
        inner.addLayout(row)
        return box

    # -- what is here ------------------------------------------------------------

    def look(self) -> None:
        """Show the dialog, with what is here now and the model in use selected."""
        self._wanted = self.session.choice.model
        self.refresh()
        self.traces.refresh()
        self.show()
        self.raise_()

    def refresh(self) -> None:
        """List again what is on this machine."""
        files = list(self._files)

        def arrived(models: list[LocalModel]) -> None:
            self._listing = None
            self._fill(models)

        self._listing = self._ask(lambda _: model_jobs.models_here(files), arrived)

    def _fill(self, models: list[LocalModel]) -> None:
        from napari_ovam.hub.store import human_size

        wanted, self._wanted = self._wanted or self.name, ""
        self._models = models
        self.list.blockSignals(True)
        self.list.clear()
        chosen, theme = None, self.session.viewer.theme
        for place, model in enumerate(models):
            kind = model.architecture or ("not usable" if model.problem else "")
            texts = [
                _short(model),
                human_size(model.size),
                kind,
                _SOURCES[model.source] + ", recent" * (model.recent is not None),
            ]
            item = QTreeWidgetItem(texts)
            item.setData(0, Qt.ItemDataRole.UserRole, place)
            item.setToolTip(0, model.name)
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight)
            if model.problem:
                for column in range(4):
                    item.setForeground(column, QColor(*muted(theme)))
                    item.setToolTip(column, model.problem)
            self.list.addTopLevelItem(item)
            if model.name == wanted:
                chosen = item
        self.list.blockSignals(False)
        if chosen is not None:
            self.list.setCurrentItem(chosen)
        else:
            self._selected()

    @property
    def model(self) -> LocalModel | None:
        """The model that is selected."""
        items = self.list.selectedItems()
        if not items:
            return None
        return self._models[items[0].data(0, Qt.ItemDataRole.UserRole)]

    @property
    def name(self) -> str:
        """Its name, "" where none is selected."""
        return self.model.name if self.model is not None else ""

    @property
    def choice(self) -> ModelChoice:
        """The model that is selected, on the device of the panel."""
        return ModelChoice(self.name, self.session.choice.device)

    def select(self, name: str) -> None:
        """Select a model by its name, once it is listed."""
        self._wanted = name
        self.refresh()

    def _selected(self) -> None:
        model = self.model
        clear(self.options)
        self.use_button.setEnabled(model is not None and model.complete)
        self.convert_button.setVisible(model is not None and _is_pickle(model))
        self._asked = None
        if model is None:
            self.about.say("Select a model to see what it takes.")
        elif model.problem:
            self.about.say(model.problem)
        else:
            self.about.say(f"{model.name}\nEstimating its memory…")
            self._estimate()

    # -- memory --------------------------------------------------------------------

    def _estimate(self) -> None:
        choice = self.choice
        plan = self.session.models.plans.get(choice)
        self._asked = self._ask(
            lambda _: model_jobs.fit_of(choice, plan), partial(self._show_fit, choice)
        )

    def _show_fit(self, choice: ModelChoice, fit: Fit) -> None:
        if choice != self.choice:
            return  # another one was selected meanwhile
        from napari_ovam.hub.store import human_size

        plan = self.session.models.plans.get(choice)
        needed = fit.needed
        words = [choice.model, f"Takes {needed}."]
        if not needed.fits and plan is None:
            words.append("That does not fit: press what takes less.")
        elif not needed.fits:
            words.append("That may not fit; it is loaded all the same.")
        self.about.say("\n".join(words))
        clear(self.options)
        for option in fit.options:
            made = button(
                f"{option.name}: {human_size(option.estimate.needed)}",
                f"option_{self.options.count()}",
                partial(self._plan, choice, option.estimate.plan),
                f"Costs: {option.price}. It then takes {option.estimate}",
            )
            self.options.addWidget(made)
        if not needed.fits and plan is None:
            self.options.addWidget(
                button(
                    "Load it all the same",
                    "all_the_same_button",
                    partial(self._plan, choice, needed.plan),
                    "The estimate may be too high; the worst is an error",
                )
            )
        if plan is not None:
            self.options.addWidget(
                button(
                    "As usual again",
                    "as_usual_button",
                    partial(self._plan, choice, None),
                    "Take back what was chosen here for this model",
                )
            )
        self.options.addStretch(1)

    def _plan(self, choice: ModelChoice, plan: MemoryPlan | None) -> None:
        """Load a model so from now on; one that is loaded is loaded anew when used."""
        if plan is None:
            self.session.models.plans.pop(choice, None)
        else:
            self.session.models.plans[choice] = plan
        self._estimate()

    # -- actions -------------------------------------------------------------------

    def use(self) -> None:
        """Take the selected model for new images."""
        model = self.model
        if model is not None and model.complete:
            self.chosen.emit(model.name)
            self.hide()

    def _browse_file(self) -> None:
        path, _filter = QFileDialog.getOpenFileName(
            self, "Choose a checkpoint", "", "Checkpoints (*.safetensors *.ckpt *.pt)"
        )
        if path:
            self.add_file(path)

    def add_file(self, path: str) -> None:
        """List a checkpoint, and select it."""
        if path not in self._files:
            self._files.append(path)
        self.select(path)

    def _browse_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Choose a folder with models")
        if path:
            self.add_folder(path)

    def add_folder(self, path: str) -> None:
        """List the models in a folder, from now on."""
        from napari_ovam.hub.recent import remember_folder

        remember_folder(Path(path))
        self.select(path)

    def _convert(self) -> None:
        model = self.model
        if model is not None:
            self.getting.start(
                f"Converting {model.path.name}",
                partial(model_jobs.convert, model.path),
                returned=self._got,
                kept="The pickle is as it was.",
            )

    def _got(self, name: str) -> None:
        """Select what was downloaded or converted."""
        if name.count("/") != 1 and name not in self._files:
            self._files.append(name)
        self.getting.say(f"{name} is ready: press Use.")
        self.select(name)

    def _alive(self) -> None:
        if self.session.closed:
            raise Cancelled

    def _ask(self, task: Callable[[Job], Any], arrived: Callable[[Any], None]) -> Job:
        """Run a short task beside others; an error is shown."""
        job = Job(task)

        def returned(value: Any) -> None:
            if not self.session.closed and job in (self._asked, self._listing):
                arrived(value)

        def errored(error: Exception) -> None:
            if not self.session.closed and job in (self._asked, self._listing):
                self.about.say(f"{error}")

        job.returned.connect(returned)
        job.errored.connect(errored)
        job.start()
        return job


def _short(model: LocalModel) -> str:
    """Return a name that tells it from others, without the folders around it."""
    path = Path(model.name)
    return path.name if path.is_absolute() else model.name


def _is_pickle(model: LocalModel) -> bool:
    if model.path.is_file():
        return model.path.suffix in _PICKLES
    return "pickles" in model.problem
