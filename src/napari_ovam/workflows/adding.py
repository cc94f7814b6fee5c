"""Pictures as they are into a project: copied, or left where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.images.files import PICTURE_SUFFIXES, read
from napari_ovam.project.references import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam.project import Project


def add_file(
    project: Project,
    path: Path,
    *,
    page: int | None = None,
    left_in: Path | None = None,
) -> tuple[str, bool]:
    """Add a picture without a look at it, unless it is there already.

    It raises `ImageFileError` if it is broken, or holds several pages and none was
    chosen.

    It returns the name of its sample, and whether it is new.

    Parameters
    ----------
    project, path
        Where it goes, and its file.
    page
        Which of several pages.
    left_in
        The folder that it is in and stays in: the project points at it. None copies it.
    """
    image = read(path, page=page)
    name = find_picture(project, path.name, image)
    if name is not None:
        return name, False
    about = {"source": path.name}
    return add_picture(project, path, image, page, left_in, about), True


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder and those below it, in order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def add_picture(
    project: Project,
    path: Path,
    image: NDArray[np.uint8],
    page: int | None,
    left_in: Path | None,
    about: Mapping[str, Any],
) -> str:
    """Add a picture whose pixels are read; return the name of its sample.

    Parameters
    ----------
    project, path, page, left_in
        As in `add_file`.
    image
        (H, W, 3) uint8 RGB.
    about
        What its provenance says besides.
    """
    made = {"title": path.stem, **about}
    if left_in is not None:
        shape = image.shape[0], image.shape[1]
        there = Reference.to(project.path, path, folder=left_in, page=page, shape=shape)
        made |= there.about()
    name = project.reserve(path.stem)
    return project.add_sample(image, name=name, provenance=made).name


def find_picture(project: Project, file: str, image: NDArray[np.uint8]) -> str | None:
    """Return the sample that came from a file of that name and has these pixels."""
    for sample in project.samples:
        source = sample.provenance.get("source")
        if file != (source.get("file") if isinstance(source, dict) else source):
            continue
        try:
            if np.array_equal(project.load_image(sample.name), image):
                return sample.name
        except (ValueError, OSError):
            continue  # it is missing or broken there
    return None
