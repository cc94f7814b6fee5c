"""JSON as a person may have left it: comments, commas too many, other encodings."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from typing import Any

# Texts are matched so that what looks like a comment in one stays.
_LOOSE = re.compile(
    r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/|^\s*#[^\n]*|,(?=\s*[}\]])', re.S | re.M
)


class DamagedError(ValueError):
    """A text that is no table, whatever one makes of it; the message says where."""


def load_table(data: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return the table {...} that a file holds, and what was wrong with its text.

    It raises `DamagedError` if it is none, with comments and commas too many or
    without.
    """
    notes: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(found)
        if len(table) < len(found):
            keys = [key for key, _ in found]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            notes.append(f"{twice} stand twice in one entry: the last counts")
        return table

    text = _decode(data, notes)
    try:
        content = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        loose = _LOOSE.sub(lambda found: found[1] or "", text)
        try:
            content = json.loads(loose, object_pairs_hook=pairs)
        except (ValueError, RecursionError):
            raise DamagedError(str(error)) from None
        notes.append(f"comments or commas too many are left out ({error})")
    except MemoryError as error:
        raise DamagedError("it is too large") from error
    if not isinstance(content, dict):
        raise DamagedError("it holds no table {...}")
    return content, notes


def _decode(data: bytes, notes: list[str]) -> str:
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # as an editor may save it
    try:
        return data.removeprefix(BOM_UTF8).decode("utf-16" if wide else "utf-8")
    except UnicodeDecodeError as error:
        notes.append(f"it is not in UTF-8 ({error}): look at the names")
        return data.decode("cp1252", errors="replace")
