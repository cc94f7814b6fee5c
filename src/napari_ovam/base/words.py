"""Phrases as people type and paste them, and words in the forms that they take."""
# ruff: noqa: RUF001 (the signs of other scripts are meant)

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from napari_ovam.base.prompt_syntax import plain_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SCALED = re.compile(r"(?<=\w)(?::+\s*[+-]?\d*\.?\d+|[+-]+)(?=\s|$)")  # cat:1.3, cat++
TOY = re.compile(r"<([\w-]+)>|[<>]")
"""What may be a token of a textual inversion, by its name, and signs that are none."""
_SEPARATORS = re.compile(r"[,;\n，、；]")
_QUOTES = "\"'`´“”„‟«»‹›‘’‚「」『』"
_ENDS = f"{_QUOTES}.,:;!?¿¡…·•→*_~^|/\\-–—=+。，、：；！？（）【】《》 "

UNSEEN = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
"""Spaces of no width, marks of direction and of byte order, hyphens that may break."""
_WORD = re.compile(r"\w+(?:['’]\w+)?")
# Scripts that are written without spaces between words
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "lice": "louse",
    "oxen": "ox",
    "dice": "die",
    "passersby": "passerby",
    "tvs": "tv",
}
_ENDINGS = (  # of plurals, and what stands there in the singular
    ("ies", ("y", "ie")),
    ("ves", ("f", "fe", "ve")),
    ("zzes", ("z", "zz")),
    ("sses", ("ss", "s")),
    ("ices", ("ex", "ix", "ice")),
    ("eaux", ("eau",)),
    ("ae", ("a",)),
    ("a", ("um", "on")),
    ("i", ("us",)),
    *((f"{stem}es", (stem,)) for stem in ("s", "x", "z", "ch", "sh", "o")),
    ("ses", ("sis",)),
    ("s", ("",)),
)
_SPELLINGS = {
    "gray": "grey",
    "donut": "doughnut",
    "airplane": "aeroplane",
    "drier": "dryer",
    "tire": "tyre",
    "mustache": "moustache",
    "pajamas": "pyjamas",
    "yoghurt": "yogurt",
    "jewelry": "jewellery",
    "tv": "television",
    "bike": "bicycle",
    "fridge": "refrigerator",
}
_SHORTEST = 3  # letters that a singular has at least: "as" is no plural of "a"


def read_phrases(text: str) -> tuple[list[str], list[str]]:
    """Split typed phrases at commas, semicolons and line ends; each once.

    Returns
    -------
    list of str
        The phrases, each as `plain_phrase` has it.
    list of str
        What was not taken as it stands, a sentence each.
    """
    found: dict[str, str] = {}
    notes = []
    for part in _SEPARATORS.split(text):
        given, phrase = " ".join(part.split()), plain_phrase(part)
        if given != phrase and unicodedata.normalize("NFC", given) != phrase:
            read = f"read as {phrase!r}" if phrase else "no word, and left out"
            notes.append(f"{given!r} is {read}.")
        for each in filter(None, phrase.split(", ")):  # of "cat AND dog"
            found.setdefault(each.casefold(), each)
    return list(found.values()), notes


def plain_phrase(text: str) -> str:
    """Return a phrase without what is not meant: punctuation, quotes and weights.

    "(cat:1.3)", '"cat"' and "cat," are "cat"; an apostrophe or hyphen in a word stays,
    and so does "<toy>", which may be a token of a textual inversion.
    """
    text, before = UNSEEN.sub("", unicodedata.normalize("NFC", text)), ""
    while text != before:  # weights within weights, brackets of which one is missing
        before = text
        text = re.sub(r"(?<!\\)[()\[\]{}]", " ", plain_prompt(text)[0])
        text = TOY.sub(lambda found: found[0] if found[1] else " ", text)
        text = _SCALED.sub("", text).strip(" ,")
    words = (word.strip('"`“”„‟«»') for word in text.split())
    return " ".join(" ".join(filter(None, words)).strip(_ENDS).split())


def is_named(phrase: str, text: str) -> bool:
    """Whether a person would see the words of a phrase in a text, in whatever form.

    Case, accents, hyphens, the plural, an "'s" and usual spellings do not count:
    "cherry" is in "Cherries", "teddy bear" in "teddy-bears" and "teddybear". The words
    of the phrase stand side by side, and whole: "cat" is not in "cathedral".
    """
    wanted, there = _words(phrase), _words(text)
    if not wanted:
        return False
    if is_unspaced(phrase):
        return _bare(phrase) in _bare(text)
    if _forms("".join(wanted)) & _side_by_side(text, len(wanted) + 1):
        return True
    return len(wanted) > 1 and any(
        all(
            _forms(one) & _forms(other) for one, other in zip(wanted, some, strict=True)
        )
        for some in (there[i : i + len(wanted)] for i in range(len(there)))
        if len(some) == len(wanted)
    )


def shorten(values: Iterable[object], most: int = 5, between: str = ", ") -> str:
    """Return some values as text, and how many more there are."""
    few = list(values)
    more = f" and {len(few) - most} more" if len(few) > most else ""
    return between.join(map(str, few[:most])) + more


def is_text(text: str) -> bool:
    """Whether a text has no halves of signs, which bytes that are no UTF-8 become."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def is_unspaced(text: str) -> bool:
    """Whether a text is in a script without spaces between words."""
    return _UNSPACED.search(text) is not None


@lru_cache(1024)  # a prompt is asked for each class, a class for each prompt
def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text, in small letters without accents."""
    return tuple(re.sub(r"['’]s?$", "", word) for word in _split(_bare(text)))


@lru_cache(1024)
def _side_by_side(text: str, most: int) -> frozenset[str]:
    """Return what words side by side, up to so many, are when they are joined."""
    there = _words(text)
    places = ((i, i + n) for i in range(len(there)) for n in range(1, most + 1))
    return frozenset().union(*(_forms("".join(there[i:j])) for i, j in places))


def _split(text: str) -> Iterator[str]:
    for found in _WORD.finditer(text.replace("_", " ")):
        yield found[0]


def _bare(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in apart if not unicodedata.combining(c)).casefold()


@lru_cache(1 << 16)
def _forms(word: str) -> frozenset[str]:
    """Return a word with the singulars that it may be the plural of."""
    found = {word}
    for plural, singular in _IRREGULAR.items():
        stem = re.sub(f"{plural}s?$", "", word)  # "snowmen" and "childrens" as well
        if stem != word:
            found.add(stem + singular)
    for ending, singulars in _ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= _SHORTEST - len(ending) // 2:
            found |= {stem + singular for singular in singulars}
    found |= {re.sub(r"our(?=s?$|ful|ed$|ing$)", "or", each) for each in found}
    return frozenset(found | {_SPELLINGS[e] for e in found & _SPELLINGS.keys()})
