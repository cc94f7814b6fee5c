"""A project: images, labels and tokens in one folder, whole at any moment.

    project.json  project.json.bak
    images/NAME.png     RGB, with its settings in the PNG's text
    labels/NAME.png     class ids, 8-bit grey, 16-bit above 255; 255 is "unsure"
    edits/NAME.png      255 where a person decided; other labels are proposals
    tokens/ID-NAME.safetensors    traces/NAME.safetensors

Every file is written beside its place and moved there when it is on the disk.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np

from napari_ovam.classes import ClassTable
from napari_ovam.export import ExportItem, LabelClass, check_name
from napari_ovam.png import (
    PngError,
    as_ids,
    png_size,
    read_ids,
    read_png_settings,
    read_rgb,
    write_png,
)
from napari_ovam.project_index import (
    INDEX,
    ProjectError,
    Sample,
    Status,
    read_index,
    write_index,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from os import PathLike

    from numpy.typing import NDArray

    from napari_ovam.tokens import Token
    from napari_ovam.trace import Trace

__all__ = ["Project", "ProjectError", "ProjectItems", "Sample", "Status"]

_FOLDERS = ("images", "labels", "edits", "tokens", "traces")


class Project:
    """A project folder; `Project.create` makes one, `Project.open` opens it.

    Made as `Project(path)`, it is on the disk with the first thing that is saved.
    Its methods may be called from several threads, and write before they return. One
    process at a time should write to a project.

    Attributes
    ----------
    path
        The folder.
    classes
        The class table. `save` writes its changes.
    notes
        What opening found and mended, in sentences for a person.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.classes = ClassTable()
        self.notes: list[str] = []
        self._samples: dict[str, Sample] = {}
        self._reserved: set[str] = set()
        self._lock = threading.RLock()  # held while files are written
        self._names = threading.Lock()  # never held for long: the GUI asks for names

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

        A damaged `project.json` is replaced by its last good copy, and images that it
        does not know are taken in; `notes` says so.

        Raises
        ------
        ProjectError
            If it is no project, cannot be recovered, or is of a newer version.
        """
        path = Path(path)
        project = cls(path.parent if path.name == INDEX else path)
        project.classes, project._samples, note = read_index(project.path)
        if note:
            project.notes.append(note)
            try:
                project.save()
            except OSError as error:  # such as on a disk that can only be read
                project.notes.append(f"It could not be written anew: {error}.")
        project._look_around()
        return project

    # -- samples -----------------------------------------------------------------

    @property
    def samples(self) -> list[Sample]:
        """The samples in the order in which they came."""
        return list(self._samples.values())

    def sample(self, name: str) -> Sample:
        """Return a sample.

        Raises
        ------
        ProjectError
            If there is none of that name.
        """
        try:
            return self._samples[name]
        except KeyError:
            raise ProjectError(f"{self.path} has no image {name!r}") from None

    def reserve(self, wanted: str) -> str:
        """Return a file name like `wanted` that no sample has or gets."""
        plain = re.sub(r"[^\w-]+", "-", wanted).strip("-_")
        plain = plain.encode()[:80].decode(errors="ignore") or "image"
        with self._names:
            taken = {name.casefold() for name in (*self._samples, *self._reserved)}
            name, number = plain, 1
            while name.casefold() in taken or self._image(name).exists():
                number += 1
                name = f"{plain}-{number}"
            self._reserved.add(name)
        return name

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
            From `reserve`; by default one is made of the prompt.
        provenance
            What else is to be known, as JSON.

        Raises
        ------
        ValueError
            If the name is taken or no file name, or the image is no RGB image.
        OSError
            If it cannot be written.
        """
        if name is None:
            name = self.reserve(str((settings or {}).get("prompt") or "image"))
        check_name(name)
        if image.ndim != 3:
            raise ProjectError(f"{name}: the image is {image.shape}; use (H, W, 3)")
        made = {"added": _now(), "version": _version(), **(provenance or {})}
        with self._lock:
            if name in self._samples:
                raise ProjectError(f"{self.path} has an image {name!r} already")
            self.make_folders()
            write_png(self._image(name), image, settings)
            self._samples[name] = sample = Sample(name, provenance=made)
            self._reserved.discard(name)
            self.save()
        return sample

    def load_image(self, name: str) -> NDArray[np.uint8]:
        """Return the image of a sample, (H, W, 3) uint8 RGB."""
        self.sample(name)
        return read_rgb(self._image(name))

    def settings(self, name: str) -> dict[str, Any] | None:
        """Return how the image of a sample was generated; None if it was loaded."""
        self.sample(name)
        return read_png_settings(self._image(name))

    def change_sample(
        self,
        name: str,
        *,
        status: Status | None = None,
        absent: Iterable[int] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Sample:
        """Set the status or absent classes of a sample, or add to its provenance."""
        with self._lock:
            old = self.sample(name)
            if status is not None and status not in get_args(Status):
                raise ProjectError(
                    f"{name}: the status {status!r} is none of {get_args(Status)}"
                )
            new = replace(
                old,
                status=status or old.status,
                absent=old.absent if absent is None else tuple(sorted(set(absent))),
                provenance={**old.provenance, **(provenance or {})},
            )
            if new != old:
                self._samples[name] = new
                self.save()
        return new

    # -- labels ------------------------------------------------------------------

    def save_labels(
        self,
        name: str,
        labels: NDArray[Any],
        status: Status = "edited",
        *,
        painted: NDArray[np.bool_] | None = None,
        absent: Iterable[int] | None = None,
    ) -> None:
        """Write the labels of a sample.

        Parameters
        ----------
        name
            The sample.
        labels
            (H, W) class ids of 0 to 65535, of the size of the image; 255 is "unsure".
        status
            What the sample becomes.
        painted
            (H, W), where a person decided. None leaves what is known as it is.
        absent
            As for `change_sample`.

        Raises
        ------
        ValueError
            If the labels are no ids, or of another size than the image.
        OSError
            If they cannot be written; the old ones are there then.
        """
        self.sample(name)
        ids = as_ids(name, labels)
        with self._lock:
            size = png_size(self._image(name))
            for array in (ids, painted):
                if array is not None and array.shape != size:
                    raise ProjectError(
                        f"{name}: the image is {size} and its labels are {array.shape}"
                    )
            self.make_folders()
            if painted is not None:
                write_png(self._painted(name), painted.astype(np.uint8) * 255)
            write_png(self._labels(name), ids)
            self.change_sample(
                name, status=status, absent=absent, provenance={"labelled": _now()}
            )

    def load_labels(self, name: str) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
        """Return the labels of a sample, (H, W) class ids; None if it has none."""
        self.sample(name)
        path = self._labels(name)
        return read_ids(path) if path.is_file() else None

    def load_painted(self, name: str) -> NDArray[np.bool_] | None:
        """Return where a person decided, (H, W); None if nobody did."""
        self.sample(name)
        path = self._painted(name)
        return read_ids(path) > 0 if path.is_file() else None

    def items(
        self,
        names: Iterable[str] | None = None,
        statuses: Collection[Status] = ("proposed", "edited", "accepted"),
    ) -> ProjectItems:
        """Return the samples that have labels, for `export_dataset`.

        Parameters
        ----------
        names
            Samples; all by default.
        statuses
            Others are left out; rejected ones by default.
        """
        chosen = self.samples if names is None else [self.sample(n) for n in names]
        return ProjectItems(
            self,
            [
                s.name
                for s in chosen
                if s.status in statuses and self._labels(s.name).is_file()
            ],
        )

    def label_classes(self) -> list[LabelClass]:
        """Return the class table as exports take it."""
        return self.classes.label_classes()

    # -- tokens and traces -------------------------------------------------------

    def save_token(self, number: int, token: Token) -> Path:
        """Write the optimized token of a class; return its file."""
        from napari_ovam.token_files import save_token

        with self._lock:
            entry = self.classes[number]
            slug = re.sub(r"[^a-z0-9]+", "-", entry.name.lower()).strip("-")[:40]
            name = entry.token or f"{number}-{slug or 'class'}.safetensors"
            self.make_folders()
            path = save_token(token, self.path / "tokens" / name)
            self.classes.change(number, token=name)
            self.save()
        return path

    def load_token(self, number: int) -> Token | None:
        """Return the token of a class; None if it has none."""
        from napari_ovam.token_files import load_token

        name = self.classes[number].token
        return None if name is None else load_token(self.path / "tokens" / name)

    def save_trace(self, name: str, trace: Trace) -> Path:
        """Write the trace of a sample; return its file."""
        from napari_ovam.trace_files import save_trace

        self.sample(name)
        self.make_folders()
        return save_trace(trace, self.trace_path(name))

    def trace_path(self, name: str) -> Path:
        """Return the path of a sample's trace, which need not exist."""
        return self.path / "traces" / f"{name}.safetensors"

    # -- the index ---------------------------------------------------------------

    def save(self) -> None:
        """Write `project.json` and its copy."""
        with self._lock:
            self.make_folders()
            program = f"napari-ovam {_version()}"
            write_index(self.path, self.classes, self.samples, program)

    def make_folders(self) -> None:
        """Make the folder and those in it, where they are missing."""
        for name in _FOLDERS:
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def _look_around(self) -> None:
        """Notice images that are gone, and take in those that nobody knows."""
        found = {path.stem for path in self.path.joinpath("images").glob("*.png")}
        if gone := [name for name in self._samples if name not in found]:
            self.notes.append(
                f"{len(gone)} images are missing from {self.path / 'images'}: "
                f"{', '.join(gone[:3])}{' …' if len(gone) > 3 else ''}"
            )
        new = sorted(name for name in found - set(self._samples) if _is_name(name))
        for name in new:
            labelled = self._labels(name).is_file()
            self._samples[name] = Sample(name, "edited" if labelled else "new")
        if new:
            self.notes.append(f"{len(new)} images were found and added.")

    def _image(self, name: str) -> Path:
        return self.path / "images" / f"{name}.png"

    def _labels(self, name: str) -> Path:
        return self.path / "labels" / f"{name}.png"

    def _painted(self, name: str) -> Path:
        return self.path / "edits" / f"{name}.png"


@dataclass(frozen=True)
class ProjectItems:
    """Labelled samples of a project, read from the disk one at a time."""

    project: Project
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[ExportItem]:
        for name in self.names:
            labels = self.project.load_labels(name)
            if labels is None:
                raise PngError(
                    f"the labels of {name} are gone from {self.project.path}"
                )
            yield ExportItem(name, self.project.load_image(name), labels)


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version() -> str:
    from napari_ovam import __version__

    return __version__
