"""The part of the model picker that looks models up on the hub and gets them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QComboBox,
    QGroupBox,
    QHBoxLayout,
    QVBoxLayout,
)

from napari_ovam._qt.widgets.section import Progress, button, line_edit, listen
from napari_ovam._qt.widgets.text import Message

from . import model_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.viewer import Viewer

    from napari_ovam._qt.session.jobs import JobRunner, Kind
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.hub.hub import HubModel


class HubBox(QGroupBox):
    """Look up, then download with progress; a cancelled download goes on later.

    Parameters
    ----------
    viewer
        Whose theme it follows.
    runner
        Runs one look-up, download or conversion at a time.
    alive
        Called during a download; may raise `Cancelled`.
    """

    got = Signal(str)  # what `load_pipeline` takes

    def __init__(
        self, viewer: Viewer, runner: JobRunner, alive: Callable[[], None]
    ) -> None:
        super().__init__("From the Hugging Face hub")
        self.runner, self._alive = runner, alive
        self._found: HubModel | None = None
        self.id = line_edit("hub_id", "owner/name")
        self.id.returnPressed.connect(self.look_up)
        self.id.textEdited.connect(lambda *_: self._forget())
        self.look_button = button(
            "Look up", "look_up_button", self.look_up, "Size and licence; gets nothing"
        )
        self.variant = QComboBox()
        self.variant.setObjectName("hub_variant")
        self.variant.setToolTip("Which of the weights that the hub has")
        self.variant.activated.connect(lambda *_: self.look_up(again=True))
        self.variant.hide()
        self.get_button = button("Download", "download_button", self.download)
        self.get_button.setEnabled(False)
        self.pickle_button = button(
            "Take the pickles and convert them",
            "take_pickles_button",
            partial(self.look_up, again=True, pickles=True),
            "Only tensors are read of them: no code of the files runs",
        )
        self.pickle_button.hide()
        self.text = Message(viewer, "hub_text", lines=3)
        self.text.say("A model of the hub is looked up before it is downloaded.")
        first = QHBoxLayout()
        for widget in (self.look_button, self.variant, self.get_button):
            first.addWidget(widget)
        first.insertWidget(0, self.id, 1)
        layout = QVBoxLayout(self)
        layout.addLayout(first)
        layout.addWidget(self.text)
        layout.addWidget(self.pickle_button)
        layout.addWidget(
            Progress(runner, "download_bar", "cancel_download_button", _arrived)
        )
        listen(self, runner.said, self._say)
        listen(self, runner.job_changed, self._show_job)
        self._show_job()

    def look_up(self, *, again: bool = False, pickles: bool = False) -> None:
        """Ask the hub for size and licence.

        Parameters
        ----------
        again
            With the variant that is chosen; else the one that fits best.
        pickles
            Take weights that are pickles where there are no others.
        """
        name = self.id.text().strip()
        if not name:
            self.runner.complain("Give the model as owner/name, as its page is called")
            return
        variant = self.variant.currentData() if again else None
        self.pickle_button.hide()
        refused: list[Exception] = []

        def run(job: Job) -> HubModel | None:
            from napari_ovam.hub.hub_files import PickleError

            try:
                return model_jobs.look_up(name, variant, pickles, job)
            except PickleError as error:
                refused.append(error)
                return None

        def returned(model: HubModel | None) -> None:
            if model is None:
                self.runner.complain(refused[0])
                self.pickle_button.show()
            else:
                self._show(model)

        self._forget()
        self.runner.start(f"Looking up {name}", run, returned=returned)

    def _forget(self) -> None:
        self._found = None
        self.get_button.setEnabled(False)

    def _show(self, model: HubModel) -> None:
        from napari_ovam.hub.store import human_size

        self._found = model
        self.variant.clear()
        for each in model.variants:
            self.variant.addItem(each or "full", each)
        self.variant.setCurrentIndex(self.variant.findData(model.variant))
        self.variant.setVisible(len(model.variants) > 1)
        words = [
            f"{model.id}: {model.architecture}, {human_size(model.size)}",
            f"licence {model.licence or 'not stated: read its page first'}",
        ]
        here = model.size - model.missing
        if not model.missing:
            words.append("all of it is here")
        elif here:
            words.append(f"{human_size(here)} of it are here")
        if model.gated:
            words.append(
                f"its terms have to be accepted on https://huggingface.co/{model.id}"
            )
        if model.pickles:
            words.append("pickled weights, which are converted")
        self.get_button.setEnabled(True)
        self.get_button.setText("Go on" if here and model.missing else "Download")
        self.runner.say("; ".join(words) + ".")

    def download(self) -> None:
        """Get what was looked up."""
        model = self._found
        if model is None:
            return
        self.runner.start(
            f"Downloading {model.id}",
            partial(model_jobs.download, model, self._alive),
            returned=self.got.emit,
            undo=lambda: self.get_button.setText("Go on"),
            kept="What has arrived stays: press Go on.",
        )

    def _say(self, text: str, kind: Kind) -> None:
        if text.startswith("Cancelled."):
            text = "Cancelled. What has arrived stays, and is not fetched again."
        self.text.say(text, kind)

    def _show_job(self) -> None:
        busy = self.runner.busy
        self.look_button.setEnabled(not busy)
        self.get_button.setEnabled(not busy and self._found is not None)


def _arrived(done: int, total: int) -> str:
    if not total:
        return ""
    from napari_ovam.hub.store import human_size

    here, whole = (human_size(n * model_jobs.UNIT) for n in (done, total))
    return f"{here} of {whole}"
