"""What a window works on: its project, what of it is in memory, and what changed.

Only for the GUI thread. Parts of the session and features read this state, ask for
changes here, and hear of those of others by its events.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

from psygnal import Signal

from napari_ovam.segmentation.class_maps import LAYERS

from .jobs import JobRunner, short
from .models import Models
from .phrases import Phrases
from .project_reading import Opened, new_scratch
from .settings import preferences, preferred_keys
from .state import UNSURE, ClassView, LabelRules, LiveSample
from .tasks import LabelRequest, MapRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.viewer import Viewer

    from napari_ovam import Token
    from napari_ovam.datasets.classes import ClassTable
    from napari_ovam.datasets.project_class import ProjectClass
    from napari_ovam.project import Project, Status

    from .jobs import Kind
    from .tasks import Maps


class Canvas(Protocol):
    """What shows samples: the layers of a viewer, by the sample's key."""

    def find(self, sample: str, role: str, number: int = 0) -> Any:
        """Return the layer of a sample with a role and a class id, or None."""

    def labels(self, sample: str) -> Any:
        """Return the Labels layer of a sample, or None."""

    def switch(self, old: str, new: str) -> None:
        """Hide one sample's layers and show another's as they were."""

    def hand_over(self, old: LiveSample, new: LiveSample) -> None:
        """Show another sample in the layers of one."""

    def of_sample(self, sample: str) -> list[Any]:
        """Return all layers of a sample."""

    def forget(self, sample: str) -> None:
        """Take the layers of a sample out of the viewer for good."""

    def forget_history(self) -> None:
        """Empty what can be undone."""

    def show_image(self, sample: LiveSample) -> Any:
        """Make or update the image layer of a sample."""

    def show_map(self, sample: LiveSample, number: int) -> Any:
        """Make or update the map layer of a class."""

    def show_labels(self, sample: LiveSample, classes: ClassTable) -> Any:
        """Make or update the Labels layer of a sample."""

    def place(self, layer: Any, sample: LiveSample, pixel: Any = None) -> None:
        """Place a layer over a sample's image; `pixel` is how many one of it covers."""

    def remove_maps(self, sample: str, keep: Iterable[int]) -> None:
        """Remove the maps of other classes."""

    def show_classes(self, classes: ClassTable) -> None:
        """Give every layer the names and colours of the table."""


