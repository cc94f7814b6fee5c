"""Pictures and stores that are added to the project of a session, and found again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_ovam._qt.session.project_reading import MISSING
from napari_ovam.project.references import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.project import Project

_KEPT = "What was added before is in the project."


class Adding:
    """Adds pictures, folders of pictures and OME-Zarr stores to the project.

    Attributes
    ----------
    by_reference
        Whether pictures stay where they are, and the project points at them.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.by_reference = False
        session.files_wanted.connect(self.add)

    def add(self, places: Sequence[Path | str]) -> None:
        """Add files, folders that are searched for pictures, and stores.

        What the project holds already is not added again; a store's labels come with
        its pictures.
        """
        session, project = self.session, self.session.project
        if session.refused():
            return
        if session.opened.read_only:
            session.complain("The open project can only be read: nothing is added.")
            return
        session.take_edits(session.current)
        session.saving.begin()
        before = set(session.projects.keys)
        by_reference = self.by_reference

        def run(job: Job) -> tuple[list[str], list[str]]:
            session.saving.flush()
            said: list[str] = []
            wrong: list[str] = []
            for place in places:
                _add(project, place, job, said, wrong, by_reference=by_reference)
            return said, wrong

        def ended() -> None:  # also where it was cancelled half-way
            if session.project is not project or session.closed:
                return
            session.saving.save_index()
            session.classes_changed.emit()
            session.samples_changed.emit()

        def returned(result: tuple[list[str], list[str]]) -> None:
            said, wrong = result
            new = [key for key in session.projects.keys if key not in before]
            if new:
                session.select(new[0])
            count = f"{len(new)} image{'s' * (len(new) != 1)} added."
            text = " ".join([count, *wrong[:3], *said[:3]])
            if new and not len(session.classes):
                text += " Type what to look for and press Map, or add Classes to paint."
            session.say(text, "warning" if wrong else "info")

        session.start("Adding images", run, returned=returned, ended=ended, kept=_KEPT)

    def locate(self, folder: Path) -> None:
        """Look for missing pictures in a folder; all that are in it are found."""
        session, project = self.session, self.session.project
        if session.refused():
            return

        def run(job: Job) -> tuple[int, int, list[str]]:
            session.saving.flush()
            found = project.locate_pictures(folder, job.progress)
            notes = project.look_at_pictures(job.progress).notes()
            return len(found.moved), len(found.missing), notes

        def returned(result: tuple[int, int, list[str]]) -> None:
            found, missing, notes = result
            self._show_found()
            session.samples_changed.emit()
            what = f"{found} of {found + missing} missing pictures are in {folder}."
            session.say(" ".join([what, *notes]), "warning" if missing else "info")

        session.start("Looking for pictures", run, returned=returned)

    def _show_found(self) -> None:
        """Read samples again that were shown without their picture."""
        session, shown = self.session, self.session.current
        lost = [s for s in session.samples if s.extra.get(MISSING)]
        for sample in lost:
            if session.saving.written(sample.key):
                session.samples.remove(sample)
                session.layers.forget(sample.key)
        ahead = [k for k in session.projects.near if session.sample(k) is None]
        session.projects.refresh(filter(None, ahead))
        if shown in lost and shown not in session.samples:
            session.current = None
            session.select(shown.key)

    @property
    def refers(self) -> bool:
        """Whether any picture was left where it is; no disk is asked."""
        samples = self.session.project.samples
        return any(Reference.of(sample.provenance) for sample in samples)


def _add(
    project: Project,
    place: Path | str,
    job: Job,
    said: list[str],
    wrong: list[str],
    *,
    by_reference: bool,
) -> None:
    """Add what is at a place; in the job's thread."""
    from napari_ovam.images.zarr_stores import is_remote, is_store

    path = Path(place)
    if is_remote(str(place)) or is_store(path):
        _add_store(project, str(place), job, said, wrong)
        return
    from napari_ovam.workflows.adding import add_file, pictures_in

    folder = path if path.is_dir() else path.parent
    files = pictures_in(path) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"there are no pictures in {path}")
    for done, file in enumerate(files):
        job.progress(done, len(files))
        try:
            add_file(project, file, left_in=folder if by_reference else None)
        except ValueError as error:
            wrong.append(f"{error}.")


def _add_store(
    project: Project, place: str, job: Job, said: list[str], wrong: list[str]
) -> None:
    from napari_ovam.datasets.importers.ome_zarr import Choice, open_ome_zarr
    from napari_ovam.workflows.importing import import_masks

    source = open_ome_zarr(place, Choice(watch=lambda *_: job.check()))
    report = import_masks(project, source, progress=job.progress)
    said += report.notes
    wrong += [f"{path}: {why}." for path, why in report.failed.items()]
    wrong += [f"{path}: {'; '.join(why)}." for path, why in report.skipped.items()]
