"""At every border an id stays what it is, or is refused by name: none ever wraps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_ovam import ExportItem, LabelClass, export_dataset, maps_to_labels
from napari_ovam.attention.targets import labels_to_target
from napari_ovam.datasets.class_lists import add_classes, read_class_list
from napari_ovam.datasets.classes import ClassTable
from napari_ovam.datasets.importers import open_source
from napari_ovam.images.png import as_ids
from napari_ovam.project import Project
from napari_ovam.project.files import write_labels
from napari_ovam.segmentation.instances import Instances
from napari_ovam.segmentation.instances.files import load_instances, save_instances
from napari_ovam.workflows.importing import import_masks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PICTURE = np.full((4, 6, 3), 90, np.uint8)
UNSURE = 255
IDS = st.integers(-70_000, 200_000) | st.integers(-(2**40), 2**40)


def labels(number: int) -> np.ndarray:
    found = np.zeros((4, 6), np.int64)
    found[1:3, 2] = number
    return found


def in_memory(folder: Path, number: int) -> int:
    return int(as_ids("labels", labels(number))[1, 2])


def in_a_project(folder: Path, number: int) -> int:
    project = Project.create(folder / "p")
    project.add_sample(PICTURE, name="a")
    project.save_labels("a", labels(number))
    return int(Project.open(project.path).load_labels("a")[1, 2])


def in_a_file(folder: Path, number: int) -> int:
    write_labels(folder / "a.png", labels(number), {})
    with Image.open(folder / "a.png") as picture:
        return int(np.asarray(picture)[1, 2])


def of_a_class(folder: Path, number: int) -> int:
    table = ClassTable()
    table.add("cat", number)
    [entry] = table
    return entry.id


def of_a_class_by_hand(folder: Path, number: int) -> int:
    project = Project.create(folder / "p")
    project.classes.add("cat", 7)
    project.save()
    path = project.path / "project.json"
    content = json.loads(path.read_text())
    content["classes"][0]["id"] = number
    path.write_text(json.dumps(content))
    found = Project.open(project.path)
    entry = found.classes.by_name("cat")
    if entry.id != number:
        raise ValueError(" ".join(found.notes))
    return entry.id


def of_a_list(folder: Path, number: int) -> int:
    (folder / "classes.json").write_text(json.dumps([{"id": number, "name": "cat"}]))
    report = add_classes(
        table := ClassTable(), read_class_list(folder / "classes.json")
    )
    if report.conflicts:
        raise ValueError(report.conflicts[0])
    return next(iter(table)).id


def of_maps(folder: Path, number: int) -> int:
    return int(maps_to_labels(np.ones((1, 4, 6), np.float32), ids=[number])[0, 0])


def of_a_target(folder: Path, number: int) -> int:
    assert labels_to_target(labels(number), number).sum() == 2
    return number


def in_an_export(folder: Path, number: int) -> int:
    item = ExportItem("a", PICTURE, labels(number))
    out = export_dataset([item], [LabelClass(number, "cat")], folder / "out")
    with Image.open(out / "indexed/labels/a.png") as picture:
        return int(np.asarray(picture)[1, 2])


def in_a_mask_of_others(folder: Path, number: int) -> int:
    for name in ("images", "masks"):
        (folder / name).mkdir()
    Image.fromarray(PICTURE).save(folder / "images/a.png")
    ids = labels(number)
    ids[0, 0] = 9  # so that it is not the only one
    np.save(folder / "masks/a.npy", ids)
    project = Project.create(folder / "p")
    report = import_masks(project, open_source(folder, "indexed"))
    found = int(project.load_labels("a")[1, 2])
    if found == UNSURE == number or number == 0:
        return found
    assert project.classes[found].name == f"class {number}"
    if found != number:
        raise ValueError(" ".join(report.notes))
    return found


def of_an_object(folder: Path, number: int) -> int:
    ids = labels(number)
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"{number} is no int32")
    ids = ids.astype(np.int32)
    save_instances(folder, "a", Instances(ids, {number: 1}, max(number, 0)))
    return int(load_instances(folder, "a").ids[1, 2])


BORDERS: list[Callable[[Path, int], int]] = [
    *(in_memory, in_a_project, in_a_file, of_a_class, of_a_class_by_hand, of_a_list),
    *(of_maps, of_a_target, in_an_export, in_a_mask_of_others, of_an_object),
]


@pytest.mark.parametrize("border", BORDERS)
def test_an_id_stays_or_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, border: Callable[[Path, int], int]
) -> None:
    @settings(max_examples=12, deadline=None)
    @example(65_538)
    @example(65_536)
    @example(-1)
    @example(300)
    @given(IDS)
    def try_it(number: int) -> None:
        said: Any = None
        try:
            kept = border(tmp_path_factory.mktemp("border"), number)
        except ValueError as error:
            said = str(error)
        if said is None:
            assert kept == number
        else:
            assert str(number) in said or number == 0
        if number == 300:
            assert said is None

    try_it()
