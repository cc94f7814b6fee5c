"""How maps are seen: on a dimmed picture, with lines around what thresholds take."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet

from qtpy.QtCore import QTimer

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.session.background import Background
from napari_ovam.images.overlay import map_cover

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_ovam._qt.session.background import Work
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job

_FINE = 2048  # pixels a side that are drawn; of larger images, each second and so on


class MapView:
    """Dims the picture and draws the lines while maps are seen; labels give way.

    Computed in the background: a threshold that is dragged waits for nothing.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._layers = session.feature(SampleLayers)
        self._background = Background(session, "Outlines")
        self._before = ("", False)  # the sample, and whether maps were seen
        self._gave_way: WeakSet[Layer] = WeakSet()
        self._timer = QTimer()  # several maps come and go at once
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._look)
        for signal in (session.maps_seen, session.current_changed):
            signal.connect(self._soon)

    def close(self) -> None:
        """Stop what runs."""
        self._timer.stop()
        self._background.close()

    def _soon(self) -> None:
        self._timer.start()

    def _look(self) -> None:
        sample = self.session.current
        if self.session.closed or sample is None:
            return
        self._make_way(sample, seen=bool(self._layers.seen_maps(sample.key)))
        self._background.ask("cover", partial(self._prepare, sample))

    def _make_way(self, sample: LiveSample, *, seen: bool) -> None:
        """Hide the labels when maps come, and show them again when maps go.

        Only then: what a person shows or hides meanwhile stays so.
        """
        if self._before == (sample.key, seen):
            return
        self._before = sample.key, seen
        labels = self._layers.labels(sample.key)
        if labels is None:
            return
        if seen and labels.visible:
            labels.visible = False
            self._gave_way.add(labels)
        elif not seen and labels in self._gave_way:
            labels.visible = True
            self._gave_way.discard(labels)

    def _prepare(self, sample: LiveSample) -> Work | None:
        if sample is not self.session.current:
            return None
        seen = self._layers.seen_maps(sample.key)
        if not seen:
            self._layers.show_cover(sample, None)
            return None
        step = -(-max(sample.shape) // _FINE)
        maps: list[NDArray[np.float32]] = []
        numbers: list[int] = []
        for layer, (role, number) in seen.items():
            if role == "map":  # whose layer may show steps of an optimization
                numbers.append(number)
            maps.append(sample.maps[number] if role == "map" else layer.data)
        found, classes = sample.found, self.session.classes
        colors = {n: entry.color for n in numbers if (entry := classes.get(n))}

        def make(_: Job) -> NDArray[np.uint8]:
            thin = [values[::step, ::step] for values in maps]
            if found is None:
                return map_cover(thin)
            ids = found[::step, ::step]
            return map_cover(thin, [(ids == n, color) for n, color in colors.items()])

        def done(cover: NDArray[np.uint8]) -> None:
            if sample is self.session.current and self._layers.seen_maps(sample.key):
                self._layers.show_cover(sample, cover, step)

        return make, done