class Workspace(JobRunner):
    """The state of the annotator in one viewer.

    Attributes
    ----------
    opened
        The project that the work is kept in: a scratch project until a person chose a
        folder.
    samples
        Those in memory: all that were made here, or the last ones that were shown of
        a project that was opened.
    current
        The sample that is shown.
    views
        What this window knows of classes, by their ids: see `view`.
    choice
        The model for new images.
    at_once
        Whether a new image gets maps and labels of its prompt's nouns by itself.
    phrases
        What is looked for.
    map_layers, map_opacity
        What maps are made of (one of `class_maps.LAYERS`), and how they are shown.
    label_rules
        How labels are made from maps.
    layers
        What shows samples.
    """

    project_changed = Signal()  # another project; before its samples are listed
    samples_changed = Signal()  # another list of samples
    sample_changed = Signal(str)  # key: another status, or other absent classes
    current_changed = Signal()
    classes_changed = Signal()
    classes_replaced = Signal(object, object)  # sample, {id: id} of its pixels
    maps_changed = Signal(object)  # a sample, whose labels may follow
    rules_changed = Signal()  # how labels are made: those that are shown may follow
    labels_changed = Signal()
    edits_wanted = Signal(object, object)  # sample, layer: see `take_edits`
    optimized_step = Signal(int, float)
    asked = Signal(str)  # a key was pressed for what a section's form starts
    more_wanted = Signal(int)  # a class: more like it is in the image that is shown
    files_wanted = Signal(object)  # places of pictures and stores: to be added
    settings_restored = Signal(object)  # GenerationSettings of a loaded PNG
    placed = Signal()  # a sample's layers lie elsewhere in the world
    maps_seen = Signal()  # other maps are seen, or what they and their lines show

    layers: Canvas

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.models = Models()
        chosen = preferences()
        self.choice, self.at_once = chosen.choice, chosen.at_once
        self.opened: Opened = new_scratch()
        self.samples: list[LiveSample] = []
        self.current: LiveSample | None = None
        self.views: dict[int, ClassView] = {}
        self.map_layers: str = LAYERS[0]
        self.map_opacity = 1.0
        self.label_rules = LabelRules()
        self.phrases = Phrases(self)
        self._news: tuple[str, Kind] = ("", "info")
        self._hinted: tuple[str, Kind, tuple[str, Kind] | None] = ("", "info", None)

    @property
    def viewer(self) -> Viewer:
        """The viewer."""
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer of this session is gone")
        return viewer

    @property
    def project(self) -> Project:
        """The project that the work is kept in."""
        return self.opened.project

    @property
    def classes(self) -> ClassTable:
        """The class table of the project."""
        return self.project.classes

    # -- classes -------------------------------------------------------------------

    def view(self, number: int) -> ClassView:
        """Return what this window knows of a class."""
        return self.views.setdefault(number, ClassView(shown=not self.labels_at_once))

    def figures(self, number: int) -> str:
        """Return what a class's token is worth: "cat: 0.86 → 0.89 from 4 pictures".

        Empty where that is not known.
        """
        view, name = self.view(number), short(self.classes[number].name)
        if view.token is None or view.scores is None:
            return ""
        before, after = (f"{score:.2f}" for score in view.scores)
        if before == after:
            before, after = (f"{score:.3f}" for score in view.scores)
        count = view.token.info.get("images")
        found = f" from {count} picture{'s' * (count != 1)}" if count else ""
        return f"{name}: {before} → {after}{found}"

    def token_in_use(self, entry: ProjectClass) -> Token | None:
        """Return the token of a class, if that is what makes its maps."""
        return self.view(entry.id).token if entry.source == "token" else None

    def map_requests(self, prompt: str | None = None) -> list[MapRequest]:
        """Return what is to be mapped on a sample: all, or what its prompt is about."""
        return [
            MapRequest(e.id, e.phrase, self.token_in_use(e), self.map_layers)
            for e in self.classes.active
            if prompt is None or self.phrases.concerns(e.phrase, prompt)
        ]

    def label_request(self, sample: LiveSample | None = None) -> LabelRequest:
        """Return how labels of a sample are made from its maps."""
        rules = self.label_rules
        return LabelRequest(
            {e.id: e.threshold for e in self.classes.active},
            sample.absent if sample is not None else frozenset(),
            dict(rules.options),
        )

    def describe_maps(self, model: str) -> dict[str, Any]:
        """Return what labels are made of now, as `project.history.Change` has it.

        `model` is that of the trace.
        """
        return {
            "by": "maps",
            "model": model,
            "layers": self.map_layers,
            "thresholds": {str(e.id): e.threshold for e in self.classes.active},
            "sources": {
                str(wanted.id): {"phrase": wanted.phrase}
                | ({"token": wanted.token.digest} if wanted.token else {})
                for wanted in self.map_requests()
            },
        }

    @property
    def labels_at_once(self) -> bool:
        """Whether a new sample gets labels by itself: always, or once asked for."""
        return self.at_once or self.label_rules.automatic

    def automatic_labels(self) -> LabelRequest | None:
        """Return how labels of a new sample are made, if they are by themselves."""
        return self.label_request() if self.labels_at_once else None

    # -- samples -------------------------------------------------------------------

    def sample(self, key: str) -> LiveSample | None:
        """Return the sample in memory with a key."""
        return next((s for s in self.samples if s.key == key), None)

    def set_status(self, sample: LiveSample, status: Status) -> None:
        """Say how far the labels of a sample are; `Saving` writes it with them."""
        if sample.status != status:
            self.project.change_sample(sample.key, status=status, write=False)
            self.sample_changed.emit(sample.key)

    def take_edits(self, sample: LiveSample | None, layer: Any = None) -> None:
        """Notice what a person painted on a sample up to now; None is no sample.

        `layer` is its layer where that is no longer in the viewer.
        """
        if sample is not None:
            self.edits_wanted.emit(sample, layer)

    def take_all(self) -> None:
        """Notice what was painted on all samples."""
        for sample in self.samples:
            self.take_edits(sample)

    def take_maps(self, sample: LiveSample, maps: Maps) -> None:
        """Give a sample new maps."""
        sample.maps.update(maps.maps)
        sample.presence.update(maps.presence)
        for number, pieces in maps.pieces.items():
            if pieces:
                self.view(number).pieces = pieces

    def unknown_ids(self, sample: LiveSample | None) -> list[int]:
        """Return painted ids that have no class."""
        if sample is None or sample.edits is None:
            return []
        ids = sorted(sample.edits.now.ids - {0, UNSURE})
        return [i for i in ids if i not in self.classes]

    # -- showing -------------------------------------------------------------------

    def tell_next(self, news: str, kind: Kind = "info") -> None:
        """Say something before what can be done next, once that is said."""
        self._news = news, kind

    def complain(self, error: Exception | str, kept: str = "") -> None:
        """Show an error; what there was to say before what can be done next is over."""
        self._news = ("", "info")
        super().complain(error, kept)

    def hint(self) -> None:
        """Say what can be done next."""
        (news, kind), self._news = self._news, ("", "info")
        self.say(f"{news} {self._next_step()}".strip(), kind)
        self._hinted = news, kind, self.message

    def hint_again(self) -> None:
        """Say it anew, as labels are others now, where nothing else was said since."""
        news, kind, said = self._hinted
        if self.message == said:
            self.tell_next(news, kind)
            self.hint()

    def _next_step(self) -> str:
        sample = self.current
        if sample is None:
            return "Describe an image and press Generate, or load one."
        if sample.unlabelled:
            if not sample.maps:
                return "Type what to look for, and press Map."
            return "Press Labels from maps to turn the maps into labels."
        found = self._found(sample)
        if self.opened.chosen:
            return (
                f"{found}Correct the labels with the brush, then accept or reject them."
            )
        if sample.edits is not None and sample.edits.are_proposal:
            return (
                f"{found}Correct the labels with the brush, then optimize a token from "
                "them."
            )
        if not any(self.view(entry.id).token for entry in self.classes):
            return "Optimize a token from your labels, or keep painting."
        return "Generate the next image, or export the labels."

    def _found(self, sample: LiveSample) -> str:
        """Say which classes were found in a sample, where nobody corrected it yet."""
        if not sample.maps or sample.edits is None or not sample.edits.are_proposal:
            return ""
        held = sample.edits.now.ids
        names = [short(e.name, 24) for e in self.classes if e.id in held]
        if not names:
            return "None of the phrases was found: type others and press Map. "
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        key = preferred_keys().get("toggle_maps") or "H"
        seen = any(self.view(entry.id).shown for entry in self.classes.active)
        does = "hides" if seen else "shows"
        return f"Found: {', '.join(names[:5])}{more} ({key} {does} the maps). "

    def show(self, sample: LiveSample) -> None:
        """Show a sample as it is now."""
        self.take_edits(sample)
        self.layers.show_image(sample)
        active = [entry.id for entry in self.classes.active]
        self.layers.remove_maps(sample.key, keep=active)
        for number in active:
            self.layers.show_map(sample, number)
        labels = self.layers.show_labels(sample, self.classes)
        if labels is not None and self.opened.read_only:
            labels.editable = False

    def show_labels(self, sample: LiveSample) -> Any:
        """Show what the labels of a sample are now, where it has a layer or is shown.

        A layer that was left as it is would be taken for what a person wants.
        """
        if sample is self.current or self.layers.labels(sample.key) is not None:
            return self.layers.show_labels(sample, self.classes)
        return None

    def show_map(self, number: int, shown: bool) -> None:
        """Show or hide the maps of a class."""
        self.view(number).shown = shown
        if self.current is not None:
            layer = self.layers.find(self.current.key, "map", number)
            if layer is not None:
                layer.visible = shown
