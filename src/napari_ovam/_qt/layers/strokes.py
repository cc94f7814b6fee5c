"""Notices what happens to a Labels layer, whoever does it.

What is on the layer is what counts. napari's events only say where to look first: the
event of a polygon comes before its pixels, undo and scripts name no place, changes in
place have no event at all, and an encircling stroke may stay open for ever.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from qtpy.QtCore import QTimer

from napari_ovam.base.tiles import tile_places, tiles_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_ovam._qt.session.edits import Snapshot

    Masks = dict[int, NDArray[np.bool_]]  # by tile

_AT_ONCE = 8  # tiles that are looked at before the window gets its turn
_LOOK_AGAIN = 1500  # ms: a change without any event is noticed after these
_KEPT = 100  # strokes, as in napari's history


class Listener(Protocol):
    """What is told of changes to a Labels layer."""

    def edited(self, layer: Labels, tiles: Iterable[int], *, undone: bool) -> None:
        """Look at some tiles; `undone` where no stroke touched them."""

    def replaced(self, layer: Labels) -> None:
        """Look at other data that somebody gave to the layer."""

    def confirmed(self, layer: Labels, under: Masks, value: int) -> Masks:
        """Take what a brush went over for decided; return what was not so yet."""

    def unconfirmed(self, layer: Labels, masks: Masks) -> None:
        """Take back what `confirmed` returned."""


class LabelsWatch:
    """Watches one Labels layer.

    A stroke's tiles are looked at at once; of many, the rest in pieces while the window
    goes on.

    Attributes
    ----------
    redone
        Whether what happened last without a stroke was a redo.
    known
        What the layer held when all of it was looked at last.
    """

    def __init__(self, layer: Labels, listener: Listener) -> None:
        self._layer, self._listener = layer, listener
        self._silent = False
        self._pending: dict[int, bool] = {}  # tiles to look at: undone
        self._confirmed: list[Masks] = []  # of each stroke that can be undone
        self._redo = 0
        self.redone = False
        self.known: Snapshot | None = None
        self._painted = False  # since the brush came down
        self._ended: Masks = {}  # of a brush that came up before its event
        self._soon, self._again = QTimer(), QTimer()
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._look)
        self._again.timeout.connect(self._look_again)
        self._again.start(_LOOK_AGAIN)
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_set_data)
        layer.events.data.connect(self._on_data)
        layer.mouse_drag_callbacks.append(self._brush)

    def close(self) -> None:
        """Watch no more."""
        self._soon.stop()
        self._again.stop()
        self._silent = True

    @property
    def dragging(self) -> bool:
        """Whether a mouse button is down on the layer."""
        return bool(self._layer._mouse_drag_gen)

    @property
    def history(self) -> tuple[Any, Any, list[Masks]]:
        """What can be undone and redone; `write` takes it again."""
        layer = self._layer
        return layer._undo_history, layer._redo_history, self._confirmed

    def look_now(self) -> None:
        """Look at all strokes that were not looked at yet."""
        while self._pending:
            self._look()

    def write(self, labels: NDArray[np.uint16], history: Any = None) -> None:
        """Show other labels; a stroke that is open ends, as it is.

        The history is emptied, or what `history` was for these labels: its old values
        would come back as stale pixels.
        """
        layer = self._layer
        self.forget_history()
        with self.silent():
            layer.data = labels
        self._take_history(history)

    def show(self, now: Snapshot, history: Any = None, *, anew: bool = False) -> None:
        """Show the labels of a moment, as `write`, in the tiles that differ.

        Where none does nothing happens, unless they are of another sample, `anew`.
        """
        layer, data, known = self._layer, self._layer.data, self.known
        self.known = now
        if data.shape != now.shape or data.dtype != np.uint16:
            self.write(now.labels, history)
            return
        before = known.tiles if known is not None else (None,) * len(now.tiles)
        changed = [
            (at, new.labels)
            for at, old, new in zip(
                tile_places(now.shape), before, now.tiles, strict=True
            )
            if old is None or old.labels is not new.labels
            if not np.array_equal(data[at], new.labels)
        ]
        if not changed and not anew:
            return
        self.forget_history()
        for at, labels in changed:
            data[at] = labels
        with self.silent():
            if changed:
                refresh_part(layer, [at for at, _ in changed])
        self._take_history(history)

    def _take_history(self, history: Any) -> None:
        layer = self._layer
        if history is not None:
            layer._undo_history, layer._redo_history, self._confirmed = history
        self._pending.clear()
        self._redo = len(layer._redo_history)

    def forget_history(self) -> None:
        """Empty what can be undone; a stroke that is open ends, as it is."""
        with self.silent():
            end_stroke(self._layer)
        self._layer._reset_history()
        self._confirmed, self._redo = [], 0

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Do something to the layer that no person does."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    # -- events ----------------------------------------------------------------------

    def _on_paint(self, event: Any) -> None:
        if self._silent:
            return
        self._painted, self._redo = True, 0
        self._confirmed = [*self._confirmed, self._ended][-_KEPT:]
        self._ended = {}
        touched = dict.fromkeys(self._touched(event.value), False)
        self._pending |= touched
        self._look()
        self._later(touched)  # the pixels of a polygon or fill come only now

    def _on_set_data(self, _: Any = None) -> None:
        """Look everywhere: after undo, redo, `refresh()` and much else."""
        if self._silent:
            return
        redo = len(self._layer._redo_history)
        self.redone = redo < self._redo
        if redo > self._redo:
            self.look_now()
            if self._confirmed:
                self._listener.unconfirmed(self._layer, self._confirmed.pop())
        self._redo = redo
        self._everywhere()
        self._look()

    def _on_data(self, _: Any = None) -> None:
        if not self._silent:
            self._listener.replaced(self._layer)

    def _brush(self, layer: Labels, event: Any) -> Iterator[None]:
        """Remember what the brush went over, also where it changed nothing."""
        encircling = layer._overlays["brush_stroke"].active
        if layer.mode not in ("paint", "erase") or event.button != 1 or encircling:
            return
        self._painted = False
        at, under = layer.world_to_data(event.position), dict[int, Any]()
        _brush_over(under, at, at, layer)
        yield
        while event.type == "mouse_move":
            at, before = layer.world_to_data(event.position), at
            _brush_over(under, before, at, layer)
            yield
        value = layer.selected_label if layer.mode == "paint" else 0
        new = self._listener.confirmed(layer, under, value)
        if self._painted and self._confirmed:
            self._confirmed[-1] = new
        elif layer._staged_history:  # napari knows no stroke that changed nothing
            self._ended = new

    # -- looking ---------------------------------------------------------------------

    def _touched(self, item: Iterable[Any]) -> set[int]:
        """Return the tiles that an item of napari's history is about."""
        shape, tiles = self._layer.data.shape, set[int]()
        for change in item:
            box = getattr(change, "slice_key", None)
            if box is None:  # (indices, before, after)
                box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in change[0])
            tiles.update(tiles_in(shape, box))
        return tiles

    def _everywhere(self) -> None:
        if self._layer.data.ndim == 2:
            everywhere = range(len(tile_places(self._layer.data.shape)))
            self._later(dict.fromkeys(everywhere, True))

    def _look_again(self) -> None:
        if self._layer.visible and not self._pending and not self.dragging:
            self._everywhere()

    def _later(self, tiles: dict[int, bool]) -> None:
        self._pending = tiles | self._pending  # what a stroke touched stays so
        self._soon.start(0)

    def _look(self) -> None:
        """Look at some of the tiles that wait."""
        undone = all(self._pending.values())  # strokes go first
        some = [n for n, each in self._pending.items() if each == undone][:_AT_ONCE]
        for number in some:
            del self._pending[number]
        if some and not self._silent:
            self._listener.edited(self._layer, some, undone=undone)
        if self._pending:
            self._soon.start(0)


