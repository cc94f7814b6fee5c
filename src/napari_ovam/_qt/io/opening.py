"""Tokens and traces from files, put into the session of a viewer one by one."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.session.session import Session
from napari_ovam._qt.session.state import ModelChoice
from napari_ovam._qt.widgets.docks import show_dock

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam._qt.session.worker import Job
    from napari_ovam.attention.trace import Trace


class Opening:
    """Opens files in a session; while a job runs, they wait for their turn.

    Parameters
    ----------
    session
        The session of the viewer that the files were dropped on.
    """

    @classmethod
    def of(cls, viewer: Any) -> Opening:
        """Return what opens files in a viewer, and dock the annotator there."""
        show_dock(viewer, "OVAM annotator")
        return cls(Session.of(viewer))

    def __init__(self, session: Session) -> None:
        self.session = session

    def project(self, path: Path) -> None:
        """Open a project, and dock the table of its samples."""
        show_dock(self.session.viewer, "OVAM project")
        self.session.in_turn(partial(self.session.projects.open, path))

    def store(self, path: Path) -> None:
        """Add the pictures and labels of an OME-Zarr store, and dock the table."""
        show_dock(self.session.viewer, "OVAM project")
        self.session.in_turn(partial(self.session.files_wanted.emit, [path]))

    def token(self, path: Path, name: str) -> None:
        """Load a token for the class of its name, which is added where it is new."""
        session = self.session

        def load() -> None:
            entry = session.classes.find(name) or session.class_changes.add(name)
            if entry is not None:
                session.sources.give({entry.id: path.absolute()})

        session.in_turn(load)

    def trace(
        self,
        key: str,
        path: Path,
        name: str,
        image: NDArray[np.uint8],
        model: str | None,
    ) -> None:
        """Load a trace as a sample, to map phrases on without running the model.

        Parameters
        ----------
        key
            What the image's layer is marked with.
        path
            The trace file.
        name
            Of the sample.
        image
            (H, W, 3) RGB.
        model
            The model that recorded it; the one that is chosen where it is not known.
        """
        layers = self.session.feature(SampleLayers)
        layers.expect(key)
        chosen = self.session.choice
        choice = ModelChoice(model or chosen.model, chosen.device)

        def run(_: Job) -> Trace:
            from napari_ovam import load_trace

            return load_trace(path)

        def done(trace: Trace) -> None:
            session = self.session
            session.layers.forget(key)  # the sample has a layer of its own
            session.projects.add(image, name, trace=trace, choice=choice)
            session.hint()

        def failed() -> None:
            layer = self.session.layers.find(key, "image")
            if layer is not None:  # from now on an image like any other
                layers.release(layer)

        self.session.in_turn(
            partial(
                self.session.start,
                "Loading the trace",
                run,
                returned=done,
                undo=failed,
                kept="Its image stays as a layer.",
            )
        )


def model_of_image(path: Path | None) -> str | None:
    """Return the model that an image of ours says it was made by."""
    if path is None:
        return None
    try:
        with Image.open(path) as picture:
            text = picture.info.get("ovam", "{}")
        model = json.loads(text).get("model")
    except (OSError, ValueError, AttributeError):
        return None
    return model if isinstance(model, str) else None
