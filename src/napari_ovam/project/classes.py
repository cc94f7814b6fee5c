"""Labels follow their classes: what removed classes leave in a project's files.

The class table in `project.json` changes first and says what pixels turn into; reading
does so from then on. The files are rewritten after that, one by one, and a run that was
stopped or killed is ended when the project is opened again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.png import PngError, read_ids
from napari_ovam.project.files import (
    read_about_labels,
    replace_ids,
    write_labels,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.progress import Progress
    from napari_ovam.project.store import ProjectStore


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
    from napari_ovam.instances.files import load_instances, save_instances

    try:
        found = load_instances(project.path, name)
    except ValueError:
        return  # broken: they are found again from the labels
    if found is None or not set(found.classes.values()) & set(changes):
        return
    classes = {i: changes.get(c, c) for i, c in found.classes.items()}
    gone = [i for i, c in classes.items() if c == 0]
    ids = np.where(np.isin(found.ids, gone), 0, found.ids).astype(np.int32)
    kept = {i: c for i, c in classes.items() if c}
    save_instances(project.path, name, replace(found, ids=ids, classes=kept))
