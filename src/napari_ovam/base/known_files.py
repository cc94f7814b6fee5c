"""What files were when this program last saw them: others may change them, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ovam.base.hashing import hash_file

if TYPE_CHECKING:
    from pathlib import Path


class KnownFiles:
    """Remembers files as they were last read or written.

    A folder is looked at once; a file that is read or written after that is known by
    its content, as times and sizes may stay when it changes.
    """

    def __init__(self) -> None:
        self._content: dict[Path, str | None] = {}
        self._looks: dict[Path, tuple[int, int]] = {}

    def scan(self, folder: Path) -> None:
        """Look at the files of a folder, which need not exist."""
        if folder.is_dir():
            self._looks |= {path: _look(path) for path in folder.iterdir()}

    @staticmethod
    def mark(path: Path) -> str | None:
        """Return what changes with a file; None where there is none."""
        return hash_file(path) if path.is_file() else None

    def remember(self, path: Path) -> None:
        """Take a file for known as it is: just written, or about to be read."""
        self.take(path, self.mark(path))

    def take(self, path: Path, mark: str | None) -> None:
        """Take a file for known as it was when its `mark` was taken."""
        self._content[path] = mark

    def move(self, old: Path, new: Path) -> None:
        """Know the files of a folder where a copy of it is."""

        def at(path: Path) -> Path:
            return new / path.relative_to(old) if path.is_relative_to(old) else path

        self._content = {at(path): known for path, known in self._content.items()}
        self._looks = {at(path): known for path, known in self._looks.items()}

    def is_changed(self, path: Path) -> bool:
        """Whether a file was made or changed by another program since it was seen.

        One that was deleted is not: there is nothing to lose.
        """
        if not path.is_file():
            return False
        if path in self._content:
            return hash_file(path) != self._content[path]
        return self._looks.get(path) != _look(path)


def _look(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size
