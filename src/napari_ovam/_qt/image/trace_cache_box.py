"""How much of the disk kept traces take, and how much they may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QDoubleSpinBox, QGroupBox, QHBoxLayout, QLabel

from napari_ovam._qt.session.worker import Job
from napari_ovam._qt.widgets.section import button

from . import model_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

_GB = 1_000_000_000


class TraceCacheBox(QGroupBox):
    """Size and limit of the trace cache, and a button that empties it."""

    def __init__(self) -> None:
        super().__init__("Kept traces")
        self.text = QLabel()
        self.text.setObjectName("cache_text")
        self.text.setWordWrap(True)
        self.text.setToolTip(
            "Traces that were made again for a project. Nothing is lost with them: "
            "they are made anew when they are needed"
        )
        self.limit = QDoubleSpinBox()
        self.limit.setObjectName("cache_limit")
        self.limit.setRange(0, 10_000)
        self.limit.setDecimals(1)
        self.limit.setSuffix(" GB")
        self.limit.setKeyboardTracking(False)
        self.limit.setToolTip("The ones used longest ago go first; 0 keeps none")
        self.limit.editingFinished.connect(self._set_limit)
        self.empty = button(
            "Empty", "empty_cache_button", self._empty, "Delete all kept traces"
        )
        self._known = 0
        row = QHBoxLayout(self)
        row.addWidget(self.text, 1)
        row.addWidget(QLabel("at most"))
        row.addWidget(self.limit)
        row.addWidget(self.empty)

    def refresh(self) -> None:
        """Look at the disk."""
        self._run(lambda _: model_jobs.cache_usage())

    def _empty(self) -> None:
        self._run(lambda _: model_jobs.empty_cache())

    def _set_limit(self) -> None:
        wanted = round(self.limit.value() * _GB)
        if abs(wanted - self._known) >= _GB // 20:  # not what it shows rounded
            self._run(lambda _: model_jobs.limit_cache(wanted))

    def _run(self, task: Callable[[Job], Any]) -> None:
        job = Job(task)
        job.returned.connect(self._show)
        job.errored.connect(lambda error: self.text.setText(str(error)))
        job.start()

    def _show(self, usage: Any) -> None:
        from napari_ovam.hub.store import human_size

        plural = "s" * (usage.traces != 1)
        self.text.setText(f"{usage.traces} trace{plural}, {human_size(usage.size)}")
        self.empty.setEnabled(usage.traces > 0)
        self._known = usage.limit
        self.limit.setValue(usage.limit / _GB)
