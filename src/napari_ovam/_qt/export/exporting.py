"""Datasets of a session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_ovam._qt.session import tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.state import LiveSample
    from napari_ovam._qt.session.worker import Job


class Exports:
    """Writes the labels of samples."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def export(
        self,
        folder: str,
        formats: Sequence[str],
        samples: Sequence[LiveSample],
        *,
        overwrite: bool = False,
        split: str = "",
    ) -> None:
        """Write the labels of samples as a dataset; `split` as in `parse_split`."""
        labelled = [s for s in samples if s.edits is not None]
        if not labelled:
            self.session.complain(
                "There are no labels to export: press Labels from maps first"
            )
            return
        if not folder.strip():
            self.session.complain("There is no folder to export to: choose one")
            return
        for sample in labelled:
            self.session.labels.take_edits(sample)
        missing = sorted(
            {i for s in labelled for i in self.session.labels.unknown_ids(s)}
        )
        if missing:
            self.session.complain(
                f"The labels hold ids without a class: {', '.join(map(str, missing))}. "
                "Create the classes under Labels, or erase these pixels"
            )
            return
        untouched = sum(1 for s in labelled if s.edits and s.edits.are_proposal)
        entries = [(e.id, e.name, e.color) for e in self.session.classes]
        arrays = [
            (_file_name(number, s), s.image, s.edits.labels.copy())
            for number, s in enumerate(self.session.samples, start=1)
            if s in labelled and s.edits
        ]
        target = Path(folder.strip()).expanduser()

        def run(job: Job) -> str:
            from napari_ovam import ExportItem, LabelClass

            items = [ExportItem(*each) for each in arrays]
            classes = [LabelClass(*each) for each in entries]
            return tasks.export(items, classes, target, formats, overwrite, split, job)

        def done(note: str) -> None:
            if untouched:
                which = "It is" if len(arrays) == 1 else f"{untouched} of them are"
                note += f" {which} untouched proposals of the maps."
            word = "image" if len(arrays) == 1 else "images"
            where = folder.strip()
            self.session.say(f"Exported {len(arrays)} {word} to {where}.{note}")

        self.session.start(
            "Exporting", run, returned=done, kept="The folder is as it was before."
        )

    def export_project(
        self,
        folder: str,
        formats: Sequence[str],
        keys: Sequence[str],
        *,
        overwrite: bool = False,
        split: str = "",
    ) -> None:
        """Write the labels of samples of the open project, read one at a time.

        Rejected ones and those without labels are left out.
        """
        session, opened = self.session, self.session.projects.opened
        if opened is None or session.refused():
            return
        if not folder.strip():
            session.complain("There is no folder to export to: choose one")
            return
        if session.current is not None:
            session.labels.take_edits(session.current)
        names = [name for key in keys if (name := session.projects.name(key))]
        target = Path(folder.strip()).expanduser()

        def run(job: Job) -> tuple[int, str]:
            session.saving.flush()
            items = opened.project.items(names)
            if not items.names:
                raise ValueError(
                    "there are no labels to export: make some, or choose other images"
                )
            classes = opened.project.label_classes()
            note = tasks.export(items, classes, target, formats, overwrite, split, job)
            return len(items), note

        def done(result: tuple[int, str]) -> None:
            count, note = result
            if left := len(names) - count:
                note += f" {left} without labels or rejected are left out."
            word = "image" if count == 1 else "images"
            session.say(f"Exported {count} {word} to {folder.strip()}.{note}")

        session.start(
            "Exporting", run, returned=done, kept="The folder is as it was before."
        )


def _file_name(number: int, sample: LiveSample) -> str:
    """Return a file name without an ending: unique, and in the order of samples."""
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in sample.name)
    words = "-".join(filter(None, plain.split("-")))[:60]
    return f"{number:04d}-{words}".rstrip("-")
