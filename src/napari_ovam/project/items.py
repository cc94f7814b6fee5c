"""The labelled samples of a project, as exports take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ovam.datasets.exporters import ExportItem
from napari_ovam.images.files import ImageFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.project import Project


@dataclass(frozen=True)
class ProjectItems:
    """Labelled samples of a project, read from the disk one at a time."""

    project: Project
    names: list[str]
    history: bool = False  # whether where each pixel came from is wanted, too

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[ExportItem]:
        from napari_ovam.segmentation.instances.files import load_instances

        for name in self.names:
            labels = self.project.load_labels(name, to_edit=False)
            if labels is None:
                raise ImageFileError(
                    f"the labels of {name} are gone from {self.project.path}"
                )
            instances = load_instances(self.project.path, name, labels)
            yield ExportItem(
                name,
                self.project.load_image(name),
                labels,
                instances=None if instances is None else instances.ids,
                provenance=self.project.provenance(name),
                history=self._history(name, labels) if self.history else None,
            )

    def _history(
        self, name: str, labels: NDArray[Any]
    ) -> tuple[NDArray[np.uint32], list[Mapping[str, Any]]]:
        found = self.project.load_history(name)
        return found.sources(labels), [change.about for change in found.changes]
