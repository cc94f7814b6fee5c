"""Planes of a stack: napari's slider and the sample that is shown are one place.

The pictures are one layer with the stack's axes. Labels, maps and the like are flat
layers, which napari shows over every plane: they hold what is of the plane that is
shown, and are hidden while another is waited for.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from functools import partial
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from qtpy.QtCore import QTimer

from napari_ovam._qt.session.background import Loader
from napari_ovam._qt.session.settings import preferences
from napari_ovam.images.arrays.stacks import Plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam.project import Sample

    At = tuple[int, ...]

_REST = 60  # ms that the slider rests on a plane before its labels are read


class StackPictures:
    """The pictures of a stack for napari; those that are not read yet are transparent.

    Parameters
    ----------
    planes, size
        How many there are along each axis, and (H, W).
    """

    def __init__(self, planes: At, size: tuple[int, int]) -> None:
        self.shape = (*planes, *size, 4)
        self.ndim, self.dtype = len(self.shape), np.dtype(np.uint8)
        self.held: dict[At, NDArray[np.uint8]] = {}

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Return what napari shows: a part of one plane, or of several."""
        index, along = index if isinstance(index, tuple) else (index,), self.ndim - 3
        for n, each in enumerate(index):
            if each is Ellipsis:
                rest = (slice(None),) * (self.ndim + 1 - len(index))
                return self[(*index[:n], *rest, *index[n + 1 :])]
        places = np.arange(np.prod(self.shape[:along])).reshape(self.shape[:along])
        wanted = places[index[:along]]  # one, or several of the planes
        planes = [self._plane(int(place)) for place in np.ravel(wanted)]
        found = planes[0]
        if np.ndim(wanted):
            found = np.reshape(planes, (*np.shape(wanted), *self.shape[along:]))
        inside = index[along:]
        rest = (slice(None),) * (3 - len(inside))
        part: NDArray[np.uint8] = found[(..., *inside, *rest)]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return everything that is held, at once."""
        del copy
        return self[()].astype(dtype or self.dtype)

    def _plane(self, place: int) -> NDArray[np.uint8]:
        at = tuple(int(n) for n in np.unravel_index(place, self.shape[:-3]))
        shown = np.zeros(self.shape[-3:], np.uint8)
        if at in self.held:
            shown[..., :3], shown[..., 3] = self.held[at], 255
        return shown


class Layers(Protocol):
    """What shows samples: `SampleLayers`."""

    session: Session

    def find(self, sample: str, role: str) -> Any:
        """Return a layer of a sample."""

    def show_image(self, sample: LiveSample) -> Any:
        """Return the layer of a sample's picture."""

    def conceal(self, sample: str) -> None:
        """Hide all but the picture."""

    def reveal(self, sample: str) -> bool:
        """Show what was hidden, if it was."""


