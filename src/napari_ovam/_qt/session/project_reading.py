"""Opens projects and reads their samples, in a job's or the loader's thread."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.folder_lock import describe_holder, lock_folder
from napari_ovam.project import Project, ProjectError
from napari_ovam.project.index import BACKUP, INDEX
from napari_ovam.project.pictures import MissingPictureError
from napari_ovam.project.scratch import Scratch, is_scratch

from .edits import Edits
from .state import LiveSample, ModelChoice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam import Token
    from napari_ovam.base.folder_lock import FolderLock
    from napari_ovam.base.generation_settings import GenerationSettings
    from napari_ovam.project.index import Sample

    from .jobs import Kind


# In the extra of a sample: see `Project.labels_mark`; why its picture is not there.
MARK, MISSING = "mark", "missing"
_SQUARE = 16  # pixels, of the pattern in place of a picture that is missing


@dataclass(eq=False)
class Opened:
    """A project that this window works in.

    Attributes
    ----------
    lock
        Held as long as it is open, where one can be had.
    read_only
        Whether nothing can be written to it.
    scratch
        Where no folder was chosen yet: what makes and holds its own.
    tokens
        Of its classes, by their ids.
    notes
        What a person should know of it.
    """

    project: Project
    lock: FolderLock | None = None
    read_only: bool = False
    scratch: Scratch | None = None
    tokens: dict[int, Token] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The folder."""
        return self.project.path

    @property
    def chosen(self) -> bool:
        """Whether a person chose its folder."""
        return self.scratch is None

    def summary(self) -> tuple[str, Kind]:
        """Return what a person is told when it is opened, and how urgent that is."""
        count = len(self.project.samples)
        notes = list(self.notes)
        what = self.path.name if self.chosen else "Unsaved work"
        text = f"{what}: {count} image{'s' * (count != 1)}."
        if self.read_only:
            notes.append("It can only be read here: strokes are not kept.")
        if not notes:
            text += " Strokes are saved in it as you paint."
        return " ".join([text, *notes]), "warning" if notes else "info"

    def close(self) -> None:
        """Let others open it."""
        if self.scratch is not None:
            self.scratch.close()
        elif self.lock is not None:
            self.lock.close()


def new_scratch() -> Opened:
    """Return a scratch project, of which nothing is on the disk yet."""
    scratch = Scratch()
    return Opened(scratch.project, scratch=scratch)


def is_project(path: Path) -> bool:
    """Whether a folder, or the index in it, is a project."""
    folder = path.parent if path.name == INDEX else path
    return (folder / INDEX).is_file() or (folder / BACKUP).is_file()


def open_project(path: Path) -> Opened:
    """Hold and read a project; in a job's thread."""
    folder = path.parent if path.name == INDEX else path
    if not is_project(folder):
        raise ProjectError(f"{folder} is no project: there is no {INDEX} in it")
    lock: FolderLock | None = None
    with suppress(OSError):  # where nothing can be written, it is opened to be read
        lock = lock_folder(folder)
        if lock is None:
            raise ProjectError(
                f"{folder} is open in another window{describe_holder(folder)}: close "
                "it there first"
            )
    try:
        project = Project.open(folder)
        tokens, wrong = _read_tokens(project)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    scratch = None
    if lock is not None and is_scratch(folder):
        scratch = Scratch(project, lock)
    notes = [*project.notes, *wrong, *([lock.note] if lock and lock.note else [])]
    return Opened(project, lock, lock is None, scratch, tokens, notes)


def _read_tokens(project: Project) -> tuple[dict[int, Token], list[str]]:
    """Return the tokens of a project's classes by id, and what cannot be read."""
    tokens, notes = {}, []
    for each in project.classes:
        if each.token is None:
            continue  # and torch is not imported for it
        try:
            token = project.load_token(each.id)
        except (OSError, ValueError) as error:
            notes.append(f"{error}.")
            continue
        if token is not None:
            tokens[each.id] = token
    return tokens, notes


def read_sample(
    project: Project,
    name: str,
    choice: ModelChoice,
    **known: Any,
) -> LiveSample:
    """Read image and labels of a sample; not its trace, nor its settings.

    Of a picture that was left elsewhere and is missing, labels and grey squares.

    Parameters
    ----------
    project, name
        Where it is.
    choice
        The model of an image that does not say which made it.
    known
        Further fields of `LiveSample`.

    Raises
    ------
    ValueError
        If a file is missing or broken, or the labels do not fit the image.
    """
    entry = project.sample(name)
    missing = ""
    try:
        try:
            image = project.load_image(name)
        except MissingPictureError as error:
            image, missing = _placeholder(*project.image_size(name)), str(error)
        mark = project.labels_mark(name)
        ids = project.load_labels(name, to_edit=False)
        painted = project.load_painted(name)
    except OSError as error:
        raise ProjectError(f"{name} cannot be read: {error}") from error
    if ids is not None and ids.shape != image.shape[:2]:
        raise ProjectError(
            f"the image of {name} is {image.shape[:2]} pixels now and its labels are "
            f"{ids.shape}: put the image back. Nothing was changed"
        )
    made_by = str(entry.provenance.get("model") or choice.model)
    sample = LiveSample(
        project, name, image, ModelChoice(made_by, choice.device), **known
    )
    sample.extra[MARK] = mark
    if missing:
        sample.extra[MISSING] = missing
    if ids is not None:
        sample.edits = edits_of(ids, painted, entry)
    return sample


def _placeholder(height: int, width: int) -> NDArray[np.uint8]:
    """Return (H, W, 3) grey squares: to see labels on whose picture is missing."""
    rows, columns = np.ogrid[:height, :width]
    odd = (rows // _SQUARE + columns // _SQUARE) % 2
    return np.repeat((96 + 32 * odd).astype(np.uint8)[..., None], 3, axis=-1)


def as_settings(found: Mapping[str, Any] | None) -> GenerationSettings | None:
    """Return how napari-ovam made an image, of what its PNG says, if it does."""
    if found is None:
        return None
    from napari_ovam.base.generation_settings import GenerationSettings

    known = {field.name for field in fields(GenerationSettings)}
    return GenerationSettings(**{k: v for k, v in found.items() if k in known})


def edits_of(
    ids: NDArray[Any], painted: NDArray[np.bool_] | None, entry: Sample
) -> Edits:
    """Return labels with what a person decided.

    What the maps proposed under it is not known: background until they do so again.
    Labels that came from elsewhere, such as an import, are decided everywhere.
    """
    if painted is None or painted.shape != ids.shape:
        if entry.status in ("new", "proposed"):
            return Edits(ids)
        painted = np.ones(ids.shape, bool)
    return Edits(np.where(painted, 0, ids), ids, painted)
