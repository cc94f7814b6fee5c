"""The napari layers of a sample: made, updated and found by their metadata.

Only for the GUI thread.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_ovam._qt.session.state import UNSURE

from .keys import add_actions, bind_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam.datasets.classes import ClassTable, ProjectClass

KEY = "napari_ovam"
# Roles of maps of no class: of the special tokens, of what is typed, and uncertainty.
_EXTRA = ("special", "typed", "uncertainty")
_INSTANCES = "instances"
_UNSURE_COLOUR = (0.62, 0.62, 0.62, 1.0)
_UNKNOWN_COLOUR = (1.0, 0.0, 1.0, 1.0)


def role_of(layer: Layer) -> tuple[str, str, int]:
    """Return (sample key, role, class id) of a layer; empty and 0 where not ours."""
    mark = layer.metadata.get(KEY, {})
    return mark.get("sample", ""), mark.get("role", ""), mark.get("class", 0)


class SampleLayers:
    """The layers that show samples in one viewer.

    Parameters
    ----------
    session
        Whose samples they are.

    Attributes
    ----------
    on_edit
        Called as (sample key, layer, undone) after a person changed labels.
    on_confirm
        Called as (sample key, mask) with pixels that a person painted over with the
        label that they had.
    """

    on_edit: Callable[[str, Labels, bool], None]
    on_confirm: Callable[[str, NDArray[np.bool_]], None]

    def __init__(self, session: Session) -> None:
        self.session = session
        self.viewer = viewer = session.viewer
        session.layers = self
        add_actions(session)
        self._bind = partial(bind_keys, session)
        self._writing = False
        self._hidden: dict[str, dict[Layer, bool]] = {}
        self._history: dict[str, tuple[Any, Any]] = {}  # labels, what can be undone
        self.removing = False  # and no person does
        viewer.layers.events.removing.connect(self._use_canvas_context)

    # -- finding ---------------------------------------------------------------

    def find(self, sample: str, role: str, number: int = 0) -> Layer | None:
        """Return the layer of a sample with a role and a class id, if it is there."""
        for layer in self.viewer.layers:
            if role_of(layer) == (sample, role, number):
                return layer
        return None

    def of_sample(self, sample: str) -> list[Layer]:
        """Return all layers of a sample."""
        return [la for la in self.viewer.layers if role_of(la)[0] == sample]

    # -- showing ---------------------------------------------------------------

    def switch(self, old: str, new: str) -> None:
        """Hide one sample's layers and show another's as they were."""
        if old and old != new:
            layers = self.of_sample(old)
            self._hidden[old] = {layer: layer.visible for layer in layers}
            for layer in layers:
                layer.visible = False
        for layer, visible in self._hidden.pop(new, {}).items():
            layer.visible = visible

    def hand_over(self, old: LiveSample, new: LiveSample) -> None:
        """Show another sample in the layers of one: brush and view stay.

        Maps are removed. What can be undone is kept for each sample until `forget`,
        and given up where its labels changed meanwhile. Removing a layer takes napari
        0.9 up to half a second (it collects garbage): so they are used again.
        """
        for layer in self.of_sample(old.key):
            role = role_of(layer)[1]
            if role == "image":
                layer.data = new.image
                layer.name = new.name
            elif isinstance(layer, Labels) and old.edits and new.edits:
                history = layer._undo_history, layer._redo_history
                self._history[old.key] = old.edits.labels, history
                labels, history = self._history.pop(new.key, (None, history))
                self._writing = True
                try:
                    layer.data = new.edits.labels.copy()
                finally:
                    self._writing = False
                layer._reset_history()
                if labels is new.edits.labels:
                    layer._undo_history, layer._redo_history = history
                layer.name = f"{new.name} labels"
            else:
                self._remove(layer)
                continue
            mark = {**layer.metadata[KEY], "sample": new.key}
            layer.metadata = {**layer.metadata, KEY: mark}

    def forget_history(self) -> None:
        """Empty what can be undone: it may hold ids of classes that are gone."""
        self._history.clear()
        for layer in self.viewer.layers:
            if isinstance(layer, Labels) and role_of(layer)[1] == "labels":
                layer._reset_history()

    def painting(self, sample: str) -> bool:
        """Whether a person is in the middle of a stroke."""
        layer = self.find(sample, "labels")
        return isinstance(layer, Labels) and layer._block_history

    def forget(self, sample: str) -> None:
        """Take the layers of a sample out of the viewer for good."""
        self._hidden.pop(sample, None)
        self._history.pop(sample, None)
        for layer in self.of_sample(sample):
            self._remove(layer)

    def _remove(self, layer: Layer) -> None:
        self.removing = True
        try:
            self.viewer.layers.remove(layer)
        finally:
            self.removing = False

    def show_image(self, sample: LiveSample) -> Image:
        """Make or update the image layer of a sample."""
        layer = self.find(sample.key, "image")
        if layer is not None:
            return layer
        layer = Image(
            sample.image,
            rgb=True,
            name=sample.name,
            metadata={KEY: {"sample": sample.key, "role": "image"}},
        )
        self._insert(layer, sample.key)
        self._bind(layer)
        return layer

    def show_map(self, sample: LiveSample, number: int) -> Image | None:
        """Make or update the map layer of a class, in place."""
        values, entry = sample.maps.get(number), self.session.classes.get(number)
        if values is None or entry is None:
            return None
        layer = self.find(sample.key, "map", entry.id)
        if layer is None:
            layer = Image(
                values,
                name=entry.phrase,
                colormap=map_colormap(entry),
                blending="additive",
                contrast_limits=_limits(values),
                opacity=self.session.map_opacity,
                visible=self.session.view(number).shown,
                metadata={
                    KEY: {"sample": sample.key, "role": "map", "class": entry.id}
                },
            )
            self._insert(layer, sample.key)
            self._bind(layer)
        else:
            layer.data = values
            layer.contrast_limits = _limits(values)
        return layer

    def show_extra(
        self,
        sample: LiveSample,
        role: str,
        maps: dict[str, NDArray[np.float32]],
        colormap: str = "gray",
        limits: tuple[float, float] | None = None,
    ) -> None:
        """Make or update maps of no class, by name, of one role in `_EXTRA`.

        `limits` is what is shown black and bright; None is each map's own range.
        """
        for number, (name, values) in enumerate(maps.items(), start=1):
            layer = self.find(sample.key, role, number)
            if layer is not None:
                layer.data = values
                layer.contrast_limits = limits or _limits(values)
                layer.name = name
                continue
            layer = Image(
                values,
                name=name,
                colormap=colormap,
                blending="additive",
                contrast_limits=limits or _limits(values),
                metadata={KEY: {"sample": sample.key, "role": role, "class": number}},
            )
            self._insert(layer, sample.key)

    def remove_extra(self, sample: str, role: str) -> None:
        """Remove what `show_extra` showed."""
        for layer in self.of_sample(sample):
            if role_of(layer)[1] == role:
                self._remove(layer)

    def remove_maps(self, sample: str, keep: Iterable[int]) -> None:
        """Remove the maps of phrases that are no longer typed."""
        keep = set(keep)
        for layer in self.of_sample(sample):
            _, role, number = role_of(layer)
            if role == "map" and number not in keep:
                self.viewer.layers.remove(layer)

    def show_labels(self, sample: LiveSample, classes: ClassTable) -> Labels | None:
        """Make or update the Labels layer of a sample.

        After an update napari's undo history is emptied: its old values would come
        back as stale pixels. Making the layer read-only for a moment is napari's
        public way to do so.
        """
        if sample.edits is None:
            return None
        labels = sample.edits.labels
        layer = self.find(sample.key, "labels")
        if layer is None:
            layer = Labels(
                labels.copy(),
                name=f"{sample.name} labels",
                opacity=0.6,
                colormap=label_colormap(classes),
                features=label_features(classes),
                metadata={KEY: {"sample": sample.key, "role": "labels"}},
            )
            first = next((e.id for e in classes.active), 1)
            layer.selected_label = first
            layer.brush_size = max(1, round(min(labels.shape) / 20))
            self._insert(layer, sample.key)
            self._watch(layer)
            self._bind(layer)
        elif not np.array_equal(layer.data, labels):
            self._writing = True
            try:
                mode = layer.mode
                layer.data = labels.copy()
                layer.editable = False
                layer.editable = True
                layer.mode = mode
            finally:
                self._writing = False
        return layer

    def show_instances(
        self,
        sample: LiveSample,
        ids: NDArray[np.uint16],
        names: dict[str, list[Any]],
        on_drag: Callable[[Labels, Any], Iterator[None]],
    ) -> Labels:
        """Make or update the layer of a sample's instances, (H, W); 0 is none.

        `names` are its features; `on_drag` handles the mouse on it.
        """
        layer = self.find(sample.key, _INSTANCES)
        if layer is None:
            layer = Labels(
                ids,
                name=f"{sample.name} instances",
                opacity=0.8,
                features=names,
                metadata={KEY: {"sample": sample.key, "role": _INSTANCES}},
            )
            layer.editable = False
            layer.contour = 1 if min(ids.shape) < 256 else 2
            layer.mouse_drag_callbacks.append(on_drag)
            had = self.viewer.layers.selection.active
            self._insert(layer, sample.key)
            self._bind(layer)
            if had is not None:
                self.viewer.layers.selection.active = had
        else:
            layer.data = ids
            layer.features = names
        return layer

    def remove_instances(self, sample: str) -> None:
        """Take the layer of a sample's instances away."""
        for layer in self.of_sample(sample):
            if role_of(layer)[1] == _INSTANCES:
                self._remove(layer)

    def show_classes(self, classes: ClassTable) -> None:
        """Give every Labels and map layer the names and colours of the table."""
        colours = tuple((entry.id, entry.color) for entry in classes)
        for layer in self.viewer.layers:
            _, role, number = role_of(layer)
            if role == "labels":
                self._bind(layer)  # a class may have another key
                self._writing = True
                try:
                    # With 1,000 classes a colour map takes napari a tenth of a second.
                    if layer.metadata[KEY].get("colours") != colours:
                        layer.colormap = label_colormap(classes)
                        layer.metadata[KEY]["colours"] = colours
                    layer.features = label_features(classes)
                finally:
                    self._writing = False
            elif role == "map" and number in classes:
                layer.colormap = map_colormap(classes[number])

    # -- preview ---------------------------------------------------------------

    def show_preview(self, picture: NDArray[np.uint8], size: tuple[int, int]) -> None:
        """Show an unfinished image above everything, (h, w, 3), scaled to `size`."""
        layer = self.find("preview", "preview")
        scale = (size[0] / picture.shape[0], size[1] / picture.shape[1])
        # Pixel centres: a coarse picture covers the same area as the final one.
        translate = ((scale[0] - 1) / 2, (scale[1] - 1) / 2)
        if layer is None:
            selection = set(self.viewer.layers.selection)
            active = self.viewer.layers.selection.active
            layer = Image(
                picture,
                rgb=True,
                name="preview",
                scale=scale,
                translate=translate,
                metadata={KEY: {"sample": "preview", "role": "preview"}},
            )
            self.viewer.add_layer(layer)
            self.viewer.layers.selection = selection
            self.viewer.layers.selection.active = active
        elif layer.data.shape != picture.shape:
            self.viewer.layers.remove(layer)
            self.show_preview(picture, size)
        else:
            layer.data = picture

    def remove_preview(self) -> None:
        """Take the preview away."""
        layer = self.find("preview", "preview")
        if layer is not None:
            self.viewer.layers.remove(layer)

    # -- inside ----------------------------------------------------------------

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

    def _insert(self, layer: Layer, sample: str) -> None:
        """Add a layer in the order image, maps, labels; keep what is selected."""
        order = (
            "image",
            "special",
            "map",
            "typed",
            "labels",
            _INSTANCES,
            "uncertainty",
        )
        rank = order.index(role_of(layer)[1])
        later = [
            i
            for i, other in enumerate(self.viewer.layers)
            if role_of(other)[0] == sample and order.index(role_of(other)[1]) > rank
        ]
        had = self.viewer.layers.selection.active
        self.viewer.add_layer(layer)
        if later:
            self.viewer.layers.move(self.viewer.layers.index(layer), later[0])
        # Maps must not take the brush away from the labels; labels shall get it.
        if role_of(layer)[1] in ("map", *_EXTRA) and had is not None:
            self.viewer.layers.selection.active = had

    def _watch(self, layer: Labels) -> None:
        def painted(_: Any = None) -> None:
            if not self._writing:
                self.on_edit(role_of(layer)[0], layer, False)

        def replaced(_: Any = None) -> None:
            # undo, redo and `layer.data = ...`; strokes come as `paint` instead
            if not self._writing and not layer._block_history:
                self.on_edit(role_of(layer)[0], layer, True)

        def stroke(layer: Labels, event: Any) -> Iterator[None]:
            """Remember what the brush went over, also where it changed nothing."""
            if layer.mode not in ("paint", "erase"):
                return
            places = [layer.world_to_data(event.position)]
            yield
            while event.type == "mouse_move":
                places.append(layer.world_to_data(event.position))
                yield
            value = layer.selected_label if layer.mode == "paint" else 0
            under = brushed(places, layer.brush_size, layer.data.shape)
            self.on_confirm(role_of(layer)[0], under & (layer.data == value))

        layer.events.paint.connect(painted)
        layer.events.set_data.connect(replaced)
        layer.mouse_drag_callbacks.append(stroke)


