"""A class of a project: its id, name, colour, and how its maps are made."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from napari_ovam.base.ids import IGNORE, LARGEST_ID, is_class_id
from napari_ovam.base.names import check_name
from napari_ovam.base.words import UNSEEN
from napari_ovam.datasets.class_colors import Colour, is_color

if TYPE_CHECKING:
    from collections.abc import Mapping

Source = Literal["phrase", "token"]

KEYS = tuple("123456789")


class ClassError(ValueError):
    """A class that cannot be as it was asked for."""


def one_form(name: str) -> str:
    """Return a name in one Unicode form, without spaces at its ends and unseen signs.

    "é" is one character or two, and looks the same: macOS writes the latter.
    """
    return unicodedata.normalize("NFC", UNSEEN.sub("", name).strip())


def default_thresholds() -> dict[Source, float | None]:
    """Return where a class starts."""
    return {"phrase": None, "token": None}


@dataclass(frozen=True)
class ProjectClass:
    """A class: what its pixels hold, what it is called, how its maps are made.

    Attributes
    ----------
    id
        The value of its pixels, 1 to 65535 without 255; given once, never changed.
    name, color
        As exported; (red, green, blue), 0 to 255.
    phrase
        What is looked for in the image.
    source
        Whether the phrase or the token makes the maps.
    thresholds
        From 0 to 1, by source; None is 0.5, more likely than not.
    token
        The name of its file in the project's folder `tokens`, or None.
    active
        Whether its phrase is looked for; else it is only painted.
    thing
        Whether its parts are objects to count, or one region ("stuff": sky, grass).
    key
        "1" to "9", which chooses it for painting, or None.
    """

    id: int
    name: str
    color: Colour
    phrase: str
    source: Source = "phrase"
    thresholds: Mapping[Source, float | None] = field(
        default_factory=default_thresholds
    )
    token: str | None = None
    active: bool = True
    thing: bool = True
    key: str | None = None

    @property
    def threshold(self) -> float | None:
        """The threshold of the source in use, None for 0.5."""
        return self.thresholds[self.source]


def plain_phrase(name: str) -> str:
    """Return a name as one phrase, which has no comma and no line of its own."""
    return " ".join(re.split(r"[,;\s]+", name)).strip()


def check_class(entry: ProjectClass) -> None:
    """Raise ClassError, which names the value, where a class cannot be so."""
    number = entry.id
    if not is_class_id(number):
        raise ClassError(
            f"{entry.name!r} cannot have the id {number}: use 1 to {LARGEST_ID} "
            f"without {IGNORE} (0 is the background, {IGNORE} means unsure)"
        )
    if not isinstance(entry.name, str) or not entry.name.strip():
        raise ClassError(f"class {number} needs a name")
    if not isinstance(entry.phrase, str):
        raise ClassError(f"class {entry.name!r}: the phrase {entry.phrase!r} is none")
    if entry.token is not None:
        check_name(entry.token)  # a file in `tokens`, and nowhere else
    if not is_color(entry.color):
        raise ClassError(
            f"class {entry.name!r} has the colour {entry.color!r}; use (r, g, b), 0-255"
        )
    if not isinstance(entry.thing, bool):
        raise ClassError(f"class {entry.name!r}: thing is {entry.thing!r}: true or not")
    if entry.key is not None and entry.key not in KEYS:
        raise ClassError(f"class {entry.name!r}: the key {entry.key!r} is not 1 to 9")
    if entry.source not in ("phrase", "token"):
        raise ClassError(f"class {entry.name!r}: the source {entry.source!r} is none")
    if set(entry.thresholds) != {"phrase", "token"}:
        raise ClassError(
            f"class {entry.name!r} has thresholds for {sorted(entry.thresholds)}: give "
            "one for 'phrase' and one for 'token'"
        )
    for source, value in entry.thresholds.items():
        if value is not None and not 0 <= value <= 1:
            raise ClassError(
                f"class {entry.name!r}: the threshold {value} of its {source} is not "
                "between 0 and 1"
            )
