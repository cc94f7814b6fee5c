"""Maps of a session: phrases and tokens on samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.layers.marked import role_of
from napari_ovam._qt.session import tasks
from napari_ovam._qt.session.state import split_phrases
from napari_ovam.base.words import read_phrases

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job


class Maps:
    """Maps phrases."""

    def __init__(self, session: Session) -> None:
        self.session = session
        session.actions["toggle_maps"] = self.toggle
        session.actions["look"] = self.look

    def look(self) -> None:
        """Map the phrases on the sample that is shown, and label what they find."""
        self.map_phrases(self.session.phrases.text, labels=True)

    def map_phrases(self, text: str, *, labels: bool = False) -> None:
        """Map the typed phrases on the sample that is shown, and perhaps label it."""
        phrases, said = read_phrases(text)
        sample = self.session.current
        if not phrases:
            self.session.complain(
                "There is no phrase: type what to look for, such as cat"
            )
            return
        if sample is None:
            self.session.complain(
                "There is no image to map on: generate or load one first"
            )
            return
        if self.session.refused():
            return
        undo = self.session.class_changes.use_phrases(phrases)
        if undo is None:
            return
        wanted = self.session.map_requests()

        def run(job: Job) -> tasks.Maps:
            models = self.session.models
            trace = models.trace(sample, job)
            return tasks.make_maps(models, sample.choice, trace, wanted, job)

        def done(maps: tasks.Maps) -> None:
            self.session.take_maps(sample, maps)
            if not labels:
                for entry in self.session.classes.active:
                    self.session.show_map(entry.id, True)
            if sample is self.session.current:
                self.session.show(sample)
            self.session.layers.show_classes(self.session.classes)
            self.session.classes_changed.emit()
            self.session.maps_changed.emit(sample)
            if said:
                self.session.tell_next(" ".join(said))
            if labels and sample is self.session.current:
                self.session.do("labels")
            else:
                self.session.hint()

        self.session.start(
            "Mapping",
            run,
            returned=done,
            undo=undo,
            kept="The maps are as they were.",
        )
        self.session.classes_changed.emit()

    def map_special(self, text: str) -> None:
        """Map the start and end tokens around the first typed phrase."""
        sample, phrases = self.session.current, split_phrases(text)
        if sample is None or sample.trace is None or not phrases:
            self.session.complain("There is no image or no phrase: make one first")
            return
        trace = sample.trace
        self.session.start(
            "Mapping",
            lambda job: tasks.special_maps(
                self.session.models, sample.choice, trace, phrases[0], job
            ),
            returned=lambda maps: self._special(sample, maps),
            kept="The maps are as they were.",
        )

    def _special(self, sample: LiveSample, maps: dict[str, Any]) -> None:
        self.session.feature(SampleLayers).show_extra(sample, "special", maps)
        self.session.say("The start and end tokens have layers of their own now.")

    def drop_phrase(self, number: int) -> None:
        """Take a phrase away; its class, labels and strokes stay."""
        if self.session.refused():
            return
        self.session.classes.change(number, active=False)
        if self.session.current is not None:
            self.session.show(self.session.current)
        self.session.rules_changed.emit()
        self.session.classes_changed.emit()

    def toggle(self) -> None:
        """Show all maps, or hide them if any is shown."""
        numbers = [entry.id for entry in self.session.classes.active]
        shown = not any(self.session.view(number).shown for number in numbers)
        for number in numbers:
            self.session.show_map(number, shown)
        self.session.classes_changed.emit()

    def set_layers(self, layers: str) -> None:
        """Choose what maps are made of from now on, and map what is shown anew."""
        self.session.map_layers = layers
        phrases = [entry.phrase for entry in self.session.classes.active]
        sample = self.session.current
        if phrases and sample is not None and sample.trace is not None:
            self.map_phrases(", ".join(phrases))

    def set_opacity(self, opacity: float) -> None:
        """Set the opacity of every map layer, 0 to 1."""
        self.session.map_opacity = opacity
        for layer in self.session.viewer.layers:
            if role_of(layer)[1] == "map":
                layer.opacity = opacity
