"""Maps of a session: phrases and tokens on samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_ovam._qt.layers.layers import role_of
from napari_ovam._qt.session import tasks
from napari_ovam._qt.session.state import LiveSample, split_phrases
from napari_ovam.base.words import read_phrases
from napari_ovam.segmentation.class_maps import LAYERS

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job


class Maps:
    """Maps phrases.

    Attributes
    ----------
    opacity
        0 to 1, of every map layer.
    layers
        What maps are made of, one of `class_maps.LAYERS`.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.opacity = 0.6
        self.layers = LAYERS[0]

    def map_phrases(self, text: str) -> None:
        """Map the typed phrases on the sample that is shown."""
        phrases, said = read_phrases(text)
        sample = self.session.current
        if not phrases:
            self.session.complain(
                "There is no phrase: type what to look for, such as cat"
            )
            return
        in_project = self.session.projects.opened is not None
        if sample is None or (sample.trace is None and not in_project):
            self.session.complain(
                "There is no image to map on: generate or load one first"
            )
            return
        if self.session.refused():
            return
        known = {entry.id: entry.active for entry in self.session.classes}
        self.session.classes.use_phrases(phrases)
        wanted, _ = self.wanted()

        def run(job: Job) -> tasks.Maps:
            if sample.trace is None:
                sample.trace = self.session.projects.trace(sample, job)
            return tasks.make_maps(
                self.session.models, sample.choice, sample.trace, wanted, job
            )

        def done(maps: tasks.Maps) -> None:
            self.take(sample, maps)
            if sample is self.session.current:
                self.session.show(sample)
            self.session.layers.show_classes(self.session.classes)
            self.session.classes_changed.emit()
            if sample.edits is not None and sample.status != "new":
                self.session.labels.propose(sample)
            if said:
                self.session.say(" ".join(said))
            else:
                self.session.hint()

        def undo() -> None:
            self.session.classes.use_again(known)
            self.session.classes_changed.emit()

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
        self.session.layers.show_extra(sample, "special", maps)
        self.session.say("The start and end tokens have layers of their own now.")

    def drop_phrase(self, number: int) -> None:
        """Take a phrase away; its class, labels and strokes stay."""
        if self.session.refused():
            return
        self.session.classes[number].active = False
        if self.session.current is not None:
            self.session.show(self.session.current)
            if self.session.current.edits is not None:
                self.session.labels.propose(self.session.current)
        self.session.classes_changed.emit()

    def wanted(self) -> tuple[list[tasks.MapRequest], tasks.LabelRequest | None]:
        wanted = [
            tasks.MapRequest(e.id, e.phrase, e.token_in_use, self.layers)
            for e in self.session.classes.active
        ]
        return (
            wanted,
            self.session.labels.request() if self.session.labels.automatic else None,
        )

    def take(self, sample: LiveSample, maps: tasks.Maps) -> None:
        sample.maps.update(maps.maps)
        for number, pieces in maps.pieces.items():
            if pieces:
                self.session.classes[number].pieces = pieces

    def show_map(self, number: int, shown: bool) -> None:
        """Show or hide the maps of a class."""
        self.session.classes[number].shown = shown
        for sample in self.session.samples:
            layer = self.session.layers.find(sample.key, "map", number)
            if layer is not None and sample is self.session.current:
                layer.visible = shown

    def set_layers(self, layers: str) -> None:
        """Choose what maps are made of from now on, and map what is shown anew."""
        self.layers = layers
        phrases = [entry.phrase for entry in self.session.classes.active]
        sample = self.session.current
        if phrases and sample is not None and sample.trace is not None:
            self.map_phrases(", ".join(phrases))

    def set_opacity(self, opacity: float) -> None:
        """Set the opacity of every map layer, 0 to 1."""
        self.opacity = opacity
        for layer in self.session.viewer.layers:
            if role_of(layer)[1] == "map":
                layer.opacity = opacity
