"""Labels follow their classes: what removed classes leave in a project's files.

The class table in `project.json` changes first and says what pixels turn into; reading
does so from then on. The files are rewritten after that, one by one, and a run that was
stopped or killed is ended when the project is opened again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_ovam.base.progress import Progress, no_progress
from napari_ovam.datasets.classes import ClassTable
from napari_ovam.images.files import ImageFileError
from napari_ovam.images.png import read_ids
from napari_ovam.project.files import (
    read_about_labels,
    read_labels,
    replace_ids,
    write_labels,
)
from napari_ovam.project.labels import ProjectLabels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class ProjectClasses(ProjectLabels):
    """A project whose classes are merged and deleted."""

    def merge_classes(
        self, number: int, into: int, *, progress: Progress = no_progress
    ) -> list[str]:
        """Make a class part of another: its pixels get the other's id in all labels.

        Its own id is not given again. A run that is cancelled or killed is ended when
        the project is opened again; until then labels are read as if it was.

        Parameters
        ----------
        number, into
            Ids of classes.
        progress
            Called with (samples done, all samples); may raise `Cancelled`.

        Returns
        -------
        list of str
            The samples whose labels changed.

        Raises
        ------
        ClassError
            If there is no such class, or both are the same.
        OSError
            If a file cannot be written.
        """
        return self._remove_classes([number], into, progress)

    def delete_class(
        self,
        number: int,
        *,
        keep_pixels: bool = False,
        progress: Progress = no_progress,
    ) -> list[str]:
        """Remove a class: its pixels become background in all labels.

        Parameters
        ----------
        number
            Its id, which is not given again.
        keep_pixels
            Leave its pixels as they are: ids without a class, which exports refuse.
        progress
            As for `merge_classes`, with which it has all else in common.
        """
        return self._remove_classes([number], None if keep_pixels else 0, progress)

    def delete_classes(
        self, numbers: Iterable[int], *, progress: Progress = no_progress
    ) -> list[str]:
        """Remove several classes at once; all else as for `delete_class`."""
        return self._remove_classes(list(numbers), 0, progress)

    def _remove_classes(
        self, numbers: Iterable[int], into: int | None, progress: Progress
    ) -> list[str]:
        with self.writing():
            before = self.classes, dict(self._samples), self._pending
            self.classes = ClassTable.of(
                self.classes, self.classes.last_id, self.classes.retired
            )
            try:
                for number in numbers:
                    if into:
                        self.classes.merge(number, into)
                    else:
                        self.classes.remove(number, into)
                    for s in self.samples:
                        gone = absent_after(s.absent, number, into or 0)
                        self.change_sample(s.name, absent=gone, write=False)
                self._pending = self._pending or into is not None
                self.save()
            except BaseException:
                self.classes, self._samples, self._pending = before
                raise
        return self._follow_classes(progress)

    def images_with(
        self, numbers: Iterable[int], *, progress: Progress = no_progress
    ) -> list[str]:
        """Return the names of the samples whose labels hold one of some classes.

        Files that cannot be read are left out.

        Parameters
        ----------
        numbers
            Ids of classes.
        progress
            Called with (samples done, all samples); may raise `Cancelled`.
        """
        wanted = np.zeros(2**16, bool)
        wanted[list(numbers)] = True
        changes, samples, found = self.classes.replaced(), self.samples, []
        for done, sample in enumerate(samples):
            progress(done, len(samples))
            path = self.files.labels(sample.name)
            try:
                if path.is_file() and wanted[read_labels(path, changes)].any():
                    found.append(sample.name)
            except (ImageFileError, OSError):
                continue
        return found

    def _follow_classes(self, progress: Progress) -> list[str]:
        """Rewrite label files that hold ids of removed classes; return their names.

        Files that cannot be read stay as they are, and `notes` says so.
        """
        if not self._pending:
            return []
        changes = self.classes.replaced()
        samples = self.samples if changes else []
        changed = []
        for done, sample in enumerate(samples):
            progress(done, len(samples))
            with self.writing():  # else what is saved meanwhile would be lost
                try:
                    if self._rewrite(sample.name, changes):
                        changed.append(sample.name)
                except ImageFileError as error:
                    self.notes.append(f"Labels were not rewritten: {error}")
        progress(len(samples), len(samples))
        with self.writing():
            self._pending = False
            self.save()
        return changed

    def _rewrite(self, name: str, changes: Mapping[int, int]) -> bool:
        path = self.files.labels(name)
        if not path.is_file():
            return False
        ids = read_ids(path)
        if not set(np.unique(ids).tolist()) & set(changes):
            return False
        self._rewrite_instances(name, changes)
        seen = not self._seen.is_changed(path)
        write_labels(path, replace_ids(ids, changes), read_about_labels(path))
        if seen:  # else a save here would replace what another program wrote
            self._seen.remember(path)
        return True

    def _rewrite_instances(self, name: str, changes: Mapping[int, int]) -> None:
        """Objects that were told apart stay apart, in their new class."""
        from napari_ovam.segmentation.instances.files import (
            load_instances,
            save_instances,
        )
        from napari_ovam.segmentation.instances.relabel import replace_classes

        try:
            found = load_instances(self.path, name)
        except ValueError:
            return  # broken: they are found again from the labels
        if found is None or not set(found.classes.values()) & set(changes):
            return
        save_instances(self.path, name, replace_classes(found, changes))


def absent_after(absent: tuple[int, ...], number: int, into: int) -> tuple[int, ...]:
    """Return which classes are not in an image after one was merged into another.

    The other is absent only where both were: else its objects may be there.
    """
    gone = set(absent)
    if not {number, into} <= gone:
        gone.discard(into)
    return tuple(sorted(gone - {number}))
