"""Labels in a project, which other programs may change as well."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam import __version__
from napari_ovam.base.names import numbered
from napari_ovam.images.files import ImageFileError
from napari_ovam.images.png import as_ids, read_ids, write_png
from napari_ovam.project.files import (
    hash_ids,
    now,
    read_about_labels,
    read_labels,
    replace_ids,
    write_labels,
)
from napari_ovam.project.history import Change, add_changes, pack_all
from napari_ovam.project.index import ConflictError, ProjectError
from napari_ovam.project.pictures import ProjectPictures
from napari_ovam.project.replay import last_digest, read_history

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_ovam.project.index import Status
    from napari_ovam.project.replay import History

    MadeBy = Mapping[str, Any] | Sequence[Change] | None


class ProjectLabels(ProjectPictures):
    """A project's labels; a save never replaces what it has not seen."""

    def save_labels(
        self,
        name: str,
        labels: NDArray[Any],
        status: Status | None = "edited",
        *,
        painted: NDArray[np.bool_] | None = None,
        absent: Iterable[int] | None = None,
        provenance: Mapping[str, Any] | None = None,
        keep_others: bool = False,
        over: NDArray[Any] | None = None,
        made_by: MadeBy = None,
    ) -> None:
        """Write the labels of a sample, and in its history what changed in them.

        Pixels of classes that were merged or deleted meanwhile follow them.

        Parameters
        ----------
        name
            The sample.
        labels
            (H, W) class ids of 0 to 65535, of the size of the image; 255 is "unsure".
        status
            What the sample becomes; None leaves it as it is.
        painted
            (H, W), where a person decided. None leaves what is known as it is.
        absent, provenance
            As for `change_sample`.
        keep_others
            What happens to labels that another program wrote since this one read or
            wrote them: True copies them to `replaced/NAME.png`, or with a number, and
            `notes` says so; False refuses.
        over
            Labels that another program wrote and that these take in: no conflict.
        made_by
            What made them other than they were, as in `Change.about`, or the changes
            one by one; None is a script.

        Raises
        ------
        ConflictError
            If another program wrote the labels meanwhile, and they are not these.
        ValueError
            If the labels are no ids, or of another size than the image.
        OSError
            If they cannot be written; the old ones are there then.
        """
        self.sample(name)
        ids = as_ids(name, labels)
        with self.writing():
            size = self.image_size(name)
            for array in (ids, painted):
                if array is not None and array.shape != size:
                    raise ProjectError(
                        f"{name}: the image is {size} and its labels are {array.shape}"
                    )
            if changes := self.classes.replaced():
                ids = replace_ids(ids, changes)
            if self._others_differ(name, ids, over):
                if not keep_others:
                    raise ConflictError(
                        f"the labels of {name} were changed by another program since "
                        "they were read here: nothing was written. Read them again, or "
                        "save with keep_others=True, which keeps both"
                    )
                self._keep_copy(name)
            if painted is not None:
                write_png(self.files.painted(name), painted.astype(np.uint8) * 255)
            made = {**(provenance or {}), "labelled": now()}
            now_is = status or self.sample(name).status
            about = {"status": now_is, "version": __version__, **made}
            lines = self._changes(name, ids, made_by)
            digest = self._write(name, ids, about)
            add_changes(self.files.history(name), lines, digest)
            # Not `now_is`: a person may have accepted them while they were written.
            self.change_sample(name, status=status, absent=absent, provenance=made)

    def labels_changed(self, name: str) -> bool:
        """Whether another program wrote the labels since they were read or saved here.

        What was never read here is compared with when the project was opened.
        """
        self.sample(name)
        return self._seen.is_changed(self.files.labels(name))

    def labels_mark(self, name: str) -> str | None:
        """Return what changes with the labels on the disk; None where there are none.

        To be asked for before they are read, and given to `see_labels` where a later
        save may replace what was read.
        """
        return self._seen.mark(self.files.labels(name))

    def see_labels(self, name: str, mark: str | None) -> None:
        """Take labels for seen as they were when their mark was taken."""
        self._seen.take(self.files.labels(name), mark)

    def labels_are_foreign(self, name: str) -> bool:
        """Whether another program wrote the labels of a sample since they were saved.

        True as well where that is not known: for labels of an older version.
        """
        self.sample(name)
        path = self.files.labels(name)
        if not path.is_file():
            return False
        return read_about_labels(path).get("sha256") != hash_ids(read_ids(path))

    def load_labels(
        self, name: str, *, to_edit: bool = True
    ) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
        """Return the labels of a sample, (H, W) class ids; None if it has none.

        Parameters
        ----------
        to_edit
            Whether a later `save_labels` may replace them as they are now; False for a
            look beside work on an earlier state.
        """
        self.sample(name)
        path = self.files.labels(name)
        changes = self.classes.replaced()
        if to_edit:  # before they are read: what comes between is noticed
            self._seen.remember(path)
        return read_labels(path, changes) if path.is_file() else None

    def load_painted(self, name: str) -> NDArray[np.bool_] | None:
        """Return where a person decided, (H, W); None if nobody did."""
        self.sample(name)
        path = self.files.painted(name)
        return read_ids(path) > 0 if path.is_file() else None

    def load_history(self, name: str) -> History:
        """Return where the labels of a sample came from; empty where nobody knows."""
        self.sample(name)
        return read_history(self.files.history(name), self.classes.replaced())

    def add_to_history(self, name: str, changes: Sequence[Change]) -> None:
        """Write what was done to the objects of a sample; its labels are as before."""
        with self.writing():
            path = self.files.history(name)
            add_changes(path, changes, last_digest(path))

    def _write(self, name: str, ids: NDArray[Any], about: Mapping[str, Any]) -> str:
        path = self.files.labels(name)
        digest = write_labels(path, ids, about)
        self._seen.remember(path)
        return digest

    def _changes(self, name: str, ids: NDArray[Any], made_by: MadeBy) -> list[Change]:
        """Return what is to be added to the history of labels that will be written.

        Where the history goes up to what is on the disk and the changes are told one by
        one, they are enough. Else what nobody told is found by making the labels again.
        """
        path, shape = self.files.labels(name), (ids.shape[0], ids.shape[1])
        told = list(made_by) if isinstance(made_by, Sequence) else []
        known = last_digest(self.files.history(name))
        there = path.is_file()
        before = read_about_labels(path).get("sha256") if there else ""
        if isinstance(made_by, Sequence) and known == before:
            return told
        try:
            old = read_labels(path, self.classes.replaced()) if there else None
        except ImageFileError:
            old = None
        history = self.load_history(name)
        at, so_far = now(), history.labels(shape)
        found: list[Change] = []
        if old is not None and old.shape == shape:
            missed = Change({"by": "unknown", "at": at}, pack_all(old, old != so_far))
            found.append(missed)
        if told:
            found += told
        so_far = replace(history, changes=(*history.changes, *found)).labels(shape)
        by = made_by if isinstance(made_by, Mapping) else None
        about = by or {"by": "unknown" if told else "script"}
        found.append(Change({"at": at, **about}, pack_all(ids, ids != so_far)))
        return [change for change in found if change.pieces]

    def _others_differ(self, name: str, *known: NDArray[Any] | None) -> bool:
        """Whether labels on the disk were not seen here, and are none of the known."""
        path = self.files.labels(name)
        if not self._seen.is_changed(path):
            return False
        try:
            found = read_labels(path, self.classes.replaced())
        except ImageFileError:
            return True
        return not any(k is not None and np.array_equal(found, k) for k in known)

    def _keep_copy(self, name: str) -> None:
        folder = self.path / "replaced"
        folder.mkdir(exist_ok=True)
        target = next(p for p in numbered(folder / f"{name}.png") if not p.exists())
        shutil.copyfile(self.files.labels(name), target)
        self.notes.append(
            f"{name}: another program wrote labels meanwhile, kept as {target}."
        )
