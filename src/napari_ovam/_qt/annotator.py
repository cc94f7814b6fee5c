"""The whole workflow in one dock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from .classes.class_section import ClassSection
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
from .maps.live import LiveMaps
from .maps.mapping import Maps
from .maps.maps_section import MapsSection
from .project.project_dock import ProjectWidget
from .project.proposing import Proposing
from .project.recovery import RecoveryBar
from .project.review import Review
from .session.session import Session
from .tokens.library import Library
from .tokens.optimizing import Tokens
from .tokens.token_dock import TokenLibraryWidget
from .tokens.token_section import TokenSection
from .widgets.docks import NAMES, show_dock
from .widgets.section import MAX_WIDTH, StatusLine, listen, small_button

if TYPE_CHECKING:
    from napari.viewer import Viewer

_STEPS = (ImageSection, MapsSection, LabelsSection, TokenSection, ExportSection)
# Not among the steps of a first session: folded until they are wanted.
_SECTIONS = (*_STEPS[:3], ClassSection, InstancesSection, *_STEPS[3:])


FEATURES = {
    "layers": SampleLayers,
    "layer_watch": LayerWatch,
    "labels": Labelling,
    "images": Images,
    "maps": Maps,
    "live": LiveMaps,
    "uncertainty": UncertainPlaces,
    "tokens": Tokens,
    "library": Library,
    "exports": Exports,
    "review": Review,
    "proposing": Proposing,
    "instances": InstanceEdits,
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


class AnnotatorWidget(QWidget):
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
        self.setMaximumWidth(MAX_WIDTH)
        self.setMinimumWidth(MAX_WIDTH)
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
            fold = QCollapsible(f"{number}{kind.title}")
            fold.setObjectName(f"fold_{kind.title.lower()}")
            fold.setDuration(0)  # no animation: the form can be used at once
            outer: Any = fold.layout()
            outer.setContentsMargins(2, 0, 2, 0)
            outer.setSpacing(0)
            # As the content itself, and not in it: a fold holds its content to the
            # height that it had, and a section grows with its classes and settings.
            fold.setContent(section)
            fold.toggled.connect(partial(_free_height, section))
            if step:
                fold.expand(animate=False)
                _free_height(section, True)
            inner.addWidget(fold)
            self.sections[kind.title] = section
        inner.addStretch(1)
        scroll = QScrollArea()
        scroll.setObjectName("sections")
        scroll.setWidgetResizable(True)
        scroll.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        layout.addWidget(scroll, 1)
        layout.addWidget(StatusLine(self.session))


def _free_height(section: QWidget, opened: bool) -> None:
    if opened:
        section.setMaximumHeight(16_777_215)  # Qt's own maximum


class SampleSelector(QWidget):
    """Which sample is shown."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.list = QComboBox()
        self.list.setObjectName("sample")
        self.list.setToolTip("The image that is shown, with its maps and labels")
        self.list.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.list.setMinimumContentsLength(8)
        self.list.activated.connect(
            lambda index: session.select(self.list.itemData(index))
        )
        row = QHBoxLayout(self)
        row.setContentsMargins(6, 2, 6, 2)
        row.setSpacing(4)
        row.addWidget(QLabel("Sample"))
        row.addWidget(self.list, 1)
        self.previous = small_button(
            "<", "previous_sample", partial(session.do, "previous"), "Previous sample"
        )
        self.next = small_button(
            ">", "next_sample", partial(session.do, "next"), "Next sample"
        )
        row.addWidget(self.previous)
        row.addWidget(self.next)
        row.addWidget(
            small_button(
                "☰",
                "project_button",
                partial(show_dock, session.viewer, "OVAM project"),
                "All images of the project: review them, open or save a project",
            )
        )
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
            self.list.setToolTip(f"{current.name}: shown, with its maps and labels")
        self.previous.setEnabled(index > 0)
        self.next.setEnabled(0 <= index < len(keys) - 1)
