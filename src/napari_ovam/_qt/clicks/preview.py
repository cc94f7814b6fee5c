"""What clicks gave, above the labels until it is accepted or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_ovam.segmentation.click_evidence import Click
    from napari_ovam.segmentation.clicks import ClickMask

_OBJECT, _TAKEN, _IN, _OUT = 1, 2, 3, 4
_COLORS = {_TAKEN: (0, 0, 0, 1), _IN: (0.2, 1, 0.2, 1), _OUT: (1, 0.2, 0.2, 1)}
_CLEAR = (0, 0, 0, 0)
_PLACED = ("scale", "rotate", "shear", "affine", "units")  # as the labels are
_DOT = 1 / 60  # radius of a click, as a share of the window's longer side
# Pixels of a picture that is shown whole: it takes napari longer to move a layer.
_WHOLE = 1024**2


class Drawn(NamedTuple):
    """What is shown (h, w), and the rows and columns of the labels that it covers."""

    picture: NDArray[np.uint8]
    window: tuple[slice, slice]


def draw(found: ClickMask, clicks: Sequence[Click]) -> Drawn:
    """Draw the object, what was taken away of it, and the clicks."""
    now, before = found.part, found.begin[found.window]
    shown = now.astype(np.uint8) * _OBJECT
    shown[before & ~now] = _TAKEN
    radius = max(1.0, _DOT * max(now.shape))
    rows, columns = np.ogrid[: now.shape[0], : now.shape[1]]
    top, left = (side.start for side in found.window)
    for click in clicks:
        for row, column in click.places:
            away = (rows + top - row) ** 2 + (columns + left - column) ** 2
            shown[away <= radius**2] = _IN if click.positive else _OUT
    if found.begin.size > _WHOLE:
        return Drawn(shown, found.window)
    whole: NDArray[np.uint8] = np.zeros_like(found.begin, np.uint8)
    whole[found.window] = shown
    return Drawn(whole, (slice(0, len(whole)), slice(0, len(whole[0]))))


class ClickPreview:
    """The layer of what is not accepted yet; made once, as that takes napari time."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.layer: Labels | None = None
        self._color: Any = None  # that the layer has

    def open(self, over: Labels) -> None:
        """Make the layer, empty, above the labels, which stay active."""
        if self.layer is None or self.layer not in self._viewer.layers:
            self.layer = Labels(np.zeros((1, 1), np.uint8), name="clicks", opacity=0.7)
            self.layer.editable = False
            self._color = None
            self._viewer.add_layer(self.layer)
        self._viewer.layers.selection.active = over

    def close(self) -> None:
        """Take the layer away."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def clear(self) -> None:
        """Show nothing."""
        if self.layer is not None:
            self.layer.data = np.zeros((1, 1), np.uint8)

    def show(self, drawn: Drawn, over: Labels, color: Any) -> None:
        """Show what was drawn, where it is on the labels."""
        layer = self.layer
        if layer is None:
            return
        corner = [side.start for side in drawn.window]
        moved = np.subtract(over.data_to_world(corner), over.data_to_world((0, 0)))
        linear = np.linalg.inv(over.affine.linear_matrix)
        wanted = {name: getattr(over, name) for name in _PLACED}
        wanted["translate"] = np.asarray(over.translate) + linear @ moved
        for name, value in wanted.items():  # each takes napari about 7 ms
            if not _same(getattr(layer, name), value):
                setattr(layer, name, value)
        if color != self._color:
            colors: dict[int | None, Any] = {None: _CLEAR, 0: _CLEAR, _OBJECT: color}
            layer.colormap = DirectLabelColormap(color_dict=colors | _COLORS)
            self._color = color
        layer.data = drawn.picture


def _same(now: Any, wanted: Any) -> bool:
    """Whether a property of a layer has a value already."""
    if hasattr(wanted, "affine_matrix"):
        now, wanted = now.affine_matrix, wanted.affine_matrix
    return np.array_equal(now, wanted)
