"""Labels follow their classes: what removed classes leave in a project's files.

The class table in `project.json` changes first and says what pixels turn into; reading
does so from then on. The files are rewritten after that, one by one, and a run that was
stopped or killed is ended when the project is opened again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.base.progress import no_progress
from napari_ovam.images.png import PngError, read_ids
from napari_ovam.project.files import (
    read_about_labels,
    read_labels,
    replace_ids,
    write_labels,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_ovam.base.progress import Progress
    from napari_ovam.project.store import ProjectStore


def images_with(
    project: ProjectStore, numbers: Iterable[int], progress: Progress = no_progress
) -> list[str]:
    """Return the names of the samples whose labels hold one of some classes.

    Files that cannot be read are left out.

    Parameters
    ----------
    project
        The project.
    numbers
        Ids of classes.
    progress
        Called with (samples done, all samples); may raise `Cancelled`.
    """
    wanted = np.zeros(2**16, bool)
    wanted[list(numbers)] = True
    changes, samples, found = project.classes.replaced(), project.samples, []
    for done, sample in enumerate(samples):
        progress(done, len(samples))
        path = project.files.labels(sample.name)
        try:
            if path.is_file() and wanted[read_labels(path, changes)].any():
                found.append(sample.name)
        except (PngError, OSError):
            continue
    return found


def rewrite_labels(project: ProjectStore, progress: Progress) -> list[str]:
    """Rewrite label files that hold ids of removed classes; return their names.

    Files that cannot be read stay as they are, and `project.notes` says so.

    Raises
    ------
    OSError
        If one cannot be written.
    Cancelled
        If `progress` raised it.
    """
    changes = project.classes.replaced()
    samples = project.samples if changes else []
    changed = []
    for done, sample in enumerate(samples):
        progress(done, len(samples))
        with project.lock:  # else strokes that are saved meanwhile would be lost
            try:
                if _rewrite(project, sample.name, changes):
                    changed.append(sample.name)
            except PngError as error:
                project.notes.append(f"Labels were not rewritten: {error}")
    progress(len(samples), len(samples))
    return changed


def absent_after(absent: tuple[int, ...], number: int, into: int) -> tuple[int, ...]:
    """Return which classes are not in an image after one was merged into another.

    The other is absent only where both were: else its objects may be there.
    """
    gone = set(absent)
    if not {number, into} <= gone:
        gone.discard(into)
    return tuple(sorted(gone - {number}))


def _rewrite(project: ProjectStore, name: str, changes: Mapping[int, int]) -> bool:
    path = project.files.labels(name)
    if not path.is_file():
        return False
    ids = read_ids(path)
    held = set(np.unique(ids).tolist()) & set(changes)
    if not held:
        return False
    _rewrite_instances(project, name, changes)
    write_labels(path, replace_ids(ids, changes), read_about_labels(path))
    return True


def _rewrite_instances(
    project: ProjectStore, name: str, changes: Mapping[int, int]
) -> None:
    """Objects that were told apart stay apart, in their new class."""
    from napari_ovam.segmentation.instances.files import load_instances, save_instances
    from napari_ovam.segmentation.instances.relabel import replace_classes

    try:
        found = load_instances(project.path, name)
    except ValueError:
        return  # broken: they are found again from the labels
    if found is None or not set(found.classes.values()) & set(changes):
        return
    save_instances(project.path, name, replace_classes(found, changes))
