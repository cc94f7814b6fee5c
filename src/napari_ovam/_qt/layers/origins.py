"""napari's status bar says where the label below the mouse came from."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from .marked import role_of

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session
    from napari_ovam.project.replay import History


class Origins:
    """Adds to the status of a sample's labels what set the pixel below the mouse.

    napari asks for it in a thread of its own, and the history is read there: the window
    does not wait. What is not written yet is told in a moment.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._known: tuple[Any, History | None] = (None, None)
        session.viewer.layers.events.inserted.connect(self._inserted)

    def _inserted(self, event: Any) -> None:
        layer = event.value
        if role_of(layer)[1] != "labels":
            return
        weak = weakref.ref(layer), weakref.ref(self)

        def get_status(position: Any = None, **how: Any) -> Any:
            layer, origins = (each() for each in weak)
            status = Labels.get_status(layer, position, **how)
            if origins is not None and position is not None:
                told = origins.tell(layer, position, world=how.get("world", False))
                for key in ("coordinates", "value"):
                    status[key] += f"; {told}" if told else ""
            return status

        layer.get_status = get_status

    def tell(self, layer: Labels, position: Any, *, world: bool = True) -> str:
        """Return where the label at a place came from; empty where nobody knows."""
        place = layer.world_to_data(position) if world else position
        row, column = (int(x) for x in np.round(place))
        height, width = layer.data.shape
        if not (0 <= row < height and 0 <= column < width):
            return ""
        project = self.session.project
        try:
            path = project.files.history(role_of(layer)[0])
            stat = path.stat()
            mark = path, stat.st_mtime_ns, stat.st_size
            if self._known[0] != mark:
                self._known = mark, project.load_history(path.stem)
        except (OSError, ValueError):  # none, or of a project that was left just now
            return ""
        history = self._known[1]
        return history.at(row, column, int(layer.data[row, column])) if history else ""
