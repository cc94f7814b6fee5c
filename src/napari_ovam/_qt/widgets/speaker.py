"""What widgets show that know of a session only that it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from .colors import Kind


class Speaker(Protocol):
    """What a status line shows: a session."""

    said: Any
    job_changed: Any
    progressed: Any
    asked: Any

    @property
    def viewer(self) -> Viewer:
        """Whose theme is followed."""

    @property
    def message(self) -> tuple[str, Kind]:
        """The last sentence, and its kind."""

    @property
    def busy(self) -> bool:
        """Whether a long task runs."""

    def cancel(self) -> None:
        """Ask it to stop."""
