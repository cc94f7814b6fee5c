"""What the session knows: classes and samples, without Qt and without napari."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari_ovam.base.ids import IGNORE
from napari_ovam.base.words import read_phrases
from napari_ovam.datasets.classes import (
    PALETTE,
    ClassError,
    Colour,
    Source,
    default_thresholds,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.project.index import Status

    from .edits import Edits

UNSURE = IGNORE
DECIDED = ("accepted", "rejected")  # what maps and thresholds do not change any more


@dataclass(frozen=True)
class ModelChoice:
    """Which model runs where."""

    model: str = "tiny"
    device: str = "auto"


@dataclass(eq=False)
class ClassEntry:
    """One row of the class table.

    Attributes
    ----------
    id, name, color
        As exported; the id never changes.
    phrase
        What is looked for in the image.
    source
        Whether the phrase or the optimized token makes the maps.
    thresholds
        From 0 to 1, one for each source; None is each map's own.
    active
        Whether the phrase is among those typed now.
    thing, key
        As in `napari_ovam.datasets.classes.ProjectClass`.
    shown
        Whether its maps are shown.
    pieces
        The text encoder's pieces of the phrase, once it was encoded.
    scores
        IoU before and after the last optimization.
    """

    id: int
    name: str
    color: Colour
    phrase: str
    source: Source = "phrase"
    thresholds: dict[Source, float | None] = field(default_factory=default_thresholds)
    token: Token | None = None
    active: bool = True
    thing: bool = True
    key: str | None = None
    shown: bool = True
    pieces: tuple[str, ...] = ()
    scores: tuple[float, float] | None = None

    @property
    def threshold(self) -> float | None:
        """The threshold of the source in use, None for each map's own."""
        return self.thresholds[self.source]

    @property
    def token_in_use(self) -> Token | None:
        """The optimized token, if that is the source in use."""
        return self.token if self.source == "token" else None


class ClassTable:
    """The classes in order of their ids.

    Parameters
    ----------
    last_id, retired
        As in `napari_ovam.datasets.classes.ClassTable`: what no new class gets.
    """

    def __init__(
        self, last_id: int = 0, retired: Mapping[int, int | None] | None = None
    ) -> None:
        self._entries: dict[int, ClassEntry] = {}
        self._last = last_id
        self._retired = dict(retired or {})

    def __iter__(self) -> Iterator[ClassEntry]:
        return iter(sorted(self._entries.values(), key=lambda e: e.id))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> ClassEntry:
        return self._entries[number]

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def get(self, number: int) -> ClassEntry | None:
        """Return the class with an id, if there is one."""
        return self._entries.get(number)

    def knows(self, number: int) -> bool:
        """Whether an id belongs to a class, or belonged to one that was removed."""
        return number in self._entries or number in self._retired

    @property
    def last_id(self) -> int:
        """The largest id that was ever given."""
        return max([self._last, *self._entries, *self._retired])

    @property
    def retired(self) -> dict[int, int | None]:
        """Ids of removed classes: what their pixels turned into, None if they stay."""
        return dict(self._retired)

    @property
    def active(self) -> list[ClassEntry]:
        """The classes whose phrases are typed now."""
        return [entry for entry in self if entry.active]

    def find(self, phrase: str) -> ClassEntry | None:
        """Return the class of a phrase, or of that name."""
        wanted = phrase.casefold()
        for get in (lambda e: e.phrase, lambda e: e.name):
            for entry in self:
                if get(entry).casefold() == wanted:
                    return entry
        return None

    def add(self, name: str, number: int | None = None) -> ClassEntry:
        """Add a class under the id `number`, or the next that was never used."""
        if number is None:
            number = self.last_id + 1
            number += number == UNSURE
        if number in self._retired:
            raise ClassError(
                f"the id {number} belonged to a class that was removed: paint over it "
                "with another class"
            )
        color = PALETTE[(number - 1) % len(PALETTE)]
        entry = ClassEntry(number, name, color, phrase=name)
        self._entries[number] = entry
        return entry

    def remove(self, number: int, becomes: int | None) -> None:
        """Remove a class whose pixels become 0 or another's; nobody gets its id."""
        del self._entries[number]
        self._retired[number] = becomes

    def use_phrases(self, phrases: list[str]) -> list[ClassEntry]:
        """Make exactly these phrases the active ones; classes are never removed."""
        for entry in self:
            entry.active = False
        for phrase in phrases:
            entry = self.find(phrase) or self.add(phrase)
            entry.active = True
        return self.active

    def use_again(self, known: Mapping[int, bool]) -> None:
        """Make the classes active that were; others, if never used, go again."""
        for entry in self:
            if entry.id in known:
                entry.active = known[entry.id]
            elif entry.active:
                del self._entries[entry.id]


def split_phrases(text: str) -> list[str]:
    """Split typed phrases, as `read_phrases`, which also says what was left out."""
    return read_phrases(text)[0]


@dataclass(eq=False)
class LiveSample:
    """An image with everything that belongs to it.

    Attributes
    ----------
    image
        (H, W, 3) uint8.
    trace
        What the model saw; None for labels without a model run.
    settings
        How it was generated; None for a loaded image.
    maps
        (H, W) float32 from 0 to 1 by class id.
    edits
        The labels; None until there are some.
    absent
        Classes that are said not to be in this image.
    prompt
        What a loaded image was traced with.
    seconds
        How long the model ran for it; 0 where that is not known.
    exact
        Whether everything was recorded in full precision.
    probabilities
        Of the classes by id, (H, W) float32, as labels were made of them last.
    status
        How far its labels are.
    about
        What else its provenance says, as JSON: the words of the file that it was
        loaded from, and how the model looked at it.
    """

    name: str
    image: NDArray[np.uint8]
    choice: ModelChoice
    trace: Trace | None = None
    settings: GenerationSettings | None = None
    maps: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    edits: Edits | None = None
    absent: set[int] = field(default_factory=set)
    prompt: str = ""
    seconds: float = 0
    exact: bool = False
    probabilities: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    status: Status = "new"
    key: str = field(default_factory=lambda: uuid4().hex)
    about: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]
