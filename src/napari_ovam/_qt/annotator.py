"""The whole workflow in one dock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QFrame,
    QLabel,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from .classes.class_section import ClassSection
from .clicks.clicking import Clicking
from .clicks.clicks_section import ClicksSection
from .export.export_section import ExportSection
from .export.exporting import Exports
from .image.generating import Images
from .image.image_section import ImageSection
from .instances.instances_section import InstancesSection
from .instances.instancing import InstanceEdits
from .labels.labelling import Labelling
from .labels.labels_section import LabelsSection
from .labels.uncertainty import UncertainPlaces
from .layers.label_png import LayerWatch
from .layers.layers import SampleLayers
from .layers.origins import Origins
from .maps.live import LiveMaps
from .maps.map_view import MapView
from .maps.mapping import Maps
from .maps.maps_section import MapsSection
from .project.adding import Adding
from .project.project_dock import ProjectWidget
from .project.proposing import Proposing
from .project.recovery import RecoveryBar
from .project.review import Review
from .session.session import Session
from .tokens.learning import Learning
from .tokens.library import Library
from .tokens.optimizing import Tokens
from .tokens.token_dock import TokenLibraryWidget
from .tokens.token_section import TokenSection
from .widgets.docks import NAMES, show_dock
from .widgets.reach import TabReached
from .widgets.row import Row
from .widgets.section import StatusLine, chooser, fold, listen, small_button

if TYPE_CHECKING:
    from napari.viewer import Viewer

_STEPS = (ImageSection, MapsSection, LabelsSection, TokenSection, ExportSection)
# Not among the steps of a first session: folded until they are wanted.
_SECTIONS = (*_STEPS[:3], ClicksSection, ClassSection, InstancesSection, *_STEPS[3:])
_WIDTH = 360  # pixels, where a person has not chosen another


FEATURES = {
    "layers": SampleLayers,
    "layer_watch": LayerWatch,
    "origins": Origins,
    "labels": Labelling,
    "images": Images,
    "maps": Maps,
    "map_view": MapView,
    "live": LiveMaps,
    "uncertainty": UncertainPlaces,
    "tokens": Tokens,
    "library": Library,
    "learning": Learning,
    "exports": Exports,
    "review": Review,
    "proposing": Proposing,
    "adding": Adding,
    "instances": InstanceEdits,
    "clicks": Clicking,
}
"""What can be done in a session. Each is an attribute of it as well, for consoles."""


def start_session(viewer: Viewer) -> Session:
    """Return the session of a viewer, with everything that can be done in it."""
    session = Session.of(viewer)
    for name, kind in FEATURES.items():
        vars(session)[name] = session.feature(kind)
    return session


class ProjectDock(ProjectWidget):
    """The table of the project's samples, for the viewer that napari gives."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(start_session(napari_viewer))


class TokensDock(TokenLibraryWidget):
    """The token library, for the viewer that napari gives."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(start_session(napari_viewer))


class AnnotatorWidget(TabReached):
    """Numbered sections that fold, the samples above, the status line below.

    Parameters
    ----------
    napari_viewer
        The viewer to annotate in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session = start_session(napari_viewer)
        self.setObjectName(NAMES["OVAM annotator"])
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
            section = kind(self.session)
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
            "<", "previous_sample", partial(session.do, "previous"), "Previous sample"
        )
        self.next = small_button(
            ">", "next_sample", partial(session.do, "next"), "Next sample"
        )
        project = small_button(
            "☰",
            "project_button",
            partial(show_dock, session.viewer, "OVAM project"),
            "All images of the project: review them, open or save a project",
        )
        label = QLabel("Sample")
        super().__init__(label, self.list, self.previous, self.next, project, stretch=1)
        self.setContentsMargins(6, 2, 6, 2)
        listen(self, session.samples_changed, self._fill)
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
