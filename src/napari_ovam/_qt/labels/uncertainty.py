"""Where labels are uncertain: a layer, and the way from one place to the next."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.session.background import Background
from napari_ovam.segmentation.thresholds import THRESHOLD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam._qt.session.background import Work
    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.segmentation.uncertainty import Place

    # The uncertainty, what of it is shown black, and the places.
    Found = tuple[NDArray[np.float32], float, list[Place]]

_GLOWING = 0.1
"""How much of an image glows in the layer, about: three of four errors are there
(docs/quality.md)."""

_RED = (255, 0, 40)

_CLOSE = 2.5
"""How much closer than the whole image a place is shown."""


class UncertainPlaces:
    """Finds uncertain places of the image that is shown, in the background.

    Attributes
    ----------
    shown
        Whether a layer shows how uncertain each pixel is.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._layers = session.feature(SampleLayers)
        self.shown = False
        self._background = Background(session, "Uncertainty", self._failed)
        self._going = False  # to the next place, once it is found
        self._visited: dict[str, set[tuple[int, int]]] = {}
        session.current_changed.connect(self._stay)
        session.project_changed.connect(lambda: self._visited.clear())
        session.actions["uncertain"] = self.next
        for signal in (session.labels_changed, session.current_changed):
            signal.connect(self._refresh)

    def show(self, shown: bool) -> None:
        """Show or hide the layer, and keep it up to date."""
        self.shown = shown
        sample = self.session.current
        if not shown and sample is not None:
            self._layers.remove_extra(sample.key, "uncertainty")
        self._refresh()

    def next(self) -> None:
        """Show the next uncertain place, largest first; painted ones are settled."""
        sample = self.session.current
        if sample is None or sample.edits is None or not sample.probabilities:
            self.session.complain(
                "There are no labels from maps: press Labels from maps first"
            )
            return
        self._going = True
        self._find(sample)

    def _stay(self) -> None:
        self._going = False

    def _refresh(self) -> None:
        sample = self.session.current
        if (self.shown or self._going) and sample is not None and sample.probabilities:
            self._find(sample)

    def close(self) -> None:
        """Stop what runs."""
        self._background.close()

    def _find(self, sample: LiveSample) -> None:
        self._background.ask("places", partial(self._prepare, sample))

    def _prepare(self, sample: LiveSample) -> Work | None:
        if sample is not self.session.current:
            return None
        entries = [
            entry
            for entry in self.session.classes.active
            if entry.id in sample.probabilities and entry.id not in sample.absent
        ]
        maps = [sample.probabilities[entry.id] for entry in entries]
        levels = [THRESHOLD if e.threshold is None else e.threshold for e in entries]
        if not maps or sample.edits is None:
            if self._going:
                self._go(sample, [])
            return None
        now = sample.edits.now

        def make(_: Job) -> Found:
            from napari_ovam.segmentation.uncertainty import (
                doubtful_places,
                uncertainty,
            )

            found = [max(level, 1e-6) for level in levels]
            unsure = uncertainty(np.stack(maps), found)
            # Of much of an image another label is close: what is worth a look glows.
            dark = min(float(np.quantile(unsure, 1 - _GLOWING)), 0.99)
            return unsure, dark, doubtful_places(unsure, settled=now.painted)

        def done(found: Found) -> None:
            if sample is self.session.current:
                self._found(sample, *found)

        return make, done

    def _failed(self, error: Exception) -> None:
        self._going = False
        self.session.complain(error)

    def _found(
        self,
        sample: LiveSample,
        unsure: NDArray[np.float32],
        dark: float,
        places: list[Place],
    ) -> None:
        if self.shown:
            self._layers.show_extra(
                sample, "uncertainty", {"uncertainty": unsure}, _RED, (dark, 1.0)
            )
        if self._going:
            self._go(sample, places)

    def _go(self, sample: LiveSample, places: list[Place]) -> None:
        self._going = False
        visited = self._visited.setdefault(sample.key, set())
        left = [p for p in places if (p.row, p.column) not in visited]
        if not left:
            visited.clear()
            text = "No uncertain places are left in this image"
            self.session.say(f"{text}{': all were shown.' if places else '.'}")
            return
        place = left[0]
        visited.add((place.row, place.column))
        camera = self.session.viewer.scene.camera
        layer = self.session.layers.find(sample.key, "image")
        row, column = (place.row, place.column)
        if layer is not None:
            row, column = layer.data_to_world((row, column))
        camera.center = (0.0, row, column)
        canvas, size = self.session.viewer.window._qt_viewer.canvas.size, sample.shape
        if layer is not None:
            size = layer.extent.world[1] - layer.extent.world[0]
        whole = min(c / s for c, s in zip(canvas, size, strict=True))
        camera.zoom = max(camera.zoom, whole * _CLOSE)
        more = f"{len(left) - 1} more" if len(left) > 1 else "the last one"
        self.session.say(
            f"An uncertain place of {place.pixels} pixels ({more}): paint what it is."
        )
