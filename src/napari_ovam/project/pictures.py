"""The pictures of a project: copied into it, or left where they are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.base.hashing import hash_file
from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.base.words import shorten
from napari_ovam.images.files import image_size, read
from napari_ovam.images.png import read_png_settings
from napari_ovam.project.index import ProjectError
from napari_ovam.project.references import Reference, Search
from napari_ovam.project.store import ProjectStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray


class MissingPictureError(ProjectError):
    """A picture that is not where a project says it is; its labels are there."""


@dataclass(frozen=True)
class PictureReport:
    """How the pictures are that were left where they are, by the names of samples."""

    moved: tuple[str, ...] = ()  # found again by their content, in the same folder
    changed: tuple[str, ...] = ()  # other content than when they were added
    missing: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Return it as sentences for a person."""
        found = []
        if self.moved:
            found.append(
                f"{_count(self.moved, 'was', 'were')} moved, and found again: "
                f"{shorten(self.moved, 3)}."
            )
        if self.changed:
            found.append(
                f"{_count(self.changed, 'has', 'have')} changed since being added: "
                f"{shorten(self.changed, 3)}. Their labels are kept; napari-ovam "
                "pictures --take-changed takes them as they are now."
            )
        if self.missing:
            found.append(
                f"{_count(self.missing, 'is', 'are')} missing: "
                f"{shorten(self.missing, 3)}. Their labels are kept; say where their "
                "folder is now (Add… > Locate, or napari-ovam pictures --locate)."
            )
        return found


def _count(names: tuple[str, ...], is_: str, are: str) -> str:
    """Return how many pictures, and the verb."""
    return f"1 picture {is_}" if len(names) == 1 else f"{len(names)} pictures {are}"


