"""Pictures that stay where they are: what a project keeps of one in place of a copy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from napari_ovam.base.hashing import hash_file
from napari_ovam.images.files import image_size

PICTURE = "picture"
"""What the provenance of a sample calls the reference to its picture."""


@dataclass(frozen=True)
class Reference:
    """A picture outside of the project's folder.

    Its SHA-256 is that of the sample. Older versions of this program keep what they do
    not know in a provenance, and so they keep this.

    Attributes
    ----------
    folder
        The folder that was chosen, as an absolute path; relative to the project where
        both lie in one folder, so that they can be moved together.
    file
        The file in it, with "/" between folders.
    size, modified
        Bytes, and nanoseconds: while they stay, so does the picture.
    height, width
        Pixels, for labels whose picture is missing.
    page
        Which of several pages; None for the only one.
    """

    folder: str
    file: str
    size: int
    modified: int
    height: int
    width: int
    page: int | None = None

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Self | None:
        """Return what a provenance says; None if it says nothing, or not as here."""
        said = provenance.get(PICTURE)
        if not isinstance(said, Mapping):
            return None
        texts = [said.get(key) for key in ("folder", "file")]
        numbers = [said.get(key) for key in ("size", "modified", "height", "width")]
        whole = all(type(n) is int and n >= 0 for n in numbers)
        if not (whole and all(isinstance(t, str) and t for t in texts)):
            return None
        known: dict[str, Any] = {f.name: said.get(f.name) for f in fields(cls)}
        return cls(**known)

    @classmethod
    def to(
        cls,
        project: Path,
        file: Path,
        *,
        folder: Path | None = None,
        page: int | None = None,
        shape: tuple[int, int] | None = None,
    ) -> Self:
        """Return a reference to a file as it is now.

        It raises `ImageFileError` if it is no picture; `OSError` if it is away.

        Parameters
        ----------
        project
            The folder of the project.
        file
            The picture.
        folder
            The chosen folder that it is in; its own by default.
        page
            Which of several.
        shape
            Its (H, W), where that is known.
        """
        root, here = (folder or file.parent).resolve(), project.resolve()
        place = file.parent.resolve() / file.name
        height, width = shape or image_size(place)
        stat = place.stat()
        beside = root.is_relative_to(here.parent)
        return cls(
            Path(os.path.relpath(root, here)).as_posix() if beside else str(root),
            place.relative_to(root).as_posix(),
            stat.st_size,
            stat.st_mtime_ns,
            height,
            width,
            page,
        )

    def place(self, project: Path) -> Path:
        """Return where the file is, or should be."""
        return self.root(project) / self.file

    def root(self, project: Path) -> Path:
        """Return where the folder is, or should be."""
        return Path(os.path.normpath(project.resolve() / self.folder))

    def is_as_known(self, project: Path) -> bool:
        """Whether the file has the size and time that it had."""
        with suppress(OSError):
            stat = self.place(project).stat()
            return (stat.st_size, stat.st_mtime_ns) == (self.size, self.modified)
        return False

    def about(self) -> dict[str, Any]:
        """Return it as a part of a provenance."""
        return {PICTURE: asdict(self)}


class Search:
    """Finds files by their content, in one walk through a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_size: dict[int, list[Path]] | None = None

    def find(self, size: int, digest: str, name: str) -> Path | None:
        """Return a file of a size and SHA-256; the one of that name, if several are."""
        if self._by_size is None:
            self._by_size = {}
            for path in _files(self.folder):
                with suppress(OSError):
                    self._by_size.setdefault(path.stat().st_size, []).append(path)
        likely = sorted(
            self._by_size.get(size, ()), key=lambda path: (path.name != name, path)
        )
        return next((path for path in likely if _has(path, digest)), None)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in files)


def _has(path: Path, digest: str) -> bool:
    with suppress(OSError):
        return hash_file(path) == digest
    return False
