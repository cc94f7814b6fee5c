"""Prompts of a dataset: from a file, or from templates with lists."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_ovam.base.words import UNSEEN, is_text
from napari_ovam.datasets.class_lists import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

MOST = 1_000_000
"""Prompts of a plan; more are refused."""

_TEXTS = ("prompt", "text", "caption")
_SLOT = re.compile(r"\{([^{}]*)\}")
_VOWEL = re.compile(r"\ba(?= [aeiou])", re.IGNORECASE)


class PromptError(ValueError):
    """A prompt or a file of prompts that cannot be used; the message says where."""


@dataclass(frozen=True)
class Prompt:
    """What to draw.

    Attributes
    ----------
    text, negative
        As in `GenerationSettings`.
    classes
        Names of the classes that are looked for in it; None for those that the text
        names.
    """

    text: str
    negative: str = ""
    classes: tuple[str, ...] | None = None


def read_prompts(path: Path) -> tuple[list[Prompt], list[str]]:
    """Read prompts from a file: `.csv`, `.jsonl` or lines of text.

    Empty lines are left out, and what stands twice is taken once. A table has its
    prompts in a column (a key) "prompt", "text" or "caption", and may have
    "negative_prompt" and "classes", names separated by semicolons.

    It raises `PromptError` if there is none, or one cannot be read, by its line.

    Parameters
    ----------
    path
        In UTF-8, or UTF-16 with its mark.

    Returns
    -------
    list of Prompt
        In the order of the file.
    list of str
        What was left out, a sentence each.
    """
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path.name} is not in UTF-8 ({error}): save it so"
        ) from None
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        rows = _from_table(path.name, text, "\t" if kind == ".tsv" else ",")
    elif kind in (".jsonl", ".ndjson"):
        rows = _from_jsonl(path.name, text)
    else:
        rows = ((n, Prompt(line)) for n, line in enumerate(text.splitlines(), 1))
    found: dict[Prompt, None] = {}
    count = twice = 0
    for number, prompt in rows:
        where = f"{path.name}, line {number}"
        clean = _cleaned(where, prompt)
        if clean.text:
            count += 1
            twice += clean in found
            found[clean] = None
        if count > MOST:
            raise PromptError(f"{path.name} has more than {MOST:,} prompts: split it")
    if not found:
        raise PromptError(f"{path.name} holds no prompt")
    notes = [f"{twice} of {count} prompts stand there more than once."] if twice else []
    return list(found), notes


def fill_templates(
    templates: Sequence[str], lists: Mapping[str, Sequence[str]]
) -> list[Prompt]:
    """Return the prompts of templates such as "a {class} {place}", each once.

    A name that stands twice in a template gets two different words, each pair once;
    "a" becomes "an" before a vowel. The words of the list "class" are the classes that
    are looked for.

    It raises `PromptError` if a template names no list, or there are too many prompts.
    """
    found: dict[Prompt, None] = {}
    for template in templates:
        slots = _SLOT.findall(template)
        for name in slots:
            if not lists.get(name):
                raise PromptError(
                    f"the template {template!r} has {{{name}}} and there is no such "
                    f"list: there are {', '.join(lists) or 'none'}"
                )
        names = list(dict.fromkeys(slots))
        choices = (
            itertools.combinations(dict.fromkeys(lists[n]), slots.count(n))
            for n in names
        )
        for words in itertools.product(*choices):
            given = {n: iter(w) for n, w in zip(names, words, strict=True)}
            text = "".join(
                next(given[part]) if place % 2 else part
                for place, part in enumerate(_SLOT.split(template))
            )
            classes = dict(zip(names, words, strict=True)).get("class")
            prompt = Prompt(_VOWEL.sub(_with_n, text), classes=classes)
            found[_cleaned(f"the template {template!r}", prompt)] = None
            if len(found) > MOST:
                raise PromptError(
                    f"the templates make more than {MOST:,} prompts: use shorter lists"
                )
    if not all(prompt.text for prompt in found):
        raise PromptError("a template is empty: say what to draw")
    return list(found)


def _with_n(found: re.Match[str]) -> str:
    return found[0] + "n"


def _cleaned(where: str, prompt: Prompt) -> Prompt:
    for text in (prompt.text, prompt.negative):
        if not is_text(text):
            raise PromptError(f"{where}: {text!r} holds bytes that are no UTF-8")
    text, negative = (
        " ".join(UNSEEN.sub("", each).split())
        for each in (prompt.text, prompt.negative)
    )
    return Prompt(text, negative, prompt.classes)


def _from_table(name: str, text: str, delimiter: str) -> Iterator[tuple[int, Prompt]]:
    csv.field_size_limit(10_000_000)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        filled = (row for row in reader if any(cell.strip() for cell in row))
        head = [cell.strip().casefold() for cell in next(filled, [])]
        column = next((head.index(t) for t in _TEXTS if t in head), None)
        if column is None:
            raise PromptError(
                f"{name} has the columns {', '.join(head) or 'none'}: name one of them "
                "'prompt', in the first line"
            )
        for row in filled:
            if len(row) > len(head):
                raise PromptError(
                    f"{name}, line {reader.line_num}: it has {len(row)} cells and the "
                    f"first line {len(head)}: put quotes around prompts with a comma"
                )
            cells = dict(zip(head, row, strict=False))
            cells["prompt"] = row[column] if column < len(row) else ""
            yield reader.line_num, _of(cells)
    except csv.Error as error:
        raise PromptError(f"{name}, line {reader.line_num}: {error}") from None


def _from_jsonl(name: str, lines: str) -> Iterator[tuple[int, Prompt]]:
    for number, line in enumerate(lines.split("\n"), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PromptError(f"{name}, line {number} is no JSON: {error}") from None
        if isinstance(content, str):
            content = {"prompt": content}
        table = content if isinstance(content, dict) else {}
        text = next((table[key] for key in _TEXTS if key in table), None)
        if not isinstance(text, str):
            raise PromptError(
                f'{name}, line {number}: give {{"prompt": "..."}} or a text, not '
                f"{line.strip()[:60]}"
            )
        yield number, _of({**table, "prompt": text})


def _of(cells: Mapping[str, object]) -> Prompt:
    """Return the prompt of a row of a table."""
    classes = cells.get("classes")
    if isinstance(classes, str):
        classes = [part.strip() for part in classes.split(";") if part.strip()]
    names = tuple(map(str, classes)) if isinstance(classes, list) and classes else None
    return Prompt(str(cells["prompt"]), str(cells.get("negative_prompt") or ""), names)
