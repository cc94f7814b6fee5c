"""The nouns of a prompt, by a small rule: what it shows is what to look for.

English, without a dictionary. A prompt is cut at its little words, its punctuation and
usual verbs; the last word of each piece that says nothing of the style is its noun ("a
small red hat": hat). Names that are known are taken as they stand, wherever the prompt
has them ("teddy bear"). What follows "on the", "in the" and the like is the
place, and left out unless it is known: a person seldom wants a mask of it.

It takes an unknown adjective at the end of a piece for a noun ("the sky is cloudy"), an
unlisted verb as well, and of two nouns that stand together the second ("coffee cup":
cup). Other languages are seldom cut rightly: the person sees what was found, and types.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_ovam.base.words import is_named, is_unspaced, plain_phrase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST = 8
"""Nouns that are taken; prompts of hundreds of words exist."""
_READ = 2000  # signs of a prompt that are read
_WORDS = 6  # of a piece that are looked at: its noun is the last
_LONGEST = 40  # letters of a word that is taken

# Between two pieces: articles, pronouns, conjunctions, numbers, prepositions, verbs.
_BETWEEN = """
a an the this that these those some any each every all both no another other
his her its their our my your he she it they we i you who which what whose
and or but nor as than so while if then very too also just only not
one two three four five six seven eight nine ten several many few couple pair group
is are was were be been being am has have had having do does did can could will
would may might should must
of with without from to for by about like between among against around across
through into onto up down off out near beside behind above below over under
underneath next front middle top
there here where when how made
sitting sits sit standing stands stand running runs run walking walks walk wearing
wears worn holding holds hold lying lies laying lays looking looks look playing
plays play riding rides ride eating eats eat sleeping sleeps flying flies fly
jumping jumps jump swimming swims driving drives parked floating smiling hanging
surrounded covered filled facing showing shows using
"""
_BEFORE_A_PLACE = "on in at inside outside onto upon along under over across"
# Of how it looks: no noun of their own in a prompt.
_STYLE = """
photo photos photograph photographs photography picture pictures image images
painting illustration drawing sketch render rendering art artwork artstation scene
view shot closeup close-up portrait closeups style quality masterpiece best high
highly ultra hyper detailed detail details realistic photorealistic hyperrealistic
realism cinematic lighting light lights bokeh focus sharp depth field resolution
hd uhd hdr 4k 8k 16k dslr raw film grain wallpaper trending background foreground
aesthetic beautiful stunning amazing cute lovely pretty nice digital oil watercolor
watercolour pencil anime cartoon emoji vector minimalist simple plain isolated
professional award winning intricate elegant vivid vibrant colorful colourful
red orange yellow green blue purple violet pink brown black white grey gray golden
silver dark bright pale big large small little tiny huge tall short long old young
new left right same different wide full whole half empty wooden metal
"""
_CUTS, _PLACES, _LOOKS = (
    frozenset(words.split()) for words in (_BETWEEN, _BEFORE_A_PLACE, _STYLE)
)
_WORD = re.compile(r"<[\w-]+>|\w+(?:['’\-]\w+)*")
_PAUSE = re.compile(r"[,;.:!?\n()\[\]{}|/\"“”]")


def prompt_nouns(prompt: str, known: Iterable[str] = ()) -> list[str]:
    """Return what a prompt shows, in its order, each once; at most `MOST`.

    Parameters
    ----------
    prompt
        As typed; weights and tags of other tools are left out.
    known
        Names that are taken as they are written here where the prompt has them, in
        whatever form: those of classes.
    """
    text = plain_phrase(prompt[:_READ])
    names = list(dict.fromkeys(known))
    found: dict[str, str] = {}
    for piece, is_place in _pieces(text):
        last = piece.split()[-1]  # an orange is one, an orange cat is none
        letters = {word[0].casefold() for word in piece.split()}
        there = [
            name
            for name in names
            if name[:1].casefold() in letters  # which is soon known
            and is_named(name, last if name.casefold() in _LOOKS else piece)
        ]
        for name in _largest(there):
            found.setdefault(name.casefold(), name)
        if not there and not is_place and (noun := _noun(piece)):
            found.setdefault(noun.casefold(), noun)
    return list(found.values())[:MOST]


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Return what is between little words, and whether it is said to be the place."""
    for part in _PAUSE.split(text):
        piece: list[str] = []
        place, before = False, ""
        for word in [*_WORD.findall(part), ""]:
            small = word.casefold()
            if word and small not in _CUTS and small not in _PLACES:
                piece.append(word)
                continue
            if piece:
                yield " ".join(piece[-_WORDS:]), place
                piece, place = [], False
            # "on the grass" is where it is; "in a hat" may be what is looked for
            place = small == "the" and before in _PLACES
            before = small


def _largest(names: list[str]) -> list[str]:
    """Return names without those in another: no dog in a hot dog; of equals one."""
    taken: list[str] = []
    for name in sorted(names, key=len, reverse=True):
        if not any(is_named(name, other) for other in taken):
            equal = [n for n in names if is_named(name, n) and is_named(n, name)]
            taken.append(equal[0])
    return [name for name in names if name in taken]


def _noun(piece: str) -> str:
    """Return the last word of a piece that may be a noun; empty without one."""
    words = [word for word in piece.split() if word.casefold() not in _LOOKS]
    last = words[-1] if words else ""
    if is_unspaced(last) or len(last) > _LONGEST or not any(c.isalpha() for c in last):
        return ""
    return last if last.startswith("<") else re.sub(r"['’]s?$", "", last)
