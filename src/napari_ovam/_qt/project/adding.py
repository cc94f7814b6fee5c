"""Pictures and stores that are added to the project of a session, and found again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_ovam._qt.session.project_reading import MISSING
from napari_ovam.project.references import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_ovam._qt.session.session import Session
    from napari_ovam._qt.session.worker import Job
    from napari_ovam.datasets.importers import Source
    from napari_ovam.project import Project

_KEPT = "What was added before is in the project."


class Adding:
    """Adds pictures, folders, OME-Zarr stores and data sets with masks to the project.

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
        by_reference = self.by_reference

        def add(project: Project, job: Job, found: _Found) -> None:
            for place in places:
                _add(project, place, job, found, by_reference=by_reference)

        self._start(add)

    def add_masks(self, place: Path, form: str) -> None:
        """Add pictures with their masks, of a data set of a form of `open_source`.

        Labels that a person made of a picture that is there already stay.
        """
        by_reference = self.by_reference

        def add(project: Project, job: Job, found: _Found) -> None:
            from napari_ovam.datasets.importers import open_source

            _import(project, open_source(place, form), job, found, by_reference)

        self._start(add)

    def _start(self, add: Callable[[Project, Job, _Found], None]) -> None:
        session, project = self.session, self.session.project
        if session.refused():
            return
        if session.opened.read_only:
            session.complain("The open project can only be read: nothing is added.")
            return
        session.take_edits(session.current)
        session.saving.begin()
        before, found = set(session.projects.keys), _Found([], [], [])
        classes = len(session.classes)

        def run(job: Job) -> None:
            session.saving.flush()
            add(project, job, found)

        def ended() -> None:  # also where it was cancelled half-way
            if session.project is not project or session.closed:
                return
            session.saving.save_index()
            session.classes_changed.emit()
            if len(session.classes) > classes:  # as those of masks are looked for
                session.phrases.restore()
            session.samples_changed.emit()
            session.projects.refresh(before.intersection(found.labelled))

        def returned(_: None) -> None:
            new = [key for key in session.projects.keys if key not in before]
            if new:
                session.select(new[0])
            count = f"{len(new)} image{'s' * (len(new) != 1)} added."
            text = " ".join([count, *found.wrong[:3], *found.said[:3]])
            if new and not len(session.classes):
                text += " Type what to look for and press Map, or add Classes to paint."
            session.say(text, "warning" if found.wrong else "info")

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


class _Found(NamedTuple):
    """What is said of what is added: sentences, also of what went wrong."""

    said: list[str]
    wrong: list[str]
    labelled: list[str]  # samples that got labels


def _add(
    project: Project,
    place: Path | str,
    job: Job,
    found: _Found,
    *,
    by_reference: bool,
) -> None:
    """Add what is at a place; in the job's thread."""
    from napari_ovam.images.zarr_stores import is_remote, is_store

    path = Path(place)
    if is_remote(str(place)) or is_store(path):
        from napari_ovam.datasets.importers.ome_zarr import Choice, open_ome_zarr

        source = open_ome_zarr(str(place), Choice(watch=lambda *_: job.check()))
        _import(project, source, job, found)
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
            found.wrong.append(f"{error}.")


def _import(
    project: Project,
    source: Source,
    job: Job,
    found: _Found,
    by_reference: bool = False,
) -> None:
    from napari_ovam.workflows.importing import import_masks

    report = import_masks(
        project, source, by_reference=by_reference, progress=job.progress
    )
    found.labelled.extend(report.labelled)
    found.said.extend(report.notes)
    if kept := len(report.kept):
        found.said.append(f"{kept} were there already and are as they were.")
    found.wrong.extend(f"{path}: {why}." for path, why in report.failed.items())
    found.wrong.extend(
        f"{path}: {'; '.join(why)}." for path, why in report.skipped.items()
    )