def brushed(
    places: Sequence[Sequence[float]], size: float, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return the pixels within a round brush drawn along places (row, column)."""
    mask = np.zeros(shape, bool)
    radius = size / 2
    for start, end in zip(places, [*places[1:], places[-1]], strict=True):
        along = np.subtract(end, start)
        length = float(along @ along) or 1.0
        low = np.floor(np.minimum(start, end) - radius).astype(int).clip(0)
        high = np.ceil(np.maximum(start, end) + radius).astype(int).clip(-1) + 1
        near = tuple(
            slice(a, min(b, n)) for a, b, n in zip(low, high, shape, strict=True)
        )
        rows, columns = np.ogrid[near]
        part = (rows - start[0]) * along[0] + (columns - start[1]) * along[1]
        part = (part / length).clip(0, 1)
        distance = np.hypot(
            rows - start[0] - part * along[0], columns - start[1] - part * along[1]
        )
        mask[near] |= distance <= radius
    return mask


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return what is shown black and bright; a map is seldom near 0 anywhere."""
    low = float(values.min())
    return (low, 1.0) if low < 1 else (0.0, 1.0)


def map_colormap(entry: ProjectClass) -> Colormap:
    """Return black to the class's colour."""
    colour = [c / 255 for c in entry.color]
    return Colormap([[0, 0, 0, 1], [*colour, 1]], name=f"ovam {entry.id}")


def label_colormap(classes: ClassTable) -> DirectLabelColormap:
    """Return the classes' colours; magenta for ids without a class."""
    colours: dict[int | None, Any] = {
        0: (0, 0, 0, 0),
        UNSURE: _UNSURE_COLOUR,
        None: _UNKNOWN_COLOUR,
    }
    for entry in classes:
        colours[entry.id] = (*(c / 255 for c in entry.color), 1.0)
    return DirectLabelColormap(color_dict=colours)


def label_features(classes: ClassTable) -> dict[str, list[Any]]:
    """Return the table that shows names in napari's status bar."""
    rows = [(0, "background"), (UNSURE, "unsure"), *((e.id, e.name) for e in classes)]
    rows.sort()
    return {"index": [i for i, _ in rows], "name": [name for _, name in rows]}
