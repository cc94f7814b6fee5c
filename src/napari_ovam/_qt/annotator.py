"""The whole workflow in one dock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QFrame,
    QLabel,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from .classes.class_section import ClassSection
from .export.export_section import ExportSection
from .image.image_section import ImageSection
from .instances.instances_section import InstancesSection
from .labels.labels_section import LabelsSection
from .maps.maps_section import MapsSection
from .session.recovery import RecoveryBar
from .session.session import Session
from .tokens.token_section import TokenSection
from .widgets.section import (
    Row,
    StatusLine,
    chooser,
    dock_of,
    fold,
    listen,
    small_button,
)

if TYPE_CHECKING:
    from napari.viewer import Viewer

_STEPS = (ImageSection, MapsSection, LabelsSection, TokenSection, ExportSection)
# Not among the steps of a first session: folded until they are wanted.
_SECTIONS = (*_STEPS[:3], ClassSection, InstancesSection, *_STEPS[3:])
_WIDTH = 360  # pixels, where a person has not chosen another


class AnnotatorWidget(QWidget):
    """Numbered sections that fold, the samples above, the status line below.

    Parameters
    ----------
    napari_viewer
        The viewer to annotate in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setSpacing(2)
        layout.addWidget(RecoveryBar(self.session))
        layout.addWidget(SampleSelector(self.session))
        content = QWidget()
        inner = QVBoxLayout(content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(0)
        self.sections = {}
        for kind in _SECTIONS:
            section = kind(napari_viewer)
            step = kind in _STEPS
            number = f"{_STEPS.index(kind) + 1}  " if step else ""
            name = f"fold_{kind.title.lower()}"
            inner.addWidget(fold(number + kind.title, section, name, opened=step))
            self.sections[kind.title] = section
        inner.addStretch(1)
        scroll = QScrollArea()
        scroll.setObjectName("sections")
        scroll.setWidgetResizable(True)
        scroll.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(content)
        layout.addWidget(scroll, 1)
        layout.addWidget(StatusLine(self.session))

    def sizeHint(self) -> QSize:
        """Ask for a width in which most texts are read whole."""
        return QSize(_WIDTH, super().sizeHint().height())


class SampleSelector(Row):
    """Which sample is shown."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.list = chooser("sample", "The image that is shown")
        self.list.activated.connect(
            lambda index: session.select(self.list.itemData(index))
        )
        self.previous = small_button(
            "<", "previous_sample", lambda: session.step(-1), "Previous sample"
        )
        self.next = small_button(
            ">", "next_sample", lambda: session.step(1), "Next sample"
        )
        project = small_button(
            "☰",
            "project_button",
            partial(show_project, session.viewer),
            "All images of the project: review them, open or save a project",
        )
        label = QLabel("Sample")
        super().__init__(label, self.list, self.previous, self.next, project, stretch=1)
        self.setContentsMargins(6, 2, 6, 2)
        listen(self, session.projects.changed, self._fill)
        listen(self, session.current_changed, self._show)
        self._fill()

    def _fill(self) -> None:
        projects = self._session.projects
        self.list.clear()
        for number, key in enumerate(projects.keys, start=1):
            self.list.addItem(f"{number}: {projects.title(key)}", key)
        if not projects.keys:
            self.list.addItem("no image yet")
        self.list.setEnabled(bool(projects.keys))
        self._show()

    def _show(self) -> None:
        current, keys = self._session.current, self._session.projects.keys
        index = keys.index(current.key) if current and current.key in keys else -1
        if current is not None:
            self.list.setCurrentIndex(index)
        self.previous.setEnabled(index > 0)
        self.next.setEnabled(0 <= index < len(keys) - 1)


def show_annotator(viewer: Any) -> None:
    """Dock the annotator in a viewer's window, unless it is there."""
    _show(viewer, AnnotatorWidget, "OVAM annotator")


def show_project(viewer: Any) -> None:
    """Dock the table of samples in a viewer's window, unless it is there."""
    from .project.project_dock import ProjectWidget

    _show(viewer, ProjectWidget, "OVAM project")


def _show(viewer: Any, kind: type[QWidget], name: str) -> None:
    window = viewer.window
    there = window._qt_window.findChild(kind)
    if there is None:
        window.add_plugin_dock_widget("napari-ovam", name)
        return
    dock = dock_of(there)
    if dock is not None:
        dock.show()
        dock.raise_()
