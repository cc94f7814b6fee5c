"""What the session holds in memory beside its project: what is only seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_ovam.base.ids import IGNORE
from napari_ovam.base.words import read_phrases
from napari_ovam.images.arrays.stacks import Plane

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.datasets.project_class import Source
    from napari_ovam.project import Project, Sample, Status

    from .edits import Edits, Snapshot

UNSURE = IGNORE
DECIDED = ("accepted", "rejected")  # what maps and thresholds do not change any more


@dataclass(frozen=True)
class ModelChoice:
    """Which model runs where."""

    model: str = "tiny"
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Former:
    """What made the maps of a class before: its fields of `ProjectClass`, its token."""

    source: Source
    thresholds: Mapping[Source, float | None]
    token: Token | None
    scores: tuple[float, float] | None


@dataclass(eq=False)
class ClassView:
    """What this window knows of a class beside the class table.

    Attributes
    ----------
    token
        Its optimized token, as read or made last.
    scores
        IoU before and after the last optimization.
    former
        What was in use before the token was learned by itself.
    learns
        Whether it learns by itself: not once a person went back to what was before.
    shown
        Whether its maps are shown.
    pieces
        The text encoder's pieces of the phrase, once it was encoded.
    """

    token: Token | None = None
    scores: tuple[float, float] | None = None
    former: Former | None = None
    learns: bool = True
    shown: bool = True
    pieces: tuple[str, ...] = ()


@dataclass
class LabelRules:
    """How labels are made from maps in this window.

    Attributes
    ----------
    automatic
        Whether new samples get labels by themselves: once a person asked for some.
    options
        Further fields of `napari_ovam.LabelSettings`.
    """

    automatic: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def split_phrases(text: str) -> list[str]:
    """Split typed phrases, as `read_phrases`, which also says what was left out."""
    return read_phrases(text)[0]


@dataclass(eq=False)
class LiveSample:
    """A sample of the project in memory, with what is seen of it.

    Attributes
    ----------
    project, key
        Whose sample it is, and its name there.
    image
        (H, W, 3) uint8.
    choice
        The model that made it, or looks at it.
    trace
        What the model saw; None until it is needed.
    settings
        How it was generated; None for a loaded image, and until it is needed.
    maps
        (H, W) float32 from 0 to 1 by class id.
    edits
        The labels; None until there are some.
    seconds
        How long the model ran for it; 0 where that is not known.
    exact
        Whether everything was recorded in full precision.
    presence
        Scores of the phrases by class id: below `presence.ABSENT`, probably absent.
    found
        (H, W) ids that the thresholds make of the maps; None where they did not yet.
    probabilities
        Of the classes by id, (H, W) float32, as labels were made of them last.
    saved
        The labels that are written or will be in a moment.
    on_disk
        The labels on the disk, as they were read or written last.
    unseen
        What another program drew and is on the disk, but not shown here yet: the
        labels here, where they are to change, and to what.
    """

    project: Project
    key: str
    image: NDArray[np.uint8]
    choice: ModelChoice
    trace: Trace | None = None
    settings: GenerationSettings | None = None
    maps: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    edits: Edits | None = None
    seconds: float = 0
    exact: bool = False
    presence: dict[int, float] = field(default_factory=dict)
    found: NDArray[Any] | None = None
    probabilities: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    saved: Snapshot | None = None
    on_disk: Snapshot | None = None
    unseen: tuple[Snapshot, NDArray[np.bool_], NDArray[Any]] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def record(self) -> Sample:
        """What the project knows of it."""
        return self.project.sample(self.key)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return title(self.record)

    @property
    def status(self) -> Status:
        """How far its labels are."""
        return self.record.status

    @property
    def absent(self) -> frozenset[int]:
        """Classes that are said not to be in this image."""
        return frozenset(self.record.absent)

    @property
    def about(self) -> Mapping[str, Any]:
        """How it came to be, as JSON: its prompt, its file's words, how it is seen."""
        return self.record.provenance

    @property
    def plane(self) -> Plane | None:
        """Which plane of a stack it is; None where it is of none."""
        return Plane.of(self.about)

    def same_stack(self, other: LiveSample | None) -> bool:
        """Whether another is a plane of the same stack."""
        mine, theirs = self.plane, other.plane if other is not None else None
        return mine is not None and theirs is not None and mine.id == theirs.id

    @property
    def unlabelled(self) -> bool:
        """Whether neither maps nor a person made labels of it yet."""
        edits = self.edits
        return edits is None or (self.status == "new" and edits.nothing)

    @property
    def unsaved(self) -> bool:
        """Whether its labels were changed since they were saved."""
        return self.edits is not None and self.edits.now is not self.saved


def title(record: Sample) -> str:
    """Return what a person calls a sample: its prompt, or its file's name."""
    return str(record.provenance.get("title") or record.name)
