"""Pictures of napari's image layers: which axes they have, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image

from napari_ovam._qt.layers.marked import role_of
from napari_ovam._qt.layers.placement import PLACEMENT, placement_of, planes_of
from napari_ovam.images.arrays.planes import LARGEST, Pictures, Shown
from napari_ovam.images.arrays.stacks import STACK, Plane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

    from napari_ovam._qt.layers.layers import SampleLayers

_AXES = ("p", "t", "z")  # what axes are called that nobody named
_CHANNELS = ("c", "ch", "channel", "channels")
_FEW = 4  # so many are taken for channels
_ids: WeakKeyDictionary[Image, str] = WeakKeyDictionary()  # of stacks


@dataclass(frozen=True)
class Channels:
    """Which channels of a layer are red, green and blue.

    Attributes
    ----------
    axis
        The layer's axis of channels; None where it has none.
    colors
        The channel of each colour, -1 for none; a single one is grey.
    """

    axis: int | None = None
    colors: tuple[int, ...] = ()


NO_CHANNELS = Channels()


@dataclass(frozen=True)
class Source:
    """Layers that are taken for pictures, and how: one, or several that are blended.

    Attributes
    ----------
    layers
        The first says where the pictures lie.
    pictures
        What is read.
    """

    layers: tuple[Image, ...]
    pictures: Pictures

    @classmethod
    def of(
        cls,
        layers: Sequence[Image],
        channels: Channels = NO_CHANNELS,
        largest: int = LARGEST,
    ) -> Source:
        """Look at layers, which may be lazy: nothing is read.

        Raises
        ------
        ValueError
            If they hold no pictures of one size, or lie in no plane.
        """
        colored = len(layers) > 1
        shown = [
            each
            for layer in layers
            for each in _shown(layer, channels, colored=colored)
        ]
        made = cls(tuple(layers), Pictures.of(*shown, largest=largest))
        made.about(())
        return made

    @property
    def name(self) -> str:
        """Of the layers."""
        return ", ".join(layer.name for layer in self.layers)

    def title(self, at: tuple[int, ...]) -> str:
        """Return what a plane is called."""
        plane = self.plane(at)
        return self.name if plane is None else f"{self.name}{plane.ending}"

    def about(self, at: tuple[int, ...]) -> dict[str, Any]:
        """Return where a plane lies, for the provenance of its sample."""
        plane = self.plane(at)
        stack = {} if plane is None else {STACK: plane.as_json()}
        return {PLACEMENT: self._there, **stack}

    def lead(self, layers: SampleLayers, key: str) -> None:
        """Have a sample, and all of its stack, follow the layer from now on."""
        axes = self.pictures.shown[0].axes
        layers.follow(self.layers[0], key, axes, self.pictures.pixel)

    def plane_at(self, point: Sequence[float]) -> tuple[int, ...]:
        """Return the plane that napari's sliders, in the world, are on."""
        layer, axes = self.layers[0], self.pictures.shown[0].axes[:-2]
        place = layer.world_to_data(point)
        each = zip(axes, self.pictures.planes, strict=True)
        return tuple(int(np.clip(round(place[axis]), 0, n - 1)) for axis, n in each)

    def plane(self, at: tuple[int, ...]) -> Plane | None:
        """Return which plane of the layer's stack a picture is; None without one."""
        return replace(self._first, at=at) if at else None

    @cached_property
    def _there(self) -> dict[str, Any]:
        axes = self.pictures.shown[0].axes[-2:]
        return placement_of(self.layers[0], axes, self.pictures.pixel)

    @cached_property
    def _first(self) -> Plane:
        """The first plane: the others differ by their number, and may be thousands."""
        layer, axes = self.layers[0], self.pictures.shown[0].axes[:-2]
        labels = layer.axis_labels
        named = not layer._has_default_axis_labels()
        names = [labels[a][:1].lower() for a in axes] if named else _AXES[-len(axes) :]
        if len(axes) == 1 and not named:
            names = ["t"]
        return Plane(
            id=_ids.setdefault(layer, uuid4().hex),
            name=self.name,
            at=(0,) * len(axes),
            shape=self.pictures.planes,
            axes=tuple(name if name.isalnum() else "p" for name in names),
            **planes_of(layer, axes),
        )


def _shown(layer: Image, channels: Channels, *, colored: bool) -> list[Shown]:
    """Return what of a layer is shown together."""
    levels = list(layer.data) if layer.multiscale else [layer.data]
    limits = None if layer.rgb else tuple(float(x) for x in layer.contrast_limits)
    known: dict[str, Any] = {"name": layer.name, "levels": levels, "limits": limits}
    if layer.rgb or channels.axis is None:
        colors = _table(layer.colormap) if colored and not layer.rgb else None
        return [Shown(**known, rgb=layer.rgb, colors=colors)]
    axis, numbers = channels.axis, channels.colors
    if len(numbers) == 1:
        return [Shown(**known, channel={axis: numbers[0]})]
    pure = np.arange(256)[:, None] * np.eye(3, dtype=np.uint8)[:, None]
    return [
        Shown(**known, channel={axis: n}, colors=table.astype(np.uint8))
        for n, table in zip(numbers, pure, strict=True)
        if n >= 0
    ]


def _table(colormap: Any) -> Any:
    """Return the colours of napari's colour map from black to white, (256, 3) uint8."""
    colors = colormap.map(np.linspace(0, 1, 256))
    return (colors[:, :3] * colors[:, 3:] * 255).round().astype(np.uint8)


def guess_channels(layer: Image) -> Channels:
    """Return which of a layer's axes is likely to be one of channels."""
    shape = shape_of(layer)
    if layer.rgb or len(shape) < 3:
        return NO_CHANNELS
    named = [n for n, a in enumerate(layer.axis_labels) if a.lower() in _CHANNELS]
    if not named and layer._has_default_axis_labels():
        last = shape[-1] <= _FEW < min(shape[-3:-1])
        first = 1 < shape[-3] <= _FEW < min(shape[-2:])
        named = [len(shape) - 1] if last else [len(shape) - 3] if first else []
    return first_channels(named[0], shape[named[0]]) if named else NO_CHANNELS


def first_channels(axis: int, count: int) -> Channels:
    """Return an axis with its first channels: the only one grey, else three colours."""
    if count == 1:
        return Channels(axis, (0,))
    return Channels(axis, tuple(n if n < count else -1 for n in range(3)))


def loadable(layers: Sequence[Layer]) -> dict[str, list[Image]]:
    """Return what can be taken of some layers, and what a menu calls it.

    Each image that is not ours, and those together that are shown as the channels of
    one picture.
    """
    images = [la for la in layers if isinstance(la, Image) and not role_of(la)[1]]
    found = {f"Layer {layer.name}": [layer] for layer in images}
    blended = [
        layer
        for layer in images
        if layer.visible and not layer.rgb and layer.blending == "additive"
    ]
    if len(blended) > 1 and len({shape_of(layer) for layer in blended}) == 1:
        names = ", ".join(layer.name for layer in blended)
        found[f"Layers {names} as shown"] = blended
    return found


def shape_of(layer: Image) -> tuple[int, ...]:
    """Return the shape of a layer's data, of a pyramid that of its largest level."""
    data = layer.data[0] if layer.multiscale else layer.data
    return tuple(int(side) for side in data.shape)
