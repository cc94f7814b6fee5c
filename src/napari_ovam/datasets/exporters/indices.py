"""Consecutive indices in place of class ids, for formats that want them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ovam.base.ids import IGNORE

from .dataset import LabelClass

_MOST = 254


def index_table(
    classes: Sequence[LabelClass], form: str, *, ignore: int
) -> NDArray[np.uint8]:
    """Return what each label becomes, (65536,): 0 stays, classes count from 1.

    Classes keep the order of their ids, also those that no pixel has.

    It raises `ValueError` where there are more classes than 8 bits hold.

    Parameters
    ----------
    classes
        As `check_classes` returns them.
    form
        The format, for the message.
    ignore
        What 255 becomes.
    """
    if len(classes) > _MOST:
        raise ValueError(
            f"there are {len(classes)} classes; {form!r} holds {_MOST} in its 8-bit "
            f"PNGs, and {classes[_MOST].name!r} is one too many: choose 'indexed'"
        )
    table = np.zeros(1 << 16, np.uint8)
    for index, entry in enumerate(classes, start=1):
        table[entry.id] = index
    table[IGNORE] = ignore
    return table


def ids_dtype(classes: Sequence[LabelClass]) -> np.dtype[np.unsignedinteger[Any]]:
    """Return what PNGs of class ids hold: 8 bits, or 16 where an id passes 255."""
    return np.dtype(np.uint16 if any(c.id > IGNORE for c in classes) else np.uint8)


def check_reserved(
    classes: Sequence[LabelClass], form: str, reserved: Sequence[str]
) -> None:
    """Raise ValueError where a class has a name that the format uses itself."""
    for entry in classes:
        if entry.name in reserved:
            raise ValueError(
                f"{form!r} uses the name {entry.name!r} itself; rename the class"
            )
