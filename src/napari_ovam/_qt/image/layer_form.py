"""Asks what of a layer is taken, where it has more axes than a picture."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFormLayout, QSpinBox, QVBoxLayout, QWidget

from napari_ovam._qt.session.jobs import short
from napari_ovam._qt.session.settings import preferences
from napari_ovam._qt.widgets.reach import reveal
from napari_ovam._qt.widgets.row import Row
from napari_ovam._qt.widgets.section import button, chooser, small_button
from napari_ovam._qt.widgets.text import ElidedLabel

from .layer_pictures import (
    NO_CHANNELS,
    Channels,
    Source,
    first_channels,
    guess_channels,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.layers import Image

    from napari_ovam._qt.session.session import Session

    Planes = list[tuple[int, ...]]

_COLORS = ("red", "green", "blue")


class LayerForm(QWidget):
    """Which channels and planes of a layer are loaded; hidden where there is no choice.

    Parameters
    ----------
    session
        Whose viewer the layers are in.
    load
        Called with what is to be read, and which planes of it; none of one picture.
    """

    def __init__(
        self, session: Session, load: Callable[[Source, Planes], object]
    ) -> None:
        super().__init__()
        self._session, self._load = session, load
        self._layers: Sequence[Image] = ()
        self._known: dict[tuple[int, ...], Channels] = {}  # by the layer's shape
        self.title = ElidedLabel("layer_title")
        self.channels = chooser("channel_axis", "The layer's axis of channels, if any")
        self.colors = [
            chooser(name, f"The channel that is {name}", shown=1) for name in _COLORS
        ]
        self.planes = chooser(
            "planes", "Each plane becomes a sample; one slider goes through them"
        )
        self.first, self.last = (_number(name) for name in ("first", "last"))
        self._color_row = Row(*self.colors, stretch=None)
        self._range_row = Row(self.first, self.last, stretch=None)
        fields = self._fields = QFormLayout()
        fields.setContentsMargins(0, 0, 0, 0)
        fields.setSpacing(4)
        fields.addRow(self.title)
        fields.addRow("Channels", self.channels)
        fields.addRow("R, G, B", self._color_row)
        fields.addRow("Planes", self.planes)
        fields.addRow("From, to", self._range_row)
        load_it = button("Load it", "load_layer_button", self._take, "Load the layer")
        close = small_button("×", "close_layer_button", self.hide, "Load nothing")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addLayout(fields)
        box.addWidget(Row(load_it, close))
        self.channels.currentIndexChanged.connect(self._axis_chosen)
        self.planes.currentIndexChanged.connect(self._show_rows)
        for each in self.colors:
            each.currentIndexChanged.connect(self._colors_chosen)
        self.hide()

    def ask(self, layers: Sequence[Image]) -> None:
        """Load layers, after asking for what cannot be known.

        Raises
        ------
        ValueError
            If they hold no pictures.
        """
        self.hide()
        self._layers = layers
        source = self._source(NO_CHANNELS)
        if not source.pictures.planes:
            self._load(source, [])
            return
        self._fill(source)
        reveal(self)
        self._session.say(
            f"{short(source.name)} is more than one picture: choose its channels and "
            "planes under Load…, and press Load it."
        )

    def _source(self, channels: Channels) -> Source:
        return Source.of(self._layers, channels, preferences().largest_picture)

    def _fill(self, source: Source) -> None:
        """Show what there is to choose, and what is likely or was chosen before."""
        shape = shape_of(self._layers[0])
        sides = " × ".join(map(str, shape))
        self.title.setText(f"{source.name}: {sides}")
        layer = self._layers[0]
        likely = NO_CHANNELS
        if len(self._layers) == 1:
            likely = self._known.get(shape) or guess_channels(layer)
        with QSignalBlocker(self.channels):
            self.channels.clear()
            self.channels.addItem("none", -1)
            if len(self._layers) == 1 and not layer.rgb:
                for axis, name in enumerate(layer.axis_labels):
                    self.channels.addItem(f"axis {name} ({shape[axis]})", axis)
            axis = -1 if likely.axis is None else likely.axis
            self.channels.setCurrentIndex(self.channels.findData(axis))
        self._fill_colors(likely)
        self._fill_planes()

    def _fill_colors(self, channels: Channels) -> None:
        axis = self.channels.currentData()
        count = 0 if axis == -1 else shape_of(self._layers[0])[axis]
        chosen = (*channels.colors, -1, -1, -1)[:3]
        if len(channels.colors) == 1:  # grey: all three alike
            chosen = channels.colors * 3
        for box, number in zip(self.colors, chosen, strict=True):
            with QSignalBlocker(box):
                box.clear()
                box.addItem("–", -1)
                for n in range(count):
                    box.addItem(str(n), n)
                box.setCurrentIndex(box.findData(number))

    def _axis_chosen(self) -> None:
        axis = self.channels.currentData()
        chosen = NO_CHANNELS
        if axis is not None and axis >= 0:
            chosen = first_channels(axis, shape_of(self._layers[0])[axis])
        self._fill_colors(chosen)
        self._fill_planes()

    def _colors_chosen(self) -> None:
        self._known[shape_of(self._layers[0])] = self._chosen

    @property
    def _chosen(self) -> Channels:
        axis = self.channels.currentData()
        if axis is None or axis == -1:
            return NO_CHANNELS
        colors = tuple(box.currentData() for box in self.colors)
        return Channels(axis, colors[:1] if len(set(colors)) == 1 else colors)

    def _fill_planes(self) -> None:
        try:
            count = prod(self._source(self._chosen).pictures.planes)
        except ValueError:  # said when it is loaded
            count = 1
        with QSignalBlocker(self.planes):
            self.planes.clear()
            for text in ("the one shown", f"all {count}", "a range"):
                self.planes.addItem(text)
        self.planes.setEnabled(count > 1)
        for box in (self.first, self.last):
            box.setRange(0, count - 1)
        self.last.setValue(count - 1)
        self._show_rows()

    def _show_rows(self) -> None:
        channels = self.channels.currentData() != -1
        self._fields.setRowVisible(self._color_row, channels)
        self._fields.setRowVisible(self.planes, self.planes.isEnabled())
        ranged = self.planes.isEnabled() and self.planes.currentIndex() == 2
        self._fields.setRowVisible(self._range_row, ranged)

    def _take(self) -> None:
        chosen = self._chosen
        self._known[shape_of(self._layers[0])] = chosen
        try:
            if chosen.axis is not None and set(chosen.colors) == {-1}:
                raise ValueError("no channel is chosen: choose one for a colour")
            source = self._source(chosen)
        except ValueError as error:
            self._session.complain(error, "Nothing was changed.")
            return
        self.hide()
        self._load(source, self._planes(source))

    def _planes(self, source: Source) -> Planes:
        shape = source.pictures.planes
        if not shape:
            return []
        which = self.planes.currentIndex()
        if which == 0:
            return [source.plane_at(self._session.viewer.dims.point)]
        every = [tuple(map(int, at)) for at in np.ndindex(*shape)]
        if which == 1:
            return every
        first, last = sorted((self.first.value(), self.last.value()))
        return every[first : last + 1]


def _number(name: str) -> QSpinBox:
    made = QSpinBox()
    made.setObjectName(f"{name}_plane")
    made.setToolTip(f"The {name} plane, from 0")
    return made
