"""Where each label pixel came from: what set it, in the order in which it was set.

`history/NAME.jsonl` has a line for each change of an image's labels: what made it,
when, and the pixels that it set. So the labels can be made again from nothing, exactly;
of what made them (a phrase, a token, clicks) the line only tells. A line that was cut
off by a kill is left out, and of pixels that no line set the source is not known.
"""

from __future__ import annotations

import json
import os
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_ovam.base.tiles import tile_places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Box = tuple[slice, slice]
    Mask = NDArray[np.bool_]
    Ids = NDArray[np.uint16]

OBJECTS = {
    "cut": "cut",
    "split": "divided",
    "merge": "joined with another",
    "back": "put back as it was",
}
"""What is done to objects, as it is told; it sets no label."""

_TOLD = {
    "script": "by a script",
    **dict.fromkeys(("undo", "redo"), "by a script or another plugin"),
    "unknown": "not by this program, or before it kept a history",
}
_TOOLS = {"fill": "by a fill", "polygon": "by a polygon", "erase": "by the eraser"}


class Piece(NamedTuple):
    """Pixels that were set, in a box of at most a tile; see `pack`."""

    top: int
    left: int
    height: int
    width: int
    data: str

    @property
    def box(self) -> Box:
        """Its rows and columns."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )

    def unpack(self) -> tuple[Mask, Ids]:
        """Return which pixels of the box were set, and to what; 0 elsewhere."""
        size = self.height * self.width
        raw = zlib.decompress(b64decode(self.data))
        bits = np.frombuffer(raw, np.uint8, -(-size // 8))
        shape = self.height, self.width
        mask = np.unpackbits(bits, count=size).reshape(shape).astype(bool)
        ids = np.zeros(mask.shape, np.uint16)
        ids[mask] = np.frombuffer(raw, "<u2", offset=len(bits))
        return mask, ids


@dataclass(frozen=True)
class Change:
    """A change of labels.

    Attributes
    ----------
    about
        "by", what made it: maps, click, stroke, import, carry, script, undo, redo,
        unknown, or one of `OBJECTS`; "at", when, in UTC; and what else is known, as
        JSON.
    pieces
        The pixels that it set.
    """

    about: Mapping[str, Any]
    pieces: tuple[Piece, ...] = ()

    @property
    def count(self) -> int:
        """How many pixels it set."""
        return sum(int(piece.unpack()[0].sum()) for piece in self.pieces)

    def tell(self, label: int | None = None) -> str:
        """Return what made it, for a person: "by a click, 14:03".

        Parameters
        ----------
        label
            That a pixel has from it; None for all of it.
        """
        by = str(self.about.get("by"))
        how = _TOLD.get(by) or OBJECTS.get(by) or f"by {by}"
        if by == "maps":
            how = _tell_maps(self.about, label)
        elif by == "click":
            count = len(self.about.get("clicks", ()))
            how = "by a box" if self.about.get("box") else "by a click"
            how = f"by {count} clicks" if count > 1 else how
        elif by == "stroke":
            how = _TOOLS.get(str(self.about.get("tool")), "by a stroke")
        elif by == "import":
            how = f"imported from {self.about.get('from')}"
        elif by == "carry":
            how = f"carried on from {self.about.get('from')}"
        return f"{how}, {_tell_time(str(self.about.get('at', '')))}"


def _tell_maps(about: Mapping[str, Any], label: int | None) -> str:
    sources = about.get("sources", {})
    source = sources.get(str(label)) if label is not None else None
    if source is None:
        return "by the maps"
    word = f"by the map of {source.get('phrase')!r}"
    return f"{word} and its token {source['token']}" if "token" in source else word


def _tell_time(at: str) -> str:
    try:
        then = datetime.fromisoformat(at).astimezone()
    except ValueError:
        return "nobody knows when"
    today = then.date() == datetime.now().astimezone().date()
    return f"{then:%H:%M}" if today else f"{then:%Y-%m-%d %H:%M}"


def pack(
    ids: NDArray[Any], mask: Mask, corner: tuple[int, int] = (0, 0)
) -> Piece | None:
    """Return what sets some pixels of a tile to their ids; None where there are none.

    The data are bits of the mask row by row, then the ids as 16-bit little-endian, in
    zlib and base64.

    Parameters
    ----------
    ids, mask
        (h, w), the tile, and which of its pixels are set.
    corner
        Row and column of the tile in the image.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = mask[box]
    raw = np.packbits(inside).tobytes() + ids[box][inside].astype("<u2").tobytes()
    data = b64encode(zlib.compress(raw)).decode()
    top, left = corner[0] + int(rows[0]), corner[1] + int(columns[0])
    return Piece(top, left, inside.shape[0], inside.shape[1], data)


def pack_all(ids: NDArray[Any], mask: Mask) -> tuple[Piece, ...]:
    """Return what sets some pixels of labels, (H, W), to their ids, in tiles."""
    found = (
        pack(ids[at], mask[at], (at[0].start, at[1].start))
        for at in tile_places((ids.shape[0], ids.shape[1]))
    )
    return tuple(piece for piece in found if piece is not None)


def add_changes(path: Path, changes: Sequence[Change], digest: str) -> None:
    """Write changes at the end of a history.

    It raises `OSError` if they cannot be written.

    Parameters
    ----------
    path
        The file; it is made where there is none.
    changes
        In their order.
    digest
        The SHA-256 of the labels after them, as `hash_ids`.
    """
    if not changes:
        return
    path.parent.mkdir(exist_ok=True)
    lines = [{**change.about, "pieces": change.pieces} for change in changes]
    lines[-1]["labels"] = digest
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with path.open("ab+") as file:
        end = file.tell()
        file.seek(max(0, end - 1))
        cut_off = file.read(1) not in (b"", b"\n")  # by a kill
        file.write(("\n" * cut_off + text).encode())
        file.flush()
        os.fsync(file.fileno())