def end_stroke(layer: Labels) -> None:
    """End what a person has begun and not ended on a Labels layer; its pixels stay."""
    drags = layer._mouse_drag_gen
    if not any(drag.gi_running for drag in drags.values()):  # not out of one of them
        for drag in drags.values():
            drag.close()
        drags.clear()
    layer._overlays["brush_stroke"].active = False
    layer._commit_stroke()


def refresh_part(layer: Labels, places: Sequence[tuple[slice, slice]]) -> None:
    """Have napari draw what changed in some places, as after a stroke.

    `layer.refresh()` makes a picture of the whole layer: half a second at 8000x8000.
    """
    shown = layer._slice.image
    drawn = layer.visible and np.may_share_memory(shown.raw, layer.data)
    if not drawn or layer.contour or shown.raw.shape != layer.data.shape:
        layer.refresh()
        return
    box = tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*places, strict=True)
    )
    shown.view[box] = layer.colormap._data_to_texture(shown.raw[box])
    layer._accumulate_updated_slice(box)
    layer._partial_labels_refresh()


def _brush_over(under: Masks, start: Any, end: Any, layer: Labels) -> None:
    """Add what is under a round brush, on its way in a line, to masks of tiles."""
    shape, radius = layer.data.shape, layer.brush_size / 2
    scale = np.abs(layer.scale) / np.abs(layer.scale).min()  # round where it is seen
    along = np.subtract(end, start) * scale
    length = float(along @ along) or 1.0
    low = np.floor(np.minimum(start, end) - radius / scale).astype(int)
    high = np.ceil(np.maximum(start, end) + radius / scale).astype(int) + 1
    box = slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))
    for number in tiles_in(shape, box):
        tile = tile_places(shape)[number]
        top, left = tile[0].start, tile[1].start
        near = tuple(
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(tile, box, strict=True)
        )
        rows, columns = np.ogrid[near]
        down, across = (rows - start[0]) * scale[0], (columns - start[1]) * scale[1]
        part = ((down * along[0] + across * along[1]) / length).clip(0, 1)
        distance = np.hypot(down - part * along[0], across - part * along[1])
        if number not in under:
            under[number] = np.zeros([side.stop - side.start for side in tile], bool)
        inside = under[number][
            near[0].start - top : near[0].stop - top,
            near[1].start - left : near[1].stop - left,
        ]
        inside |= distance <= radius
