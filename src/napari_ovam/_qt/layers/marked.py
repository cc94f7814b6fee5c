"""The napari layers of samples: known by what they show, found, added and removed.

Only for the GUI thread.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari.layers import Labels, Layer

from .keys import bind_keys

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session

    from .strokes import LabelsWatch

KEY = "napari_ovam"
"""Under it the metadata of a layer from a reader name the sample that it is for."""
# Of the special tokens, of a class, of what is typed.
MAPS = ("special", "map", "typed")
EXTRA = ("special", "typed", "uncertainty")  # of no class
COVER, INSTANCES = "cover", "instances"
_ORDER: tuple[str, ...] = ("image", *MAPS, COVER, "labels", INSTANCES)
_ORDER += ("uncertainty", "preview")

Mark = tuple[str, str, int]  # sample key, role, class id
# Of each layer object: what napari copies into another layer would make it ours too.
_marks: WeakKeyDictionary[Layer, Mark] = WeakKeyDictionary()


def role_of(layer: Layer) -> Mark:
    """Return (sample key, role, class id) of a layer; empty and 0 where not ours."""
    return _marks.get(layer, ("", "", 0))


class MarkedLayers:
    """The layers of samples in one viewer, by sample, role and class id.

    Parameters
    ----------
    session
        Whose samples they are.

    Attributes
    ----------
    watches
        What watches each Labels layer of a sample.
    removing
        Whether a layer is removed here, and by no person.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.viewer = viewer = session.viewer
        self._bind = partial(bind_keys, session)
        self.watches: dict[Layer, LabelsWatch] = {}
        self._colors: dict[Layer, Any] = {}  # that labels are shown in
        self._switching = False
        self.removing = False
        viewer.layers.events.removing.connect(self._use_canvas_context)
        viewer.layers.events.removed.connect(self._removed)

    def find(self, sample: str, role: str, number: int = 0) -> Layer | None:
        """Return the layer of a sample with a role and a class id, if it is there."""
        for layer in self.viewer.layers:
            if role_of(layer) == (sample, role, number):
                return layer
        return None

    def labels(self, sample: str) -> Labels | None:
        """Return the Labels layer of a sample, if it is there."""
        found = self.find(sample, "labels")
        return found if isinstance(found, Labels) else None

    def of_sample(self, sample: str) -> list[Layer]:
        """Return all layers of a sample."""
        return [la for la in self.viewer.layers if role_of(la)[0] == sample]

    def seen_maps(self, sample: str) -> dict[Layer, tuple[str, int]]:
        """Return the maps of a sample that are seen, with their roles and class ids."""
        maps = [la for la in self.of_sample(sample) if role_of(la)[1] in MAPS]
        return {layer: role_of(layer)[1:] for layer in maps if layer.visible}

    def mark(self, layer: Layer, mark: Mark) -> None:
        """Say what a layer shows."""
        _marks[layer] = mark

    def release(self, layer: Layer) -> None:
        """Leave a layer to the person: it is none of ours any more."""
        _marks.pop(layer, None)
        self._colors.pop(layer, None)
        if watch := self.watches.pop(layer, None):
            watch.close()

    def _remove(self, layer: Layer) -> None:
        self.removing = True
        try:
            self.viewer.layers.remove(layer)
        finally:
            self.removing = False
            self.release(layer)

    def _removed(self, event: Any) -> None:
        if role_of(event.value)[1] in MAPS:
            self.session.maps_seen.emit()

    def _seen(self, event: Any) -> None:
        """Take what a person shows or hides in napari's list of layers."""
        if not self._switching:
            _, role, number = role_of(event.source)
            if role == "map":
                self.session.view(number).shown = event.source.visible
            self.session.maps_seen.emit()

    def _use_canvas_context(self, _: Any = None) -> None:
        """Have a layer's OpenGL objects deleted in the context that they belong to.

        napari 0.9 deletes them as soon as a layer is removed, in whichever context is
        current then. After a mouse event that is another one, and Mesa's software
        renderer ended the process in the next draw (see also napari issue 8471).
        """
        canvas = getattr(self.viewer.window._qt_viewer, "canvas", None)
        make_current = getattr(getattr(canvas, "native", None), "makeCurrent", None)
        if make_current is not None:
            make_current()

    def _insert(self, layer: Layer, mark: Mark) -> None:
        """Add a layer in the order image, maps, labels; keep what is selected."""
        sample, role, _ = _marks[layer] = mark
        rank = _ORDER.index(role)
        later = [
            i
            for i, other in enumerate(self.viewer.layers)
            if role_of(other)[0] == sample and _ORDER.index(role_of(other)[1]) > rank
        ]
        had = self.viewer.layers.selection.active
        self.viewer.add_layer(layer)
        if later:
            self.viewer.layers.move(self.viewer.layers.index(layer), later[0])
        # Only labels shall take the brush away from labels.
        if role not in ("image", "labels") and had is not None:
            self.viewer.layers.selection.active = had
        if role not in EXTRA:
            self._bind(layer)
