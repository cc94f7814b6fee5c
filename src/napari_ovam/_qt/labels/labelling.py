"""Labels of a session: proposed from maps, edited by a person."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.layers.marked import role_of
from napari_ovam._qt.session import tasks
from napari_ovam._qt.session.background import Background
from napari_ovam._qt.session.edits import Edits, Proposed, as_labels
from napari_ovam._qt.session.state import DECIDED
from napari_ovam.project.files import replace_ids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

    from napari_ovam._qt.layers.strokes import Masks
    from napari_ovam._qt.session.background import Work
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job

_PAUSE = 100  # ms between looks whether a stroke has ended
_PATIENCE = 100  # such looks


class Labelling:
    """Proposes labels and keeps strokes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._layers = session.feature(SampleLayers)
        self._layers.listener = self
        self._labeller = tasks.Labeller()
        self._wanted: set[str] = set()  # samples for which somebody pressed the button
        self._background = Background(session, "Labels")
        session.edits_wanted.connect(self.take_edits)
        session.maps_changed.connect(self.propose)
        session.rules_changed.connect(self._propose_shown)
        session.actions["labels"] = self.labels_from_maps

    @property
    def job(self) -> Job | None:
        """What computes a proposal now."""
        return self._background.job

    def close(self) -> None:
        """Stop what runs."""
        self._background.close()

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
        self.session.label_rules.automatic = True
        self._wanted.add(sample.key)
        self.propose(sample)

    def _bring_back(self, sample: LiveSample) -> bool:
        """Show a sample again whose layers somebody took away; else return False."""
        layers = self._layers
        gone = layers.find(sample.key, "image") is None or (
            sample.edits is not None and layers.labels(sample.key) is None
        )
        if gone:
            self.session.show(sample)
        return gone

    def propose(self, sample: LiveSample) -> None:
        """Compute the labels of a sample anew, in the background.

        A sample that was never mapped, such as one that came back from the disk,
        keeps the labels that it has, and so does one that was accepted or rejected. One
        without labels gets none unasked: its maps show what they would be.
        """
        self._background.ask(sample, partial(self._prepare, sample))

    def _propose_shown(self) -> None:
        if self.session.current is not None:
            self.propose(self.session.current)

    def _prepare(self, sample: LiveSample) -> Work | None:
        decided = sample.status in DECIDED and not self._layers.seen_maps(sample.key)
        if not sample.maps or decided:
            return None
        request = self.session.label_request(sample)
        active = {entry.id for entry in self.session.classes.active}
        maps = {i: values for i, values in sample.maps.items() if i in active}
        now = sample.edits.now if sample.edits is not None else None

        def make(_: Job) -> NDArray[Any] | Proposed:
            labels, sample.probabilities = self._labeller.labels(
                maps, request, sample.image
            )
            return labels if now is None else Proposed.over(now, labels)

        return make, partial(self._found, sample)

    def _found(self, sample: LiveSample, labels: NDArray[Any] | Proposed) -> None:
        sample.found = _whole(labels)
        if sample is self.session.current:
            self.session.maps_seen.emit()
        if sample.key in self._wanted or (
            sample.edits is not None and sample.status != "new"
        ):
            self._proposed(sample, labels)

    def _proposed(
        self,
        sample: LiveSample,
        labels: NDArray[Any] | Proposed,
        patience: int = _PATIENCE,
    ) -> None:
        layers = self._layers
        layer = layers.labels(sample.key)
        if patience and layer is not None and layers.watches[layer].dragging:
            # The brush goes first, but may never come up as far as napari knows.
            again = partial(self._proposed, sample, labels, patience - 1)
            QTimer.singleShot(_PAUSE, again)
            return
        if sample.status in DECIDED:  # in the meantime
            return
        changes = self.session.classes.replaced()
        if changes.keys() & sample.maps.keys():  # classes were merged meanwhile
            labels = replace_ids(_whole(labels), changes)
        first = sample.status == "new"
        model = sample.trace.model if sample.trace is not None else ""
        about = self.session.describe_maps(model)
        asked = sample.key in self._wanted
        self._wanted.discard(sample.key)
        if sample.edits is None:
            sample.edits = Edits(_whole(labels), about=about)
        else:
            self.take_edits(sample)
            sample.edits.propose(labels, about)
        shown = self.session.show_labels(sample)
        if asked and shown is not None and sample is self.session.current:
            self.session.viewer.layers.selection.active = shown
            # The labels are what is looked at and painted on from here on.
            for entry in self.session.classes.active:
                self.session.show_map(entry.id, False)
            self.session.classes_changed.emit()
        if (first or asked) and not self.session.busy:
            self.session.hint()
        else:
            self.session.hint_again()
        self.session.labels_changed.emit()

    def set_options(self, **options: Any) -> None:
        """Set further fields of `LabelSettings` and propose labels anew."""
        self.session.label_rules.options = options
        self._propose_shown()

    def set_absent(self, number: int, absent: bool) -> None:
        """Say that a class is not in the image that is shown."""
        session, sample = self.session, self.session.current
        if sample is None:
            return
        gone = sample.absent | {number} if absent else sample.absent - {number}
        session.project.change_sample(sample.key, absent=gone, write=False)
        session.saving.save_index()
        session.sample_changed.emit(sample.key)
        self._propose_shown()

    def discard_edits(self) -> None:
        """Forget the strokes on the sample that is shown."""
        sample = self.session.current
        if sample is None or sample.edits is None:
            self.session.complain("There are no edits to discard")
            return
        self.take_edits(sample)
        count, layer = sample.edits.count, self._layers.labels(sample.key)
        if layer is not None:  # as a stroke, which can be undone
            proposal = sample.edits.proposal
            changed = np.nonzero(layer.data != proposal)
            with sample.edits.doing({"by": "undo"}):
                layer.data_setitem(changed, proposal[changed])
        sample.edits.discard()
        self.session.layers.show_labels(sample, self.session.classes)
        self.session.labels_changed.emit()
        back = "" if layer is None else "; Ctrl+Z brings them back"
        self.session.say(f"{count} painted pixels were given back to the maps{back}.")

    # -- strokes -----------------------------------------------------------------

    def take_edits(self, sample: LiveSample, layer: Layer | None = None) -> None:
        """Notice what is on the labels of a sample now, whoever put it there."""
        layer = layer or self._layers.labels(sample.key)
        if layer is not None and sample.edits is not None:
            self._layers.watches[layer].look_now()
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
        shown = self._layers.labels(key) is layer
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
                self._layers.watches[layer].write(labels)
                tiles = None
            redone = undone and self._layers.watches[layer].redone
            about = {"by": "redo"} if redone else {"tool": str(layer.mode)}
            changed = sample.edits.take(layer.data, tiles, undone=undone, about=about)
            known = sample.edits.now if tiles is None else None
            self._layers.watches[layer].known = known
        except ValueError as error:
            self.session.complain(error, "They are as they were before.")
            self.session.layers.show_labels(sample, self.session.classes)
            return
        if changed:
            self.session.labels_changed.emit()
            if unknown := self.session.unknown_ids(sample):
                self.session.say(
                    f"Label {unknown[0]} has no class: create it under Labels.",
                    "warning",
                )


def _whole(labels: NDArray[Any] | Proposed) -> NDArray[Any]:
    """Return what is proposed, (H, W) class ids."""
    return labels.labels if isinstance(labels, Proposed) else labels