class ProjectPictures(ProjectStore):
    """A project's pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # By name: size and time of a file that was hashed, and whether it is another.
        self._hashed: dict[str, tuple[int, int, bool]] = {}

    def reference(self, name: str) -> Reference | None:
        """Return where a sample's picture was left; None if it is in the project."""
        return Reference.of(self.sample(name).provenance)

    def image_file(self, name: str) -> Path:
        """Return the file of a sample's picture, which need not be there."""
        there = self.reference(name)
        return self.files.image(name) if there is None else there.place(self.path)

    def load_image(self, name: str) -> NDArray[np.uint8]:
        """Return the image of a sample, (H, W, 3) uint8 RGB.

        It raises `MissingPictureError` if it was left elsewhere and is not there;
        `ImageFileError` if it cannot be read.
        """
        there = self.reference(name)
        if there is None:
            return read(self.files.image(name))
        self._check_picture(name, there)
        return read(there.place(self.path), page=there.page)

    def image_size(self, name: str) -> tuple[int, int]:
        """Return the (H, W) of a sample's image, without reading its pixels.

        Of a picture that is missing, what it was.
        """
        there = self.reference(name)
        if there is None:
            return image_size(self.files.image(name))
        if there.page or self.is_missing(name) or there.is_as_known(self.path):
            return there.height, there.width
        return image_size(there.place(self.path))

    def settings(self, name: str) -> dict[str, Any] | None:
        """Return how the image of a sample was generated; None if it was loaded."""
        if self.reference(name) is not None and self.is_missing(name):
            return None
        settings = read_png_settings(self.image_file(name))
        if settings is not None:
            settings.pop("version", None)
        return settings

    def is_missing(self, name: str) -> bool:
        """Whether the picture of a sample is not where it should be."""
        try:
            return not self.image_file(name).is_file()
        except OSError:  # such as a name that is too long
            return True

    def picture_changed(self, name: str) -> bool:
        """Whether a picture that was left elsewhere has other content by now.

        A file of the size and time that it had is the same; others are hashed.
        """
        there = self.reference(name)
        if there is None or there.is_as_known(self.path):
            return False
        path, known = there.place(self.path), self.sample(name).sha256
        try:
            stat = path.stat()
            look, hashed = (stat.st_size, stat.st_mtime_ns), self._hashed.get(name)
            if hashed is None or hashed[:2] != look:
                changed = look[0] != there.size or hash_file(path) != known
                hashed = self._hashed[name] = (*look, changed)
        except OSError:
            return False  # it is missing, which is another thing
        return hashed[2]

    # -- all of them -------------------------------------------------------------

    def look_at_pictures(self, progress: Progress = no_progress) -> PictureReport:
        """Find which pictures that were left elsewhere are moved, changed or missing.

        Moved ones are looked for by their content in the folder that they were in.
        """
        with self._memory:
            left = [(name, self.reference(name)) for name in self._samples]
        names = [(name, there) for name, there in left if there is not None]
        searches: dict[Path, Search] = {}
        moved: list[str] = []
        changed: list[str] = []
        missing: list[str] = []
        for done, (name, there) in enumerate(names):
            progress(done, len(names))
            if not self.is_missing(name):
                if self.picture_changed(name):
                    changed.append(name)
                elif not there.is_as_known(self.path):  # copied, say: the same
                    there = self._refer(there.place(self.path), there)
                    self._point(name, there, self.sample(name).sha256)
                continue
            root = there.root(self.path)
            search = searches.setdefault(root, Search(root))
            (moved if self._find(name, search) else missing).append(name)
        progress(len(names), len(names))
        return PictureReport(tuple(moved), tuple(changed), tuple(missing))

    def locate_pictures(
        self, folder: Path, progress: Progress = no_progress
    ) -> PictureReport:
        """Look for missing pictures in another folder, and write where they are.

        By their place in the folder that they were in, then by their content. It
        returns what was found, and what is missing still.

        It raises `ProjectError` if there is no such folder; `OSError` if the index
        cannot be written.
        """
        if not folder.is_dir():
            raise ProjectError(f"there is no folder {folder}")
        search = Search(folder)
        with self.writing():
            left = [name for name in self._samples if self.reference(name) is not None]
            gone = [name for name in left if self.is_missing(name)]
            found = []
            for done, name in enumerate(gone):
                progress(done, len(gone))
                if self._find(name, search, by_place=True):
                    found.append(name)
            if found:
                self.save()
        changed = tuple(name for name in found if self.picture_changed(name))
        missing = tuple(name for name in gone if name not in found)
        return PictureReport(tuple(found), changed, missing)

    def take_pictures(self, names: Iterable[str]) -> None:
        """Take pictures that were changed for what they are now.

        Their labels stay; the traces of what they were are deleted.

        It raises `ProjectError` if one has another size now than its labels;
        `ImageFileError` if one is none; `OSError` if something cannot be written.
        """
        with self.writing():
            for name in names:
                old = self.reference(name)
                if old is None:
                    continue
                self._check_picture(name, old)
                there = self._refer(old.place(self.path), old)
                size = there.height, there.width
                labelled = self.files.labels(name).is_file()
                if labelled and size != (old.height, old.width):
                    raise ProjectError(
                        f"the picture of {name} is {size} pixels now and its labels "
                        f"are {(old.height, old.width)}: put the picture back"
                    )
                self.files.trace(name).unlink(missing_ok=True)
                self._point(name, there, hash_file(there.place(self.path)))
            self.save()

    def _find(self, name: str, search: Search, *, by_place: bool = False) -> bool:
        """Point a sample to where its picture is in a folder; return whether it is."""
        old, digest = self.reference(name), self.sample(name).sha256
        assert old is not None  # noqa: S101
        path = search.folder / old.file if by_place else None
        with suppress(OSError, ValueError):
            if path is None or not path.is_file():
                path = search.find(old.size, digest, Path(old.file).name)
            if path is not None:
                there = self._refer(path, old, search.folder)
                if hash_file(path) != digest:  # at its place, and another
                    there = replace(there, modified=0)
                self._point(name, there, digest)
                return True
        return False

    def _refer(
        self, file: Path, old: Reference, folder: Path | None = None
    ) -> Reference:
        return Reference.to(
            self.path, file, folder=folder or old.root(self.path), page=old.page
        )

    def _point(self, name: str, there: Reference, digest: str) -> None:
        with self._memory:
            sample = self.sample(name)
            about = {**sample.provenance, **there.about()}
            self._put(replace(sample, provenance=about, sha256=digest))
        self._hashed.pop(name, None)

    def _check_picture(self, name: str, there: Reference) -> None:
        if self.is_missing(name):
            raise MissingPictureError(
                f"the picture of {name} is not at {there.place(self.path)} any more: "
                "bring it back, or say where its folder is now (Add… > Locate, or "
                "napari-ovam pictures --locate). Its labels are kept"
            )

    def _look_around(self) -> None:
        super()._look_around()
        self.notes += self.look_at_pictures().notes()
