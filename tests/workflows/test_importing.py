"""Masks of other data sets, and what they may not do to a project."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from napari_ovam import ExportItem, LabelClass, export_dataset
from napari_ovam.datasets.exporters import Split
from napari_ovam.datasets.importers import ImportSourceError, open_source
from napari_ovam.project import Project
from napari_ovam.segmentation.instances.files import load_instances
from napari_ovam.workflows.importing import import_masks

CLASSES = [
    LabelClass(2, "cat", (1, 2, 3)),
    LabelClass(9, "dog", thing=False),
    LabelClass(254, 'say "a, b" 🐈'),
    LabelClass(7, "unused"),
]


def labels(seed: int) -> np.ndarray:
    """Holes, islands, one-pixel objects and unsure pixels."""
    found = np.zeros((23, 31), np.uint8)
    found[2:12, 3:15] = 2
    found[5:8, 6:9] = 9
    found[6, 7] = 0
    found[20, 1 + seed] = 2
    found[15:20, 20:30] = 254
    found[17, 22] = 255
    found[0, :] = 255
    return found


def items() -> list[ExportItem]:
    random = np.random.default_rng(0)
    return [
        ExportItem(name, random.integers(0, 255, (23, 31, 3), "u1"), labels(i))
        for i, name in enumerate(("one", "two", "three"))
    ]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.create(tmp_path / "p")
    project.classes.add("dog")  # as 1: not the id of the data sets
    return project


def expected(project: Project, wanted: np.ndarray, *, unsure: bool = True):
    ids = {entry.name: entry.id for entry in project.classes}
    table = np.arange(256)
    for entry in CLASSES:
        table[entry.id] = ids[entry.name]
    found = table[wanted]
    return found if unsure else np.where(wanted == 255, 0, found)


@pytest.mark.parametrize("split", [None, Split(0.4, 0.3, 0.3)])
@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("indexed", "indexed"),
        ("coco", "coco"),
        ("coco-parts", "coco"),
        ("coco-polygons", "coco"),
        ("voc", "voc"),
    ],
)
def test_what_was_exported_comes_back(
    project: Project, tmp_path: Path, form: str, kind: str, split: Split | None
):
    out = export_dataset(items(), CLASSES, tmp_path / "o", [form], split=split) / form
    report = import_masks(project, open_source(out, kind))
    assert not report.failed
    assert sorted(report.added) == sorted(report.labelled) == ["one", "three", "two"]
    assert {e.name: e.id for e in project.classes} == {
        "dog": 1,
        **{c.name: c.id for c in CLASSES if c.name != "dog"},
    }
    opened = Project.open(project.path)
    for item in items():
        found = opened.load_labels(item.name)
        wanted = expected(opened, item.labels, unsure=kind != "coco")
        np.testing.assert_array_equal(found, wanted)
        sample = opened.sample(item.name)
        assert sample.status == "edited"
        assert sample.provenance["imported"]["format"] == kind
        if kind != "voc":  # its images are JPEGs
            np.testing.assert_array_equal(opened.load_image(item.name), item.image)
    instances = load_instances(opened.path, "one")
    if form in ("coco-parts", "coco-polygons", "voc"):
        assert len(instances.of_class(2)) == 2
    else:
        assert instances is None


def test_a_persons_labels_are_kept_until_told(project: Project, tmp_path: Path):
    out = export_dataset(items(), CLASSES, tmp_path / "o") / "indexed"
    mine = np.ones((23, 31), np.uint8)
    for item in items():
        project.add_sample(item.image, name=item.name)
    project.save_labels("one", mine, "accepted")
    project.save_labels("two", mine, "proposed")
    project.save_labels("three", mine, "proposed", painted=mine > 0)
    report = import_masks(project, open_source(out, "indexed"))
    assert report.labelled == ("two",)
    assert not report.added
    assert set(report.kept) == {"one", "three"}
    assert "accepted" in report.kept["one"]
    np.testing.assert_array_equal(project.load_labels("one"), mine)
    assert "already" in report.kept["one"]

    report = import_masks(project, open_source(out, "indexed"), overwrite=True)
    assert set(report.labelled) == {"one", "two", "three"}
    for item in items():
        found = project.load_labels(item.name)
        np.testing.assert_array_equal(found, expected(project, item.labels))
    assert project.load_painted("three").all()


def coco(folder: Path, annotations: list[dict], **image: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"id": 5, "file_name": "a.png", "height": 6, "width": 8, **image}
    content = {
        "images": [about],
        "categories": [{"id": 44, "name": "bottle"}, {"id": 0, "name": "cup"}],
        "annotations": [
            {"id": i, "image_id": 5, "category_id": 44, **a}
            for i, a in enumerate(annotations)
        ],
    }
    path = folder / "instances_val.json"
    path.write_text(json.dumps(content))
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "a.png")
    return path


def test_coco_in_all_its_forms(project: Project, tmp_path: Path):
    big, small = np.zeros((2, 6, 8), np.uint8)
    big[0:5, 0:7] = 1
    small[2, 3] = 1
    code = rle.encode(np.asfortranarray(small))
    flat = big.T.ravel()
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    counts = [0, *np.diff(edges).tolist()]  # it begins with a pixel of the mask
    compressed = {"size": [6, 8], "counts": code["counts"].decode()}
    path = coco(
        tmp_path / "d",
        [
            {"segmentation": compressed, "category_id": 0},
            {"segmentation": {"size": [6, 8], "counts": counts}},
        ],
    )
    report = import_masks(project, open_source(path, "coco"))
    assert report.labelled == ("a",), report.failed
    assert project.classes[44].name == "bottle"
    cup = project.classes.by_name("cup").id  # 0 is the background
    assert cup not in (0, 44)
    assert "'cup'" in report.notes[0]
    wanted = np.where(small, cup, np.where(big, 44, 0))  # the smaller on top
    np.testing.assert_array_equal(project.load_labels("a"), wanted)


@pytest.mark.parametrize(
    ("segmentation", "named"),
    [
        ({"size": [6, 8], "counts": [10]}, "48 pixels"),
        ({"size": [6, 8], "counts": "zzzz"}, "annotation 0"),
        ({"size": [6, 8], "counts": [-1, 49]}, "48 pixels"),
        ({"size": [8, 6], "counts": [48]}, "6, 8"),
        ([[0, 0, 1e12, 0, 0, 5]], "far out"),
        ([[0, 0, float("nan"), 0, 0, 5]], "far out"),
        ([[0, 0, 1]], "three points"),
        ([], "no mask"),
        (None, "no mask"),
    ],
)
def test_a_broken_annotation_is_named_and_changes_nothing(
    project: Project, tmp_path: Path, segmentation: object, named: str
):
    path = coco(tmp_path / "d", [{"segmentation": segmentation}])
    report = import_masks(project, open_source(path, "coco"))
    assert named in report.failed["a.png"]
    assert not project.samples


def test_a_file_does_not_reach_out_of_its_folder(project: Project, tmp_path: Path):
    secret = tmp_path / "secret.png"
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(secret)
    for name in ("../../secret.png", str(secret)):
        path = coco(tmp_path / "d/e", [], file_name=name)
        report = import_masks(project, open_source(path, "coco"))
        assert "neither" in min(report.failed.values())
    assert not project.samples


def test_images_of_another_size_and_unknown_ids_are_named(
    project: Project, tmp_path: Path
):
    data = tmp_path / "d"
    for name in ("labels", "images"):
        (data / name).mkdir(parents=True)
    table = {"classes": [{"id": 1, "name": "cat"}]}
    (data / "classes.json").write_text(json.dumps(table))
    for name, size, value in (("a", 3, 1), ("b", 4, 1), ("c", 4, 77), ("d", 4, 255)):
        pixels = np.full((size, 4), value, np.uint8)
        Image.fromarray(pixels).save(data / f"labels/{name}.png")
        blank = np.zeros((4, 4, 3), np.uint8)
        Image.fromarray(blank).save(data / f"images/{name}.jpg")
    (data / "labels/e.png").write_bytes(b"no PNG")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(data / "labels/f.png")
    report = import_masks(project, open_source(data, "indexed"))
    assert set(report.labelled) == {"b", "d"}
    assert "(3, 4)" in report.failed["images/a.jpg"]
    assert "77" in report.failed["images/c.jpg"]
    assert "e.png" in report.failed["labels/e.png"]
    assert "neither" in report.failed["labels/f.png"]
    assert "16 pixels are 255" in report.skipped["images/d.jpg"][0]
    assert (project.load_labels("d") == 255).all()


def test_voc_masks_in_colour_and_without_a_labelmap(project: Project, tmp_path: Path):
    data = tmp_path / "VOC2012"
    (data / "SegmentationClass").mkdir(parents=True)
    (data / "JPEGImages").mkdir()
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(data / "JPEGImages/a.jpg")
    # aeroplane, and the border of VOC
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[0, 0], colours[1, 1] = (128, 0, 0), (224, 224, 192)
    Image.fromarray(colours).save(data / "SegmentationClass/a.png")
    report = import_masks(project, open_source(data, "voc"))
    assert len(report.new_classes) == 19  # there is a dog already
    plane = project.classes.by_name("aeroplane").id
    wanted = [[plane, 0, 0], [0, 255, 0]]
    np.testing.assert_array_equal(project.load_labels("a"), wanted)
    colours[0, 1] = (1, 2, 3)
    Image.fromarray(colours).save(data / "SegmentationClass/a.png")
    report = import_masks(project, open_source(data, "voc"), overwrite=True)
    assert "(1, 2, 3)" in report.skipped["JPEGImages/a.jpg"][0]
    wanted = [[plane, 255, 0], [0, 255, 0]]
    np.testing.assert_array_equal(project.load_labels("a"), wanted)


@pytest.mark.parametrize("form", ["indexed", "coco", "voc", "gif"])
def test_what_is_no_data_set_is_named(tmp_path: Path, form: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportSourceError, match=r"empty|'gif'"):
        open_source(tmp_path / "empty", form)
    with pytest.raises(ImportSourceError, match=r"nowhere|'gif'"):
        open_source(tmp_path / "nowhere", form)
    (tmp_path / "annotations.json").write_text("[1, 2]")
    if form == "coco":
        with pytest.raises(ImportSourceError, match=r"annotations\.json"):
            open_source(tmp_path, form)
