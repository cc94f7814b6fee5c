"""Data sets that were imported into a project, written again as they came."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from napari_ovam.datasets.returning import AS_IMPORTED
from napari_ovam.datasets.returning.kept import check_place, read_kept
from napari_ovam.datasets.returning.writer import AsImportedWriter, Imported

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_ovam.datasets.exporters import LabelClass, Writer, WriterFactory
    from napari_ovam.project import Project


def more_formats(project: Project) -> dict[str, WriterFactory]:
    """Return the formats that a project has beside all others, for `export_dataset`."""
    return {AS_IMPORTED: partial(_start, project)}


def _start(project: Project, folder: Path, classes: Sequence[LabelClass]) -> Writer:
    kept = cache(partial(read_kept, project.path))
    samples: dict[str, Imported] = {}
    for sample in project.samples:
        about = sample.told("imported")
        if not about.get("kept"):
            continue
        place, index = about["record"]
        samples[sample.name] = Imported(
            kept(str(about["kept"])),
            (check_place(str(place)), int(index)),
            int(about.get("turn", 1)),
            check_place(str(about.get("file", ""))),
            str(about.get("sha256", "")),
        )
    return AsImportedWriter(folder, classes, project=project.path, samples=samples)
