"""A project: images, labels and tokens in one folder, whole at any moment.

    project.json  project.json.bak
    images/NAME.png     RGB, with its settings in the PNG's text; none for pictures
                        that were left where they are (`Reference`)
    labels/NAME.png     class ids, 8-bit grey, 16-bit above 255; 255 is "unsure"
    edits/NAME.png      255 where a person decided; other labels are proposals
    history/NAME.jsonl  what set each label pixel, in the order in which it did
    tokens/ID-NAME.safetensors    traces/NAME.safetensors

Every file is written beside its place and moved there when it is on the disk.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_ovam import __version__
from napari_ovam.base.hashing import hash_file
from napari_ovam.base.names import check_name, numbered, slug
from napari_ovam.base.progress import no_progress
from napari_ovam.images.files import ImageFileError, read
from napari_ovam.images.png import write_png
from napari_ovam.project.class_changes import ProjectClasses
from napari_ovam.project.files import now
from napari_ovam.project.index import (
    INDEX,
    ConflictError,
    ProjectError,
    Sample,
    Status,
)
from napari_ovam.project.items import ProjectItems
from napari_ovam.project.references import Reference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.datasets.exporters import LabelClass

__all__ = [
    "ConflictError",
    "Project",
    "ProjectError",
    "ProjectItems",
    "Sample",
    "Status",
]


class Project(ProjectClasses):
    """A project folder; `Project.create` makes one, `Project.open` opens it.

    Made as `Project(path)`, it is on the disk with the first thing that is saved.
    Its methods may be called from several threads, and write before they return. Other
    programs may write to it as well: what they saved meanwhile is taken in with each
    save, and what cannot be is refused (`ConflictError`).

    Attributes
    ----------
    path
        The folder.
    classes
        The class table. `save` writes its changes.
    files
        Where its files are.
    notes
        What was found and mended, and what others changed, in sentences for a person.
    """

    @classmethod
    def create(cls, path: str | PathLike[str]) -> Self:
        """Make a project in a new or empty folder.

        Raises
        ------
        ProjectError
            If the folder holds something, or is a file.
        OSError
            If it cannot be written.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ProjectError(f"{path} is a file: choose a folder for the project")
        if path.is_dir() and any(path.iterdir()):
            raise ProjectError(
                f"{path} is not empty: open it if it is a project, or choose another "
                "folder"
            )
        project = cls(path)
        project.save()
        return project

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Open a project folder, or the `project.json` in it.

        What a person wrote into `project.json` is taken as far as it can be, a damaged
        one is replaced by its last good copy, and images that it does not know are
        taken in; `notes` says so.

        Raises
        ------
        ProjectError
            If it is no project, cannot be recovered, or is of a newer version.
        """
        path = Path(path)
        project = cls(path.parent if path.name == INDEX else path)
        project._read()
        try:
            if project.notes:
                project.save()
            project._follow_classes(no_progress)
        except OSError as error:  # such as on a disk that can only be read
            project.notes.append(f"It could not be written anew: {error}.")
        project._look_around()
        return project

    # -- samples -----------------------------------------------------------------

    def add_sample(
        self,
        image: NDArray[np.uint8],
        settings: Mapping[str, Any] | None = None,
        name: str | None = None,
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> Sample:
        """Add an image.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB.
        settings
            How it was generated, for the PNG's text.
        name
            From `announce` or `reserve`; by default one is made of the prompt.
        provenance
            What else is to be known, as JSON. With a `Reference` in it the picture
            stays where it is: no copy is made.

        Raises
        ------
        ValueError
            If the name is taken or no file name, or the image is no RGB image.
        OSError
            If it cannot be written.
        """
        if name is not None:
            check_name(name)
        if image.ndim != 3:
            raise ProjectError(f"{name}: the image is {image.shape}; use (H, W, 3)")
        made = {"added": now(), "version": __version__, **(provenance or {})}
        text = None if settings is None else {"version": __version__, **settings}
        with self.writing():
            if name is None:  # when all that others added is known
                name = self.reserve(str((settings or {}).get("prompt") or "image"))
            path = self.files.image(name)
            waiting = self._coming.get(name) or Sample(name)
            there = Reference.of({**made, **waiting.provenance})
            # One that was announced here may be on the disk: a try that failed later.
            taken = name in self._samples and name not in self._coming
            if taken or (path.is_file() and self._foreign(name, image)):
                raise ConflictError(f"{self.path} has an image {name!r} already")
            if there is None:
                write_png(path, image, text)
            else:
                path = there.place(self.path)
            digest = hash_file(path)
            with self._memory:  # what was changed since it was announced counts
                coming = self._coming.pop(name, None)
                old = coming or Sample(name)
                made = {**made, **old.provenance}
                sample = replace(old, provenance=made, sha256=digest)
                self._samples[name] = sample
            try:
                self.save()
            except BaseException:  # so that another try can do it
                with self._memory:
                    changed = self._samples.pop(name)
                    self._coming |= {} if coming is None else {name: changed}
                raise
            self._reserved.discard(name)
        return sample

    def _foreign(self, name: str, image: NDArray[np.uint8]) -> bool:
        """Whether the file of an image is another than a save left that failed."""
        with suppress(ImageFileError):
            return not np.array_equal(read(self.files.image(name)), image)
        return True

    def provenance(self, name: str) -> dict[str, Any]:
        """Return all that is known of how a sample came to be, as JSON.

        Its status; when it became that ("history", with the program's version at the
        time); under "image" how the image was generated, None if it was loaded; under
        "proposed_by" the model, phrases, hashes of tokens, thresholds and settings that
        its labels were proposed with; and what else is in its provenance.
        """
        sample = self.sample(name)
        return {
            **sample.provenance,
            "status": sample.status,
            "image": self.settings(name),
        }

    # -- what is exported --------------------------------------------------------

    def items(
        self,
        names: Iterable[str] | None = None,
        statuses: Collection[Status] = ("proposed", "edited", "accepted"),
        *,
        history: bool = False,
    ) -> ProjectItems:
        """Return the samples that have labels, for `export_dataset`.

        Parameters
        ----------
        names
            Samples; all by default.
        statuses
            Others are left out; rejected ones by default.
        history
            Whether they say where each pixel came from, for the format "history".
        """
        chosen = self.samples if names is None else [self.sample(n) for n in names]
        return ProjectItems(
            self,
            [
                s.name
                for s in chosen
                if s.status in statuses and self.files.labels(s.name).is_file()
            ],
            history,
        )

    def label_classes(self) -> list[LabelClass]:
        """Return the class table as exports take it."""
        return self.classes.label_classes()

    # -- tokens and traces -------------------------------------------------------

    def save_token(self, number: int, token: Token) -> Path:
        """Write the optimized token of a class; return its file."""
        from napari_ovam.attention.token_files import save_token

        with self.writing():
            entry = self.classes[number]
            name = entry.token or f"{number}-{slug(entry.name)}.safetensors"
            files = numbered(self.files.token(name))
            # another program's stays
            file = next(f for f in files if not self._seen.is_changed(f))
            save_token(token, file)
            self._seen.remember(file)
            self.classes.change(number, token=file.name)
            self.save()
        return file

    def load_token(self, number: int) -> Token | None:
        """Return the token of a class; None if it has none."""
        from napari_ovam.attention.token_files import load_token

        name = self.classes[number].token
        if name is None:
            return None
        self._seen.remember(self.files.token(name))
        return load_token(self.files.token(name))

    def save_trace(self, name: str, trace: Trace, *, as_of: str | None = None) -> Path:
        """Write the trace of a sample; return its file.

        Where the trace is that of the sample `as_of` too, one file has both names, on
        file systems that can do that.
        """
        from napari_ovam.attention.trace_files import save_trace

        self.sample(name)
        self._check_there()
        self.files.make_folders(anew=self._base is None)
        path = self.trace_path(name)
        if as_of is not None and not path.exists():
            with suppress(OSError, NotImplementedError):
                path.hardlink_to(self.trace_path(as_of))
                return path
        return save_trace(trace, path)

    def trace_path(self, name: str) -> Path:
        """Return the path of a sample's trace, which need not exist."""
        return self.files.trace(name)
