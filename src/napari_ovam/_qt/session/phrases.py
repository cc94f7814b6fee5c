"""What is looked for: the phrases of the panel, which the prompt's nouns fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from psygnal import Signal

from napari_ovam.base.prompt_nouns import prompt_nouns
from napari_ovam.base.words import is_named
from napari_ovam.datasets.class_lists import PRESETS, preset

from .state import split_phrases

if TYPE_CHECKING:
    from napari_ovam.datasets.classes import ClassTable


class Host(Protocol):
    """What the phrases are of: the session, of which they know no more."""

    at_once: bool

    @property
    def classes(self) -> ClassTable:
        """Its classes."""


class Phrases:
    """The text of the phrases.

    The nouns of the prompt are put there, and change with it as long as no map was made
    of them; what a person typed stays.

    Attributes
    ----------
    text
        Phrases, separated by commas or lines.
    """

    changed = Signal(str)  # the text, where nobody typed it

    def __init__(self, session: Host) -> None:
        self.text = ""
        self._session = session
        self._prompt = ""
        self._filled: set[str] = set()  # of the prompt as it is
        self._from_prompts: set[str] = set()  # of this or an earlier one

    def type(self, text: str) -> None:
        """Take what a person typed."""
        self.text = text
        self._filled &= {phrase.casefold() for phrase in split_phrases(text)}

    def is_filled(self, phrase: str) -> bool:
        """Whether a phrase is there because the prompt says it."""
        return phrase.casefold() in self._filled

    def follow(self, prompt: str) -> None:
        """Put the nouns of a prompt in the place of those of the prompt before."""
        if prompt == self._prompt:
            return
        self._prompt = prompt
        if self._session.at_once or not self.text:
            kept = [p for p in split_phrases(self.text) if not self._came_before(p)]
            self._fill(kept)

    def restore(self) -> None:
        """Show the phrases in use; those of the prompt where there are none."""
        active = [entry.phrase for entry in self._session.classes.active]
        self._filled.clear()
        if active:
            self._set(active)
        elif not self.text:
            self._fill([])

    def look_for(self, prompt: str) -> list[str]:
        """Return what to look for in an image of a prompt: at least its own nouns."""
        self.follow(prompt)
        phrases = split_phrases(self.text)
        if not any(is_named(phrase, prompt) for phrase in phrases):
            self._fill(phrases)
        return split_phrases(self.text)

    def concerns(self, phrase: str, prompt: str) -> bool:
        """Whether a phrase is looked for in an image of a prompt.

        One that came with another prompt is not: its map would have a bright spot
        somewhere all the same.
        """
        came = phrase.casefold() in self._from_prompts
        return not came or is_named(phrase, prompt)

    def _came_before(self, phrase: str) -> bool:
        entry = self._session.classes.find(phrase)
        return self.is_filled(phrase) and (entry is None or not entry.active)

    def _fill(self, kept: list[str]) -> None:
        classes = [entry.name for entry in self._session.classes]
        listed = [each.name for name in PRESETS for each in preset(name)]
        nouns = prompt_nouns(self._prompt, [*classes, *listed])
        there = {phrase.casefold() for phrase in kept}
        self._filled = {noun.casefold() for noun in nouns} - there
        self._from_prompts |= self._filled
        self._set([*kept, *(noun for noun in nouns if noun.casefold() not in there)])

    def _set(self, phrases: list[str]) -> None:
        self.text = ", ".join(phrases)
        self.changed.emit(self.text)
