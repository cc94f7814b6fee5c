"""Objects by clicks: answered in a thread, accepted as strokes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from app_model.types import KeyBinding
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.session.background import Background
from napari_ovam._qt.session.edits import Edits
from napari_ovam._qt.session.state import UNSURE

from .looking import Looking, described
from .preview import ClickPreview, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.layers import Labels

    from napari_ovam._qt.session.background import Work
    from napari_ovam._qt.session.edits import Snapshot
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.segmentation.click_evidence import Click
    from napari_ovam.segmentation.clicks import ClickMask

    from .preview import Drawn

HELP = "Click the object; right-click what is not of it. Enter accepts, Esc drops."
NO_TRACE = (
    "The model has not looked at this picture: clicks go by its colours. Look at it "
    "makes them better."
)
_REST = 60  # ms that the mouse has to stay for a look ahead
_STROKE = 4  # canvas pixels from which a press is a scribble or a box


class _Answer(NamedTuple):
    """What clicks gave, and the labels that they were given on."""

    found: ClickMask
    labels: Snapshot
    drawn: Drawn


class Clicking:
    """Finds the object that is clicked on the sample that is shown.

    Attributes
    ----------
    on
        Whether the mouse on the labels clicks objects.
    clicks, box
        Of the object that is not accepted yet.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.on = False
        self.clicks: tuple[Click, ...] = ()
        self.box: Any = None
        self._layers = session.feature(SampleLayers)
        self._preview = ClickPreview(session.viewer)
        self._background = Background(session, "Clicks", self._failed)
        self._layer: Labels | None = None  # that the mouse is on
        self._number = 0  # the class that is clicked
        self._answer: _Answer | None = None
        self._accept_next = False  # as soon as there is an answer
        self._looking = Looking()
        self._over: Click | None = None  # what a click where the mouse rests would be
        self._rests = QTimer()
        self._rests.setSingleShot(True)
        self._rests.setInterval(_REST)
        self._rests.timeout.connect(self._look_ahead)
        session.actions["clicks"] = lambda: self.set_on(not self.on)
        session.current_changed.connect(self._switched)
        session.labels_changed.connect(self._labels_changed)
        session.maps_changed.connect(lambda _: self._ask())
        session.placed.connect(self._ask)

    def close(self) -> None:
        """Stop what runs."""
        self._rests.stop()
        self._background.close()

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way."""
        return self._background.busy

    @property
    def pending(self) -> bool:
        """Whether there is something to accept or drop."""
        return bool(self.clicks) or self.box is not None

    @property
    def needs_trace(self) -> bool:
        """Whether the model has not looked at the picture that is shown."""
        sample = self.session.current
        return sample is not None and sample.trace is None

    # -- the tool ----------------------------------------------------------------------

    def set_on(self, on: bool) -> None:
        """Give the mouse on the labels to clicks, or back."""
        if self._layer is not None:
            self._release(self._layer)
        sample = self.session.current
        if on and (sample is None or self.session.opened.read_only):
            what = "There is no image" if sample is None else "It can only be read"
            self.session.complain(f"{what}: make or open one to click objects in")
            on = False
        self.on = on
        self._forget()
        if on and sample is not None:
            self._hold(sample)
            self.session.say(HELP)
            self._ask()
        else:
            self._preview.close()
        self.changed.emit()

    def _hold(self, sample: LiveSample) -> None:
        """Take the mouse and keys of a sample's labels."""
        if sample.edits is None:  # to click on
            sample.edits = Edits(np.zeros(sample.shape, np.uint8))
        layer = self._layers.labels(sample.key) or self.session.show_labels(sample)
        self._layer = layer
        self._preview.open(layer)
        layer.mode = "pan_zoom"
        layer.mouse_pan, layer.cursor = False, "cross"
        layer.mouse_drag_callbacks.append(self._drag)
        layer.mouse_move_callbacks.append(self._move)
        layer.events.mode.connect(self._mode_changed)
        for key, call in self._keys().items():
            layer.bind_key(key, call, overwrite=True)

    def _keys(self) -> dict[str, Callable[[Any], object]]:
        return {
            "Enter": lambda _: self.accept(),
            "Escape": lambda _: self.drop(),
            "Backspace": lambda _: self.take_back(),
            "Control-Z": lambda layer: (
                self.take_back() if self.pending else layer.undo()
            ),
        }

    def _release(self, layer: Labels) -> None:
        self._layer = None
        layer.events.mode.disconnect(self._mode_changed)
        self._rests.stop()
        if self._drag in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._drag)
            layer.mouse_move_callbacks.remove(self._move)
        for key in self._keys():
            layer.keymap.pop(KeyBinding.from_str(key.replace("-", "+")), None)
        if layer.mode == "pan_zoom":
            layer.mouse_pan, layer.cursor = True, "standard"

    def _mode_changed(self, event: Any) -> None:
        """Give way to the brush, or another tool of napari's."""
        if event.mode != "pan_zoom":
            lost = self.pending
            self.set_on(False)
            if lost:
                self.session.say("The clicks were dropped: they were not accepted.")

    def _switched(self) -> None:
        if not self.on:
            return
        lost = self.pending
        self.set_on(self.session.current is not None)
        if lost:  # after what is said of the image
            text = "The clicks on the image before were dropped: Enter accepts them."
            QTimer.singleShot(0, partial(self.session.say, text, "warning"))

    # -- the mouse ---------------------------------------------------------------------

    def _move(self, layer: Labels, event: Any) -> None:
        """See where the mouse comes to rest: a click there is looked at before."""
        from napari_ovam.segmentation.click_evidence import Click

        place = _place(layer, event)
        self._over = Click(*place) if _is_in(layer, place) else None
        self._rests.start()

    def _look_ahead(self) -> None:
        if self.on and self._over is not None and not self.busy:
            self._background.ask("ahead", self._prepare_ahead)

    def _drag(self, layer: Labels, event: Any) -> Iterator[None]:
        """Take a click, a scribble, or with Shift a box."""
        from napari_ovam.segmentation.click_evidence import Click

        if event.button not in (1, 2) or layer is not self._layer:
            return
        event.handled = True
        start, corner = np.array(event.pos), _place(layer, event)
        positive = event.button == 1 and "Control" not in event.modifiers
        boxed, path, moved = "Shift" in event.modifiers, [corner], False
        yield
        while event.type == "mouse_move":
            moved = moved or np.abs(event.pos - start).max() >= _STROKE
            path.append(_place(layer, event))
            yield
        if boxed and moved:
            ends = np.array([corner, path[-1]])
            self._ask_for((), (tuple(ends.min(0)), tuple(ends.max(0))))
            return
        places = [p for p in path[:: max(1, len(path) // 30)] if _is_in(layer, p)]
        if not _is_in(layer, corner):
            self.session.complain("The click is outside of the image")
            return
        rest = tuple(places[1:]) if moved else ()
        click = Click(*corner, positive=positive, path=rest)
        self._ask_for((*self.clicks, click), self.box)

    def _ask_for(self, clicks: tuple[Click, ...], box: Any) -> None:
        if not self.pending and self._layer is not None:
            self._number = int(self._layer.selected_label)
            if not self._number:
                self.session.complain("Label 0 is the background: choose a class")
                return
        self.clicks, self.box = clicks, box
        self._ask()
        self.changed.emit()

    # -- answers -----------------------------------------------------------------------

    def _ask(self) -> None:
        if self.on:
            self._background.ask("clicks", self._prepare)

    def _labels_changed(self) -> None:
        if self.pending:
            self._ask()

    def _prepare(self) -> Work | None:
        sample, clicks, box = self.session.current, self.clicks, self.box
        if sample is None or sample.edits is None or not self.on:
            return None
        labels, number = sample.edits.now, self._number

        def make(_: Job) -> _Answer | None:
            found = self._looking.look(sample, labels, number, clicks, box)
            if found is None:
                return None
            return _Answer(found, labels, draw(found, clicks))

        return make, partial(self._answered, sample, clicks, box)

    def _prepare_ahead(self) -> Work | None:
        sample, over, layer = self.session.current, self._over, self._layer
        if sample is None or sample.edits is None or over is None or layer is None:
            return None
        labels = sample.edits.now
        number = self._number if self.pending else int(layer.selected_label)
        if not number:
            return None
        if self._answer is not None:  # who clicks on the object wants less of it
            inside = self._answer.found.holds(over.row, over.column)
            over = replace(over, positive=not inside)
        clicks, box = (*self.clicks, over), self.box

        def make(_: Job) -> None:
            with suppress(Exception):  # a click there says what is wrong
                self._looking.look(sample, labels, number, clicks, box)

        return make, lambda _: None

    def _answered(
        self,
        sample: LiveSample,
        clicks: tuple[Click, ...],
        box: Any,
        answer: _Answer | None,
    ) -> None:
        if sample is not self.session.current or not self.on:
            return
        if (clicks, box) != (self.clicks, self.box):
            return  # a newer one is on its way
        self._answer = answer
        if answer is None or self._layer is None:
            self._preview.clear()
        else:
            entry = self.session.classes.get(self._number)
            color = (0.62,) * 3 if entry is None else np.divide(entry.color, 255)
            self._preview.show(answer.drawn, self._layer, (*color, 1))
            self.session.say(NO_TRACE if sample.trace is None else HELP)
            if self._accept_next:
                self.accept()
        self.changed.emit()

    def _failed(self, error: Exception) -> None:
        self.session.complain(error, "The labels are as they were.")
        self._forget()
        self.changed.emit()

    # -- what becomes of them ----------------------------------------------------------

    def accept(self) -> None:
        """Paint the answer on the labels, in one stroke."""
        sample, layer, answer = self.session.current, self._layer, self._answer
        if not self.pending or sample is None or sample.edits is None or layer is None:
            self.session.complain("There is nothing to accept: click an object first")
            return
        if layer not in self.session.viewer.layers:
            self.set_on(False)
            self.session.complain(
                "The labels' layer is gone", "Labels from maps shows them again."
            )
            return
        self.session.take_edits(sample)
        if self.busy or answer is None or answer.labels is not sample.edits.now:
            self._accept_next = True
            self._ask()
            return
        found, number = answer.found, self._number
        now, before = found.part, found.begin[found.window]
        places = np.nonzero(now != before)
        values = np.where(now[places], number, 0).astype(layer.data.dtype)
        rows, columns = (
            p + side.start for p, side in zip(places, found.window, strict=True)
        )
        about = described(self.clicks, self.box)
        self._forget()
        with sample.edits.doing(about):
            with layer.block_history():
                layer.data_setitem((rows, columns), values)
            self._layers.watches[layer].look_now()
        name = "unsure" if number == UNSURE else f"label {number}"
        entry = self.session.classes.get(number)
        name = entry.name if entry is not None else name
        self.session.say(f"{len(rows)} pixels were changed: {name}. {HELP}")
        self.changed.emit()

    def drop(self) -> None:
        """Forget the clicks that were not accepted."""
        self._forget()
        self.session.say(f"The clicks were dropped. {HELP}")
        self.changed.emit()

    def take_back(self) -> None:
        """Forget the last click."""
        if self.clicks:
            self.clicks = self.clicks[:-1]
        else:
            self.box = None
        self._answer = None
        if self.pending:
            self._ask()
        else:
            self._forget()
        self.changed.emit()

    def _forget(self) -> None:
        self.clicks, self.box = (), None
        self._answer, self._accept_next = None, False
        self._preview.clear()

    def look(self) -> None:
        """Have the model look at the picture."""
        sample = self.session.current
        if sample is None or sample.trace is not None:
            return

        def run(job: Job) -> Any:
            return self.session.models.trace(sample, job)

        def returned(trace: Any) -> None:
            sample.trace = trace
            self.session.say(HELP if self.on else "The model has looked at it.")
            self._ask()
            self.changed.emit()

        self.session.start(
            "Looking at the picture", run, returned=returned, kept="The clicks stay."
        )


def _place(layer: Labels, event: Any) -> tuple[float, float]:
    row, column = layer.world_to_data(event.position)
    return float(row), float(column)


def _is_in(layer: Labels, place: tuple[float, float]) -> bool:
    return all(
        -0.5 <= x < n - 0.5 for x, n in zip(place, layer.data.shape, strict=True)
    )
