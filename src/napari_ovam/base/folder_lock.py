"""A folder that one process at a time works in."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "in-use"


def lock_folder(path: Path) -> IO[bytes] | None:
    """Return an open file that holds the lock of a folder; None if another does.

    The system releases it however the process ends, and closing the file does.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    file = (path / LOCK).open("ab+")
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
