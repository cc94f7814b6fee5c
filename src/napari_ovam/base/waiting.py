"""Waiting for what may never answer, such as a server."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from napari_ovam.base.progress import Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Callable

_Any = TypeVar("_Any")
_LOOK = 0.1  # seconds between two looks at a cancel


def wait_for(
    call: Callable[[], _Any],
    what: str,
    *,
    seconds: float = math.inf,
    progress: Progress = no_progress,
) -> _Any:
    """Return what a call returns, or raise what it raises; give it up in time.

    It raises `TimeoutError` where there is no answer in time; `Cancelled` as soon as
    the progress does. The call itself then runs on in its thread, unheard.

    Parameters
    ----------
    call
        Called in a thread of its own.
    what
        Who is asked, for the message.
    seconds
        How long to wait at most; for ever by default.
    progress
        Called as (0, 0) while it lasts; may raise `Cancelled`.
    """
    answers: list[_Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:  # noqa: BLE001 (raised by who waits)
            errors.append(error)

    # As a daemon: the program may end while a server still does not answer.
    thread = threading.Thread(target=run, name="napari-ovam waiting", daemon=True)
    thread.start()
    end = time.monotonic() + seconds
    while thread.is_alive():
        thread.join(_LOOK)
        if thread.is_alive():
            progress(0, 0)
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not answer within {seconds:g} seconds")
    if errors:
        raise errors[0]
    return answers[0]
