"""The napari layers of samples: known by what they show, found, added and removed.

Only for the GUI thread.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari.layers import Labels, Layer

from napari_ovam.images.arrays.stacks import STACK, Plane

from .keys import bind_keys
from .placement import (
    PARTS,
    PLACEMENT,
    pixel_of,
    place,
    placement_of,
    planes_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam.project import Project

    from .placement import Pair
    from .stacks import StackView
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
# What follows another layer: project, sample key, axes, how much one pixel covers.
_Follower = tuple["Project", str, tuple[int, ...], "Pair"]
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

    stack: StackView

    def __init__(self, session: Session) -> None:
        self.session = session
        self.viewer = viewer = session.viewer
        self._bind = partial(bind_keys, session)
        self.watches: dict[Layer, LabelsWatch] = {}
        self._colors: dict[Layer, Any] = {}  # that labels are shown in
        self._hidden: dict[str, dict[Layer, bool]] = {}
        self._followed: WeakKeyDictionary[Layer, list[_Follower]] = WeakKeyDictionary()
        self._switching = self._placing = False
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
        if layer not in _marks:
            for name in PARTS:
                getattr(layer.events, name).connect(self._moved)
        _marks[layer] = mark

    # -- where they lie ----------------------------------------------------------

    def place(
        self, layer: Layer, sample: LiveSample, pixel: Pair | None = None
    ) -> None:
        """Place a layer over a sample's image, as `placement.place`."""
        before, self._placing = self._placing, True
        try:
            place(layer, sample, pixel)
        finally:
            self._placing = before

    def follow(self, layer: Layer, key: str, axes: Sequence[int], pixel: Pair) -> None:
        """Have a sample, and all planes of its stack, follow the layer they came from.

        `axes` are those of planes, rows and columns, `pixel` as in `placement_of`.
        """
        if layer not in self._followed:
            for name in PARTS:
                getattr(layer.events, name).connect(self._source_moved)
        known = self._followed.setdefault(layer, [])
        known.append((self.session.project, key, tuple(axes), pixel))

    def _source_moved(self, event: Any) -> None:
        for project, key, axes, pixel in self._followed[event.source]:
            if project is self.session.project and not self.session.closed:
                self._follow(event.source, key, axes, pixel)

    def _moved(self, event: Any) -> None:
        """Have the layers of a sample follow the one of them that a person moved."""
        layer, key = event.source, role_of(event.source)[0]
        ours = not self._placing and self.session.sample(key) is not None
        if ours and pixel_of(layer) == (1, 1):
            self._follow(layer, key, range(layer.ndim), (1, 1))

    def _follow(self, layer: Layer, key: str, axes: Sequence[int], pixel: Pair) -> None:
        """Place a sample, and with it all planes of its stack, as a layer is placed."""
        session = self.session
        try:
            there = placement_of(layer, axes[-2:], pixel)
            records = self.stack.records(session.project.sample(key))
        except (ValueError, KeyError) as error:  # turned out of the plane, or gone
            session.complain(error, "Its labels stay where they were.")
            return
        about: dict[str, Any] = {PLACEMENT: there}
        for record in records:
            plane, name = Plane.of(record.provenance), record.name
            if plane is not None and len(axes) > 2:
                along = planes_of(layer, axes[:-2])
                about[STACK] = replace(plane, **along).as_json()
            session.project.change_sample(name, provenance=about, write=False)
        session.saving.save_index()
        keys = {record.name for record in records}
        for each in self.viewer.layers:
            sample = session.sample(role_of(each)[0])
            if sample is not None and sample.key in keys:
                self.place(each, sample)
        session.placed.emit()

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
        self.mark(layer, mark)
        sample, role, _ = mark
        rank = _ORDER.index(role)
        later = [
            i
            for i, other in enumerate(self.viewer.layers)
            if role_of(other)[0] == sample and _ORDER.index(role_of(other)[1]) > rank
        ]
        had = self.viewer.layers.selection.active
        self.viewer.add_layer(layer)
        if sample in self._hidden and layer.ndim == 2:
            self._hidden[sample][layer], layer.visible = layer.visible, False
        if later:
            self.viewer.layers.move(self.viewer.layers.index(layer), later[0])
        # Only labels shall take the brush away from labels.
        if role not in ("image", "labels") and had is not None:
            self.viewer.layers.selection.active = had
        if role not in EXTRA:
            self._bind(layer)
