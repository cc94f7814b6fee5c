"""Datasets of a session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_ovam._qt.session import tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job


class Exports:
    """Writes the labels of samples."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def export(
        self,
        folder: str,
        formats: Sequence[str],
        keys: Sequence[str],
        *,
        overwrite: bool = False,
        split: str = "",
    ) -> None:
        """Write the labels of samples of the project, read one at a time.

        Rejected ones and those without labels are left out. `split` is as in
        `parse_split`.
        """
        session, project = self.session, self.session.project
        if session.refused():
            return
        if not folder.strip():
            session.complain("There is no folder to export to: choose one")
            return
        session.take_edits(session.current)
        names = list(keys)
        target = Path(folder.strip()).expanduser()

        def run(job: Job) -> tuple[int, str]:
            from napari_ovam.datasets.exporters import HISTORY
            from napari_ovam.workflows.returning import more_formats

            session.saving.flush()
            items = project.items(names, history=HISTORY in formats)
            if not items.names:
                raise ValueError(
                    "there are no labels to export: make some with Labels from maps, "
                    "or choose other images"
                )
            classes = project.label_classes()
            note = tasks.export(
                *(items, classes, target, formats, overwrite, split, job),
                more=more_formats(project),
            )
            return len(items), note

        def done(result: tuple[int, str]) -> None:
            count, note = result
            proposed = sum(project.sample(n).status == "proposed" for n in names)
            if proposed:
                which = "It is" if count == 1 else f"{proposed} of them are"
                note += f" {which} untouched proposals of the maps."
            if left := len(names) - count:
                note += f" {left} without labels or rejected are left out."
            word = "image" if count == 1 else "images"
            session.say(f"Exported {count} {word} to {folder.strip()}.{note}")

        session.start(
            "Exporting", run, returned=done, kept="The folder is as it was before."
        )
