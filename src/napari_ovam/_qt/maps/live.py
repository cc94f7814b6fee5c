"""A map that follows typing: of the last phrase that has none, the newest text wins."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.session.background import Background
from napari_ovam._qt.session.state import split_phrases
from napari_ovam.segmentation.class_maps import class_map

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam._qt.session.background import Work
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job

PAUSE = 250
"""Without a key for so long, in milliseconds, what is typed is looked for."""


class LiveMaps:
    """Shows what is being typed; `Map` makes classes of it.

    It waits while a job runs, never loads a model, and says nothing of a phrase that
    cannot be mapped: it may be half a word.

    Attributes
    ----------
    on
        Whether it does so.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.on = True
        self._text = ""
        self._shown = ""  # the key of the sample that has the layer
        self._layers = session.feature(SampleLayers)
        self._background = Background(session, "Typing", self._failed)
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE)
        self._timer.timeout.connect(self._look)
        for signal in (session.job_changed, session.classes_changed):
            signal.connect(self._look)
        session.current_changed.connect(self._soon)

    def typed(self, text: str) -> None:
        """Take what is typed now, and look for it after a pause."""
        self._text = text
        self._soon()

    def _soon(self) -> None:
        self._timer.start()

    def set_on(self, on: bool) -> None:
        """Choose whether maps follow typing."""
        self.on = on
        self._look()

    def close(self) -> None:
        """Stop what runs."""
        self._timer.stop()
        self._background.close()

    def _look(self) -> None:
        self._background.ask("typed", self._prepare)

    def _prepare(self) -> Work | None:
        sample = self.session.current
        if self.session.closed or sample is None or self._timer.isActive():
            return None
        if self.session.busy:
            return None  # it comes back when that has ended
        phrase = self._new_phrase()
        if not phrase or self._shown != sample.key:
            self._remove()
        models, trace = self.session.models, sample.trace
        layers = self.session.map_layers
        if not phrase or trace is None or not models.has(sample.choice):
            return None

        def make(job: Job) -> NDArray[np.float32]:
            token = models.encode(sample.choice, phrase, job)
            return class_map(trace, token, layers)

        return make, partial(self._ended, sample, phrase)

    def _failed(self, _: Exception) -> None:
        """Say nothing; what is shown is of an older text."""
        self._remove()

    def _ended(
        self, sample: LiveSample, phrase: str, values: NDArray[np.float32]
    ) -> None:
        """Show a map if it is still what is typed; else look for that."""
        if sample is not self.session.current or self._new_phrase() != phrase:
            self._look()
        else:
            name = f"typing: {phrase}"
            self._shown = sample.key
            self._layers.show_extra(sample, "typed", {name: values})

    def _remove(self) -> None:
        if self._shown:
            self._layers.remove_extra(self._shown, "typed")
            self._shown = ""

    def _new_phrase(self) -> str:
        """Return the last typed phrase that is no class in use; empty for none."""
        if not self.on:
            return ""
        for phrase in reversed(split_phrases(self._text)):
            if self.session.phrases.is_filled(phrase):
                continue  # nobody typed it
            entry = self.session.classes.find(phrase)
            if entry is None or not entry.active:
                return phrase
        return ""
