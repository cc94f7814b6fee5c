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
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ovam.base.names import check_name
from napari_ovam.images.png import (
    as_ids,
    png_size,
    read_ids,
    read_png_settings,
    read_rgb,
    write_png,
)
from napari_ovam.project.files import (
    hash_file,
    hash_ids,
    now,
    program_version,
    read_about_labels,
    read_labels,
    replace_ids,
    write_labels,
)
from napari_ovam.project.index import ProjectError, Sample, Status
from napari_ovam.project.items import ProjectItems
from napari_ovam.project.store import ProjectStore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace
    from napari_ovam.datasets.exporters import LabelClass

__all__ = ["Project", "ProjectError", "ProjectItems", "Sample", "Status"]


class Project(ProjectStore):
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
    files
        Where its files are.
    notes
        What opening found and mended, in sentences for a person.
    """

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
        version = program_version()
        made = {"added": now(), "version": version, **(provenance or {})}
        text = None if settings is None else {"version": version, **settings}
        with self._lock:
            if name in self._samples:
                raise ProjectError(f"{self.path} has an image {name!r} already")
            self.make_folders()
            write_png(self.files.image(name), image, text)
            digest = hash_file(self.files.image(name))
            with self._memory:  # what was changed since it was announced counts
                old = self._coming.pop(name, Sample(name))
                made = {**made, **old.provenance}
                sample = replace(old, provenance=made, sha256=digest)
                self._samples[name] = sample
                self._reserved.discard(name)
            self.save()
        return sample

    def load_image(self, name: str) -> NDArray[np.uint8]:
        """Return the image of a sample, (H, W, 3) uint8 RGB."""
        self.sample(name)
        return read_rgb(self.files.image(name))

    def settings(self, name: str) -> dict[str, Any] | None:
        """Return how the image of a sample was generated; None if it was loaded."""
        self.sample(name)
        settings = read_png_settings(self.files.image(name))
        if settings is not None:
            settings.pop("version", None)
        return settings

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

    # -- labels ------------------------------------------------------------------

    def save_labels(
        self,
        name: str,
        labels: NDArray[Any],
        status: Status | None = "edited",
        *,
        painted: NDArray[np.bool_] | None = None,
        absent: Iterable[int] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the labels of a sample.

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
            self.make_folders()
            size = png_size(self.files.image(name))
            for array in (ids, painted):
                if array is not None and array.shape != size:
                    raise ProjectError(
                        f"{name}: the image is {size} and its labels are {array.shape}"
                    )
            if painted is not None:
                write_png(self.files.painted(name), painted.astype(np.uint8) * 255)
            if changes := self.classes.replaced():
                ids = replace_ids(ids, changes)
            made = {**(provenance or {}), "labelled": now()}
            status = status or self.sample(name).status
            about = {"status": status, "version": program_version(), **made}
            write_labels(self.files.labels(name), ids, about)
            self.change_sample(name, status=status, absent=absent, provenance=made)

    def labels_are_foreign(self, name: str) -> bool:
        """Whether another program wrote the labels of a sample since they were saved.

        True as well where that is not known: for labels of an older version.
        """
        self.sample(name)
        path = self.files.labels(name)
        if not path.is_file():
            return False
        return read_about_labels(path).get("sha256") != hash_ids(read_ids(path))

    def load_labels(self, name: str) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
        """Return the labels of a sample, (H, W) class ids; None if it has none."""
        self.sample(name)
        path = self.files.labels(name)
        changes = self.classes.replaced()
        return read_labels(path, changes) if path.is_file() else None

    def load_painted(self, name: str) -> NDArray[np.bool_] | None:
        """Return where a person decided, (H, W); None if nobody did."""
        self.sample(name)
        path = self.files.painted(name)
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
                if s.status in statuses and self.files.labels(s.name).is_file()
            ],
        )

    def label_classes(self) -> list[LabelClass]:
        """Return the class table as exports take it."""
        return self.classes.label_classes()

    # -- tokens and traces -------------------------------------------------------

    def save_token(self, number: int, token: Token) -> Path:
        """Write the optimized token of a class; return its file."""
        from napari_ovam.attention.token_files import save_token

        with self._lock:
            entry = self.classes[number]
            slug = re.sub(r"[^a-z0-9]+", "-", entry.name.lower()).strip("-")[:40]
            name = entry.token or f"{number}-{slug or 'class'}.safetensors"
            self.make_folders()
            path = save_token(token, self.files.token(name))
            self.classes.change(number, token=name)
            self.save()
        return path

    def load_token(self, number: int) -> Token | None:
        """Return the token of a class; None if it has none."""
        from napari_ovam.attention.token_files import load_token

        name = self.classes[number].token
        return None if name is None else load_token(self.files.token(name))

    def save_trace(self, name: str, trace: Trace) -> Path:
        """Write the trace of a sample; return its file."""
        from napari_ovam.attention.trace_files import save_trace

        self.sample(name)
        self.make_folders()
        return save_trace(trace, self.trace_path(name))

    def trace_path(self, name: str) -> Path:
        """Return the path of a sample's trace, which need not exist."""
        return self.files.trace(name)
