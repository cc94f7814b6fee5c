"""Writes to a project in the background, soon after each change."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from napari_ovam.project import ProjectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.project import Project, Status

_RETRY = 5.0  # seconds until the next try after a full disk and the like


class Autosave:
    """Writes what it is given in a thread of its own, and is whole at each kill.

    The methods return at once. Later values for the same thing replace earlier ones
    that are still waiting, and what cannot be written is tried again.

    Parameters
    ----------
    project
        Where to.
    delay
        Seconds that a change waits for further ones; it is on the disk within 3.
    failed
        Called, in that thread, with the error when something cannot be written, and
        with None when all that could not be is.
    """

    def __init__(
        self,
        project: Project,
        *,
        delay: float = 1.0,
        failed: Callable[[Exception | None], None] | None = None,
    ) -> None:
        self.project = project
        self._delay = delay
        self._failed = failed
        self._waiting: dict[tuple[str, object], Callable[[], object]] = {}
        self._changed = threading.Condition()
        self._since = 0.0  # when the first of what waits came
        self._fresh = False  # whether something came since the last try
        self._closing = False
        self._ending = False  # the last chance for what waits
        self._hurry = False
        self._writing = False
        self._batch: set[tuple[str, object]] = set()  # what is written now
        self._failing = False
        self._thread = threading.Thread(
            target=self._run, name="napari-ovam autosave", daemon=True
        )
        self._thread.start()

    @property
    def pending(self) -> int:
        """How many things are not on the disk yet."""
        with self._changed:
            return len(self._waiting) + self._writing

    def add_sample(
        self,
        image: NDArray[np.uint8],
        settings: Mapping[str, Any] | None = None,
        name: str = "image",
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> str:
        """Add an image under a name like `name`; return that name.

        The project knows the sample at once. `image` must not change any more.
        """
        name = self.project.announce(name, provenance).name
        self.submit(
            ("sample", name), lambda: self.project.add_sample(image, settings, name)
        )
        return name

    def save_labels(
        self,
        name: str,
        labels: NDArray[Any],
        status: Status | None = "edited",
        *,
        painted: NDArray[np.bool_] | None = None,
        absent: Iterable[int] | None = None,
        keep_others: bool = False,
    ) -> None:
        """Write labels, as `Project.save_labels`; the arrays may change later.

        Where another program wrote them meanwhile, they wait until they are given again
        with `keep_others`, or dropped; at the end both are kept.
        """
        labels, ids = labels.copy(), None if absent is None else tuple(absent)
        if painted is not None:
            painted = painted.copy()
        self.submit(
            ("labels", name),
            lambda: self.project.save_labels(
                name,
                labels,
                status,
                painted=painted,
                absent=ids,
                keep_others=keep_others or self._ending,
            ),
        )

    def save_index(self) -> None:
        """Write the class table and the samples' status."""
        self.submit(("index", None), self.project.save)

    def waits(self, name: object) -> bool:
        """Whether something of a sample, or a class's token, is not on the disk yet."""
        with self._changed:
            return any(key[1] == name for key in (*self._waiting, *self._batch))

    def flush(self, timeout: float | None = None) -> bool:
        """Write everything now; return whether it is on the disk.

        Parameters
        ----------
        timeout
            Seconds to wait at most. None waits until each thing was tried once.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            while self._hurry and self._thread.is_alive():
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            return not self._waiting and not self._writing

    def close(self, timeout: float | None = None) -> bool:
        """Write everything and end; return whether it is on the disk."""
        self._ending = True
        done = self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return done

    def submit(self, key: tuple[str, object], write: Callable[[], object]) -> None:
        """Call `write` soon, in the order in which the keys came.

        Parameters
        ----------
        key
            What is written: an earlier call for it that still waits is dropped.
        write
            Called in the thread, and again later where it raises.
        """
        with self._changed:
            if self._closing:
                raise ProjectError(f"{self.project.path} was closed")
            if not self._fresh:
                self._fresh, self._since = True, time.monotonic()
            self._waiting[key] = write
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or self._hurry or self._waiting
                )
                if self._closing:
                    return
                # From when the change came: writing another may have taken long.
                self._changed.wait_for(
                    lambda: self._closing or self._hurry,
                    max(0.0, self._since + self._delay - time.monotonic()),
                )
                batch, self._waiting = self._waiting, {}
                hurried = self._hurry  # what asks while it is written wants a new try
                self._fresh = False
                self._writing, self._batch = True, set(batch)
            lost = self._write(batch)
            with self._changed:
                self._writing, self._batch = False, set()
                # What came in meanwhile is newer than what could not be written.
                self._waiting = lost | self._waiting
                if not self._waiting or (lost and hurried):
                    self._hurry = False
                self._changed.notify_all()
                if lost:  # what comes in may go well all the same
                    self._changed.wait_for(
                        lambda: self._closing or self._hurry or self._fresh, _RETRY
                    )

    def _write(
        self, batch: dict[tuple[str, object], Callable[[], object]]
    ) -> dict[tuple[str, object], Callable[[], object]]:
        """Write a batch; return what could not be written, to be tried again.

        After one thing could not, others may fail only because it is not there, such
        as the labels of an image: the first is what is reported.
        """
        lost: dict[tuple[str, object], Callable[[], object]] = {}
        for key, write in batch.items():
            try:
                write()
            except Exception as error:  # noqa: BLE001 (reported)
                if not lost:
                    self._report(error)
                lost[key] = write
        if self._failing and not lost:
            self._report(None)
        self._failing = bool(lost)
        return lost

    def _report(self, error: Exception | None) -> None:
        if self._failed is not None:
            self._failed(error)
