"""How long work reports its progress, and how it is cancelled."""

from collections.abc import Callable

# Called with (done, total); may raise `Cancelled` to end the work.
Progress = Callable[[int, int], None]


class Cancelled(Exception):
    """Raised by a progress callback to end the work that reports to it."""


def no_progress(done: int, total: int) -> None:
    """Ignore progress: the `Progress` of a caller that wants none."""
