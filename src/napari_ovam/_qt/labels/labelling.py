"""Labels of a session: proposed from maps, edited by a person."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_ovam._qt.layers.layers import role_of
from napari_ovam._qt.session import tasks
from napari_ovam._qt.session.edits import Edits, as_labels
from napari_ovam._qt.session.state import DECIDED, UNSURE, ClassEntry, LiveSample
from napari_ovam._qt.session.worker import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

    from napari_ovam._qt.layers.strokes import Masks
    from napari_ovam._qt.session.session import Session

_PAUSE = 100  # ms between looks whether a stroke has ended
_PATIENCE = 100  # such looks


class Labelling:
    """Proposes labels and keeps strokes.

    Attributes
    ----------
    automatic
        Whether new samples get labels by themselves: once a person asked for some.
    options
        Further fields of `napari_ovam.LabelSettings`.
    job
        What computes a proposal now.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.automatic = False
        self.options: dict[str, Any] = {}
        self.job: Job | None = None
        self._queue: list[LiveSample] = []
        self._labeller = tasks.Labeller()

    def labels_from_maps(self) -> None:
        """Propose labels for the sample that is shown."""
        sample = self.session.current
        if sample is not None and self._bring_back(sample):
            self.session.say(f"{sample.name} is shown again.")
            if not sample.maps or sample.status in DECIDED:
                return
        if sample is None or not sample.maps:
            self.session.complain("There are no maps yet: press Map first")
            return
        if sample.status in DECIDED:
            self.session.complain(
                f"{sample.name} is {sample.status}: its labels stay. Paint on them to "
                "work on them again"
            )
            return
        self.automatic = True
        self.propose(sample)

    def _bring_back(self, sample: LiveSample) -> bool:
        """Show a sample again whose layers somebody took away; else return False."""
        layers = self.session.layers
        gone = layers.find(sample.key, "image") is None or (
            sample.edits is not None and layers.labels(sample.key) is None
        )
        if gone:
            self.session.show(sample)
        return gone

    def propose(self, sample: LiveSample) -> None:
        """Compute the labels of a sample anew, in the background.

        A sample that was never mapped, such as one that came back from the disk,
        keeps the labels that it has, and so does one that was accepted or rejected.
        """
        if sample.maps and sample not in self._queue and sample.status not in DECIDED:
            self._queue.append(sample)
        self._next_job()

    def _next_job(self) -> None:
        if self.job is not None or not self._queue or self.session.closed:
            return
        sample = self._queue.pop(0)
        request = self.request(sample)
        active = {entry.id for entry in self.session.classes.active}
        maps = {i: values for i, values in sample.maps.items() if i in active}

        def finish(then: Callable[[], object]) -> None:
            if self.session.closed:
                return
            self.job = None
            then()
            self._next_job()

        def make(_: Job) -> NDArray[Any]:
            labels, sample.probabilities = self._labeller.labels(
                maps, request, sample.image
            )
            return labels

        job = Job(make, "Labels")
        job.returned.connect(
            lambda labels: finish(
                lambda: self.session.guarded(partial(self._proposed, sample), labels)
            )
        )
        job.errored.connect(lambda error: finish(lambda: self.session.complain(error)))
        job.aborted.connect(lambda: finish(lambda: None))
        self.job = job
        job.start()

    def _proposed(
        self, sample: LiveSample, labels: NDArray[Any], patience: int = _PATIENCE
    ) -> None:
        layers = self.session.layers
        layer = layers.labels(sample.key)
        if patience and layer is not None and layers.watches[layer].dragging:
            # The brush goes first, but may never come up as far as napari knows.
            again = partial(self._proposed, sample, labels, patience - 1)
            QTimer.singleShot(_PAUSE, again)
            return
        if sample.status in DECIDED:  # in the meantime
            return
        first = sample.status == "new"
        if sample.edits is None:
            sample.edits = Edits(labels)
        else:
            self.take_edits(sample)
            sample.edits.propose(labels)
        shown = self.show(sample)
        if first and shown is not None and sample is self.session.current:
            self.session.viewer.layers.selection.active = shown
            # The labels are what is looked at and painted on from here on.
            for entry in self.session.classes.active:
                self.session.maps.show_map(entry.id, False)
            self.session.classes_changed.emit()
        if first and not self.session.busy:
            self.session.hint()
        self.session.labels_changed.emit()

    def show(self, sample: LiveSample) -> Labels | None:
        """Show what the labels of a sample are now, where it has a layer or is shown.

        A layer that was left as it is would be taken for what a person wants.
        """
        layers = self.session.layers
        if sample is self.session.current or layers.labels(sample.key) is not None:
            return layers.show_labels(sample, self.session.classes)
        return None

    def close(self) -> None:
        """Stop what runs."""
        self._queue.clear()
        if self.job is not None:
            self.job.quit()

    def request(self, sample: LiveSample | None = None) -> tasks.LabelRequest:
        return tasks.LabelRequest(
            {e.id: e.threshold for e in self.session.classes.active},
            frozenset(sample.absent if sample else ()),
            dict(self.options),
        )

    def set_threshold(
        self, number: int, value: float | None, *, live: bool = True
    ) -> None:
        """Set a class's threshold for the source in use, 0 to 1; None: 0.5."""
        entry = self.session.classes[number]
        entry.thresholds[entry.source] = value
        if (
            live
            and self.session.current is not None
            and self.session.current.edits is not None
        ):
            self.propose(self.session.current)

    def set_options(self, **options: Any) -> None:
        """Set further fields of `LabelSettings` and propose labels anew."""
        self.options = options
        if self.session.current is not None and self.session.current.edits is not None:
            self.propose(self.session.current)

    def set_absent(self, number: int, absent: bool) -> None:
        """Say that a class is not in the image that is shown."""
        sample = self.session.current
        if sample is None:
            return
        (sample.absent.add if absent else sample.absent.discard)(number)
        if sample.edits is not None:
            self.propose(sample)

    def discard_edits(self) -> None:
        """Forget the strokes on the sample that is shown."""
        sample = self.session.current
        if sample is None or sample.edits is None:
            self.session.complain("There are no edits to discard")
            return
        self.take_edits(sample)
        count = sample.edits.count
        sample.edits.discard()
        self.session.layers.show_labels(sample, self.session.classes)
        self.session.labels_changed.emit()
        self.session.say(f"{count} painted pixels were given back to the maps.")

    def unknown_ids(self, sample: LiveSample | None = None) -> list[int]:
        """Return painted ids that have no class."""
        sample = sample or self.session.current
        if sample is None or sample.edits is None:
            return []
        ids = sorted(sample.edits.now.ids - {0, UNSURE})
        return [i for i in ids if i not in self.session.classes]

    def add_class(self, name: str, number: int | None = None) -> ClassEntry:
        """Add a class that can be painted."""
        entry = self.session.classes.add(name, number)
        entry.active = False
        self.session.layers.show_classes(self.session.classes)
        self.session.classes_changed.emit()
        self.session.labels_changed.emit()
        return entry

    def change_class(
        self,
        number: int,
        *,
        name: str | None = None,
        color: tuple[int, int, int] | None = None,
    ) -> None:
        """Rename or recolour a class; its id stays."""
        entry = self.session.classes[number]
        if name is not None:
            if not name.strip():
                self.session.complain("A class needs a name")
                return
            name = name.strip()
            if any(e.name == name and e is not entry for e in self.session.classes):
                self.session.complain(f"Another class is named {name!r} already")
                self.session.classes_changed.emit()  # the field goes back
                return
            entry.name = name
        if color is not None:
            entry.color = color
        self.session.layers.show_classes(self.session.classes)
        self.session.classes_changed.emit()

    # -- strokes -----------------------------------------------------------------

    def take_all(self) -> None:
        """Notice what is on the layers of all samples."""
        for sample in self.session.samples:
            self.take_edits(sample)

    def take_edits(self, sample: LiveSample, layer: Layer | None = None) -> None:
        """Notice what is on the labels of a sample now, whoever put it there."""
        layer = layer or self.session.layers.labels(sample.key)
        if layer is not None and sample.edits is not None:
            self.session.layers.watches[layer].look_now()
            self._take(sample, layer, None, undone=True)

    def edited(self, layer: Labels, tiles: Iterable[int], *, undone: bool) -> None:
        """Notice what is in some tiles of a layer; `undone`: no stroke was there."""
        if (sample := self._sample_of(layer)) is not None:
            self._take(sample, layer, tiles, undone=undone)

    def replaced(self, layer: Labels) -> None:
        """Notice other data of a layer."""
        if (sample := self._sample_of(layer)) is not None:
            self._take(sample, layer, None, undone=True)

    def confirmed(self, layer: Labels, under: Masks, value: int) -> Masks:
        """Remember pixels that a person painted over with the label they had."""
        sample = self._sample_of(layer)
        if sample is None or sample.edits is None:
            return {}
        new = sample.edits.confirm(under, value)
        if new:
            self.session.labels_changed.emit()
        return new

    def unconfirmed(self, layer: Labels, masks: Masks) -> None:
        """Forget what `confirmed` returned: the stroke was undone."""
        sample = self._sample_of(layer)
        if masks and sample is not None and sample.edits is not None:
            sample.edits.unconfirm(masks)
            self.session.labels_changed.emit()

    def _sample_of(self, layer: Labels) -> LiveSample | None:
        """Return the sample whose labels a layer in the viewer is."""
        key = role_of(layer)[0]
        shown = self.session.layers.labels(key) is layer
        return self.session.sample(key) if shown else None

    def _take(
        self,
        sample: LiveSample,
        layer: Any,
        tiles: Iterable[int] | None,
        *,
        undone: bool,
    ) -> None:
        if sample.edits is None:
            return
        try:
            if layer.data.dtype != np.uint16 or not isinstance(layer.data, np.ndarray):
                labels = as_labels(np.asarray(layer.data))
                self.session.layers.watches[layer].write(labels)
                tiles = None
            changed = sample.edits.take(layer.data, tiles, undone=undone)
        except ValueError as error:
            self.session.complain(error, "They are as they were before.")
            self.session.layers.show_labels(sample, self.session.classes)
            return
        if changed:
            self.session.labels_changed.emit()
            if unknown := self.unknown_ids(sample):
                self.session.say(
                    f"Label {unknown[0]} has no class: create it under Labels.",
                    "warning",
                )