class StackView:
    """Keeps slider and sample together, and reads the pictures around.

    Parameters
    ----------
    layers
        Of the session.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers, self.session = layers, layers.session
        self._stack, self._pictures = "", StackPictures((1,), (1, 1))
        self._keys: dict[At, str] = {}
        self._ready: Any = lambda: None  # the sample whose layers are all there, weakly
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REST)
        self._timer.timeout.connect(self._rests)
        self._loader = Loader()
        self._loader.loaded.connect(self._loaded)
        self.session.viewer.dims.events.point.connect(self._slid)
        self.session.projects.selected.connect(self._selected)
        self.session.samples_changed.connect(self._find_keys)

    def close(self) -> None:
        """Stop what runs."""
        self._loader.close()
        self.session.viewer.dims.events.point.disconnect(self._slid)
        with suppress(RuntimeError):  # Qt is gone where the program ends at once
            self._timer.stop()

    def records(self, record: Sample) -> list[Sample]:
        """Return all samples of the stack that one is of, or it alone."""
        plane = Plane.of(record.provenance)
        if plane is None:
            return [record]
        others = self.session.project.samples
        planes = [Plane.of(other.provenance) for other in others]
        return [
            other
            for other, its in zip(others, planes, strict=True)
            if its is not None and its.id == plane.id
        ]

    @property
    def _shown(self) -> tuple[LiveSample | None, Plane | None]:
        sample = self.session.current
        return sample, sample.plane if sample is not None else None

    def _find_keys(self) -> None:
        sample, plane = self._shown
        records = self.records(sample.record) if sample and plane else []
        planes = [(Plane.of(record.provenance), record.name) for record in records]
        self._keys = {its.at: name for its, name in planes if its is not None}

    def _axes(self, plane: Plane) -> range:
        """Return the axes of the viewer along which the stack's planes are."""
        last = self.session.viewer.dims.ndim - 2
        return range(last - len(plane.at), last)

    # -- the slider ------------------------------------------------------------------

    def _slider(self, plane: Plane) -> At:
        point = self.session.viewer.dims.point
        return plane.nearest([point[axis] for axis in self._axes(plane)])

    def _slid(self, _: Any = None) -> None:
        """Hide what is of another plane than the slider's, and go there in a moment."""
        sample, plane = self._shown
        if sample is None or plane is None or self._axes(plane).start < 0:
            return
        if sample is not self._ready():
            return  # napari moves its slider while it takes the layer in
        if self._slider(plane) == plane.at:
            self._timer.stop()
            if self._layers.reveal(sample.key) and self.session.projects.wanted:
                self.session.select(sample.key)  # and not what was waited for
        else:
            self._layers.conceal(sample.key)
            self._timer.start()

    def _rests(self) -> None:
        plane = self._shown[1]
        if plane is None:
            return
        if key := self._keys.get(self._slider(plane)):
            self.session.select(key)
        elif not self.session.busy:
            self.session.say(
                f"This plane of {plane.name} is no sample: Load… takes more of them."
            )

    def _selected(self, key: str) -> None:
        """Move the slider to the sample that is shown, and read those around it."""
        sample = self.session.sample(key)
        plane = sample.plane if sample is not None else None
        self._ready = weakref.ref(sample) if sample is not None else lambda: None
        if sample is None or plane is None or self._axes(plane).start < 0:
            return
        self._timer.stop()
        image = self._layers.show_image(sample)
        self._stack = f"{self.session.project.path}\0{plane.id}"
        self._pictures = image.data
        fresh = plane.at not in self._pictures.held
        self._pictures.held[plane.at] = sample.image
        if self._slider(plane) != plane.at:
            for axis, place in zip(self._axes(plane), plane.place, strict=True):
                self.session.viewer.dims.set_point(axis, place)
        elif fresh:
            image.refresh()
        self._layers.reveal(key)
        self._look_around(sample, plane)

    # -- pictures --------------------------------------------------------------------

    def _look_around(self, sample: LiveSample, plane: Plane) -> None:
        """Hold the pictures that are nearest, as many as the memory is for."""
        if self._keys.get(plane.at) != sample.key:
            self._find_keys()
        most = max(1, int(preferences().stack_memory * 1e6 / sample.image.nbytes))

        def away(at: At) -> int:
            return sum(abs(a - b) for a, b in zip(at, plane.at, strict=True))

        near = nsmallest(most, self._keys, key=away)
        held = self._pictures.held
        for at in [at for at in held if at not in near]:
            del held[at]
        for at in near:
            if at not in held:
                key = self._keys[at]
                name = "\0".join([self._stack, *map(str, at)])
                self._loader.load(name, partial(self.session.projects.image, key))

    def _loaded(self, name: str, found: object) -> None:
        stack, at = name.split("\0")[:2], tuple(map(int, name.split("\0")[2:]))
        fits = getattr(found, "shape", None) == (*self._pictures.shape[-3:-1], 3)
        if "\0".join(stack) != self._stack or not fits:
            return  # it says so itself when it is gone to
        self._pictures.held[at] = found  # type: ignore[assignment]
        sample, plane = self._shown
        if sample is not None and plane is not None and self._slider(plane) == at:
            layer = self._layers.find(sample.key, "image")
            if layer is not None:
                layer.refresh()
