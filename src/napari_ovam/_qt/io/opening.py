"""Tokens and traces from files, put into the session of a viewer one by one."""

from __future__ import annotations

import json
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from PIL import Image

from napari_ovam._qt.annotator import show_annotator, show_project
from napari_ovam._qt.layers.keys import bind_keys
from napari_ovam._qt.session.session import Session
from napari_ovam._qt.session.state import LiveSample, ModelChoice

if TYPE_CHECKING:
    from collections.abc import Callable
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

    _all: ClassVar[WeakKeyDictionary[Session, Opening]] = WeakKeyDictionary()

    @classmethod
    def of(cls, viewer: Any) -> Opening:
        """Return what opens files in a viewer, and dock the annotator there."""
        show_annotator(viewer)
        session = Session.of(viewer)
        if session not in cls._all:
            cls._all[session] = cls(session)
        return cls._all[session]

    def __init__(self, session: Session) -> None:
        self.session = session
        self._waiting: deque[Callable[[], object]] = deque()
        session.job_changed.connect(self._next)

    def project(self, path: Path) -> None:
        """Open a project, and dock the table of its samples."""
        show_project(self.session.viewer)
        self._start(partial(self.session.projects.open, path))

    def image(self, load: Callable[[], object]) -> None:
        """Load an image when its turn comes."""
        self._start(load)

    def token(self, path: Path, name: str) -> None:
        """Load a token for the class of its name, which is added where it is new."""

        def load() -> None:
            classes = self.session.classes
            entry = classes.find(name) or classes.add(name)
            self.session.classes_changed.emit()
            self.session.tokens.load_token(entry.id, str(path))

        self._start(load)

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
            Of the sample; the image's layer has it already.
        path
            The trace file.
        name
            Of the sample.
        image
            (H, W, 3) RGB.
        model
            The model that recorded it; the one that is chosen where it is not known.
        """
        self.session.layers.expect(key)
        chosen = self.session.choice
        choice = ModelChoice(model or chosen.model, chosen.device)

        def run(_: Job) -> Trace:
            from napari_ovam import load_trace

            return load_trace(path)

        def done(trace: Trace) -> None:
            session = self.session
            session.samples.append(LiveSample(name, image, choice, trace, key=key))
            session.samples_changed.emit()
            session.select(key)
            bind_keys(session, session.layers.find(key, "image"))
            session.hint()

        def failed() -> None:
            layer = self.session.layers.find(key, "image")
            if layer is not None:  # from now on an image like any other
                self.session.layers.release(layer)

        self._start(
            partial(
                self.session.start,
                "Loading the trace",
                run,
                returned=done,
                undo=failed,
                kept="Its image stays as a layer.",
            )
        )

    def _start(self, load: Callable[[], object]) -> None:
        self._waiting.append(load)
        self._next()

    def _next(self) -> None:
        if self._waiting and not self.session.busy and not self.session.closed:
            self._waiting.popleft()()


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
