"""The napari layers of a sample: made, updated and found.

Only for the GUI thread.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Layer

from napari_ovam.images.overlay import MAP_COLOR, map_range

from .colors import label_colormap, label_features, map_colormap
from .keys import add_actions
from .marked import COVER, INSTANCES, KEY, MAPS, Mark, MarkedLayers, role_of
from .placement import placed, placed_stack
from .stacks import StackPictures, StackView
from .strokes import LabelsWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam.datasets.class_colors import Colour
    from napari_ovam.datasets.classes import ClassTable

    from .strokes import Listener


class SampleLayers(MarkedLayers):
    """The layers that show samples in one viewer.

    Parameters
    ----------
    session
        Whose samples they are.

    Attributes
    ----------
    listener
        Told of what happens to Labels layers.
    """

    listener: Listener

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        session.layers = self
        add_actions(session)
        self._history: dict[str, tuple[Any, Any]] = {}  # labels, what can be undone
        self._expected: set[str] = set()
        self.stack = StackView(self)
        self.viewer.layers.events.inserted.connect(self._inserted)

    def close(self) -> None:
        """Watch no layer any more."""
        self.stack.close()
        for watch in self.watches.values():
            watch.close()

    def expect(self, sample: str) -> None:
        """Take the layer that a reader makes for a sample for its image."""
        self._expected.add(sample)

    def _inserted(self, event: Any) -> None:
        layer, mark = event.value, role_of(event.value)
        key = layer.metadata.pop(KEY, {}).get("sample") if not mark[0] else None
        if key in self._expected:
            self._expected.remove(key)
            self.mark(layer, (key, "image", 0))
        elif mark[0] and any(
            role_of(other) == mark for other in self.viewer.layers if other is not layer
        ):  # it was removed, and another took its place
            self.release(layer)

    # -- showing ---------------------------------------------------------------

    def switch(self, old: str, new: str) -> None:
        """Hide one sample's layers and show another's as they were."""
        self._switching = True
        if old and old != new:
            layers = self.of_sample(old)
            self._hidden[old] = {layer: layer.visible for layer in layers}
            for layer in layers:
                layer.visible = False
        for layer, visible in self._hidden.pop(new, {}).items():
            _, role, number = role_of(layer)
            is_map = role == "map"
            layer.visible = self.session.view(number).shown if is_map else visible
        self._switching = False

    def conceal(self, sample: str) -> None:
        """Hide all but the picture of a plane that the slider is not on."""
        if sample in self._hidden:
            return
        flat = [layer for layer in self.of_sample(sample) if layer.ndim == 2]
        self._hidden[sample] = {layer: layer.visible for layer in flat}
        self._switching = True
        for layer in flat:
            layer.visible = False
        self._switching = False

    def reveal(self, sample: str) -> bool:
        """Show what `conceal` hid, if it did."""
        hidden = sample in self._hidden
        self.switch("", sample)
        return hidden

    def hand_over(self, old: LiveSample, new: LiveSample) -> None:
        """Show another sample in the layers of one: brush and view stay.

        Maps are removed. What can be undone is kept for each sample until `forget`,
        and given up where its labels changed meanwhile. Removing a layer takes napari
        0.9 up to half a second (it collects garbage): so they are used again.
        """
        hidden = self._hidden.pop(old.key, {})
        for layer in self.of_sample(old.key):
            role, watch = role_of(layer)[1], self.watches.get(layer)
            self.mark(layer, (new.key, role, 0))
            if role == "image" and new.same_stack(old):
                continue  # it is the picture of all its planes
            if role == "image" and new.plane is old.plane is None:
                layer.data = new.image
                layer.name = new.name
            elif watch is not None and old.edits and new.edits:
                self._history[old.key] = old.edits.now, watch.history
                labels, history = self._history.pop(new.key, (None, None))
                now = new.edits.now
                watch.show(now, history if labels is now else None, anew=True)
                layer.name = f"{new.name} labels"
            else:
                self._remove(layer)
                continue
            self.place(layer, new)
        self._hidden[new.key] = {
            layer: seen for layer, seen in hidden.items() if role_of(layer)[0]
        }
        self.reveal(new.key)

    def forget_history(self) -> None:
        """Empty what can be undone: it may hold ids of classes that are gone."""
        self._history.clear()
        for watch in self.watches.values():
            watch.forget_history()

    def forget(self, sample: str) -> None:
        """Take the layers of a sample out of the viewer for good."""
        self._hidden.pop(sample, None)
        self._history.pop(sample, None)
        for layer in self.of_sample(sample):
            self._remove(layer)

    def show_image(self, sample: LiveSample) -> Layer:
        """Make the image layer of a sample, or return it."""
        layer = self.find(sample.key, "image")
        if layer is None:
            plane = sample.plane
            if plane is None:
                data: Any = sample.image
                name, there = sample.name, placed(sample)
            else:
                data = StackPictures(plane.shape, sample.shape)
                data.held[plane.at] = sample.image
                name, there = plane.name, placed_stack(sample, plane)
            layer = Image(data, rgb=True, name=name, **there)
            self._insert(layer, (sample.key, "image", 0))
        return layer

    def show_map(self, sample: LiveSample, number: int) -> Layer | None:
        """Make or update the map layer of a class, in place."""
        values, entry = sample.maps.get(number), self.session.classes.get(number)
        if values is None or entry is None:
            return None
        return self._show_values(
            sample,
            (sample.key, "map", entry.id),
            values,
            entry.phrase,
            map_range(values),
            colormap=map_colormap(entry.color),
            opacity=self.session.map_opacity,
            visible=self.session.view(number).shown,
        )

    def show_extra(
        self,
        sample: LiveSample,
        role: str,
        maps: dict[str, NDArray[np.float32]],
        color: Colour = MAP_COLOR,
        limits: tuple[float, float] | None = None,
    ) -> None:
        """Make or update maps of no class, by name, of one role in `EXTRA`.

        `limits` is what is shown least and most; None is each map's own range.
        """
        for number, (name, values) in enumerate(maps.items(), start=1):
            shown = limits or map_range(values)
            mark = sample.key, role, number
            looks = {"colormap": map_colormap(color)}
            layer = self._show_values(sample, mark, values, name, shown, **looks)
            layer.name = name

    def _show_values(
        self,
        sample: LiveSample,
        mark: Mark,
        values: NDArray[np.float32],
        name: str,
        limits: tuple[float, float],
        **looks: Any,
    ) -> Layer:
        """Make a layer of a map, or give it other values."""
        layer: Any = self.find(*mark)
        if layer is None:
            layer = Image(
                values,
                name=name,
                contrast_limits=limits,
                **looks,
                **placed(sample),
            )
            layer.events.visible.connect(self._seen)
            self._insert(layer, mark)
        else:
            layer.data = values
            layer.contrast_limits = limits
        if mark[1] in MAPS:
            self.session.maps_seen.emit()
        return layer

    def show_cover(
        self, sample: LiveSample, cover: NDArray[np.uint8] | None, step: int = 1
    ) -> None:
        """Show what `map_cover` made of each `step`-th pixel; None hides it."""
        layer: Any = self.find(sample.key, COVER)
        if cover is None:
            if layer is not None:
                layer.visible = False
        elif layer is None:
            layer = Image(cover, rgb=True, name="outlines")
            self.place(layer, sample, (step, step))
            self._insert(layer, (sample.key, COVER, 0))
        else:
            layer.data = cover
            self.place(layer, sample, (step, step))
            layer.visible = True

    def remove_extra(self, sample: str, role: str) -> None:
        """Remove the layers of a role that is in a sample."""
        for layer in self.of_sample(sample):
            if role_of(layer)[1] == role:
                self._remove(layer)

    def remove_maps(self, sample: str, keep: Iterable[int]) -> None:
        """Remove the maps of phrases that are no longer typed."""
        keep = set(keep)
        for layer in self.of_sample(sample):
            _, role, number = role_of(layer)
            if role == "map" and number not in keep:
                self._remove(layer)

    def show_labels(self, sample: LiveSample, classes: ClassTable) -> Labels | None:
        """Make or update the Labels layer of a sample."""
        if sample.edits is None:
            return None
        layer = self.labels(sample.key)
        if layer is not None:
            self.watches[layer].show(sample.edits.now)
            return layer
        labels = sample.edits.labels
        layer = Labels(
            labels,
            name=f"{sample.name} labels",
            opacity=0.6,
            colormap=label_colormap(classes),
            features=label_features(classes),
            **placed(sample),
        )
        layer.selected_label = next((e.id for e in classes.active), 1)
        layer.brush_size = max(1, round(min(labels.shape) / 20))
        mark = sample.key, "labels", 0
        for removed in [la for la in self.watches if role_of(la) == mark]:
            self.release(removed)
        self._insert(layer, mark)
        self.watches[layer] = LabelsWatch(layer, self.listener)
        return layer

    def show_instances(
        self,
        sample: LiveSample,
        ids: NDArray[np.uint16],
        names: dict[str, list[Any]],
        on_drag: Callable[[Labels, Any], Iterator[None]],
    ) -> None:
        """Make or update the layer of a sample's instances, (H, W); 0 is none.

        `names` are its features; `on_drag` handles the mouse on it.
        """
        layer: Any = self.find(sample.key, INSTANCES)
        if layer is None:
            layer = Labels(
                ids,
                name=f"{sample.name} instances",
                opacity=0.8,
                features=names,
                **placed(sample),
            )
            layer.editable = False
            layer.contour = 1 if min(ids.shape) < 256 else 2
            layer.mouse_drag_callbacks.append(on_drag)
            self._insert(layer, (sample.key, INSTANCES, 0))
        else:
            layer.data = ids
            layer.features = names

    def show_classes(self, classes: ClassTable) -> None:
        """Give every Labels and map layer the names and colours of the table."""
        # With 1,000 classes a colour map takes napari a tenth of a second: kept.
        colors = tuple((entry.id, entry.color) for entry in classes)
        for layer in self.viewer.layers:
            _, role, number = role_of(layer)
            if role == "labels":
                self._bind(layer)  # a class may have another key
                watch = self.watches.get(layer)
                with watch.silent() if watch else nullcontext():
                    if self._colors.get(layer) != colors:
                        layer.colormap = label_colormap(classes)
                        self._colors[layer] = colors
                    layer.features = label_features(classes)
            elif role == "map" and number in classes:
                layer.colormap = map_colormap(classes[number].color)
        self.session.maps_seen.emit()

    # -- preview ---------------------------------------------------------------

    def show_preview(self, picture: NDArray[np.uint8], size: tuple[int, int]) -> None:
        """Show an unfinished image above everything, (h, w, 3), scaled to `size`."""
        layer = self.find("preview", "preview")
        if layer is not None and layer.data.shape == picture.shape:
            layer.data = picture
            return
        self.remove_preview()
        scale = (size[0] / picture.shape[0], size[1] / picture.shape[1])
        # Pixel centres: a coarse picture covers the same area as the final one.
        translate = ((scale[0] - 1) / 2, (scale[1] - 1) / 2)
        layer = Image(picture, rgb=True, name="preview", scale=scale)
        layer.translate = translate
        selection = set(self.viewer.layers.selection)
        active = self.viewer.layers.selection.active
        self.mark(layer, ("preview", "preview", 0))
        self.viewer.add_layer(layer)
        self.viewer.layers.selection = selection
        self.viewer.layers.selection.active = active

    def remove_preview(self) -> None:
        """Take the preview away."""
        self.remove_extra("preview", "preview")
