"""Data sets that come in and go out again: only what was corrected changes."""

import copy
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from napari_ovam import ExportItem, LabelClass, export_dataset
from napari_ovam.datasets.exporters import Split
from napari_ovam.datasets.importers import open_source
from napari_ovam.datasets.mask_codes import encode_brush, encode_png, encode_runs
from napari_ovam.datasets.returning import AS_IMPORTED
from napari_ovam.project import Project
from napari_ovam.workflows.importing import import_masks
from napari_ovam.workflows.returning import more_formats

SIZE = (24, 32)
SHAPES = ("cvat", "labelme", "label-studio", "datumaro", "coco")
MASKS = ("indexed", "voc")
CLASSES = [LabelClass(1, "cat", (9, 8, 7)), LabelClass(2, "dog", (1, 2, 3))]
few = settings(max_examples=10, deadline=None)


def square(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


# A polygon, over it a mask, elsewhere a box; "b" has a polygon that hides another.
CAT = [(2, 2), (16, 2), (16, 13), (2, 13)]
DOG = square(6, 8, 20, 18)
ISLAND = square(21, 28, 23, 31)
UNDER = [(4, 4), (8, 4), (8, 8), (4, 8)]
OVER = [(1, 1), (16, 1), (16, 16), (1, 16)]
PICTURES = ("a", "b")


def ring(points: list) -> list[float]:
    return [float(value) for point in points for value in point]


def cvat() -> dict[str, str]:
    def mask(each: np.ndarray) -> str:
        rows, columns = np.nonzero(each)
        top, left = rows.min(), columns.min()
        part = each[top : rows.max() + 1, left : columns.max() + 1]
        runs = ", ".join(map(str, encode_runs(part)))
        return (
            f'rle="{runs}" left="{left}" top="{top}" '
            f'width="{part.shape[1]}" height="{part.shape[0]}"'
        )

    def points(each: list) -> str:
        return "points=" + '"' + ";".join(f"{x:.2f},{y:.2f}" for x, y in each) + '"'

    about = 'source="semi-auto" occluded="1"'
    extra = '<attribute name="breed">ä &amp; b</attribute>'
    text = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>77</id><name>mine</name><labels>
    <label><name>cat</name><color>#090807</color><type>any</type></label>
    <label><name>dog</name><color>#010203</color><type>any</type></label>
  </labels><owner><username>me</username></owner></task></meta>
  <!-- a word of mine -->
  <image id="4" name="a.png" subset="val" task_id="77" width="32" height="24">
    <polygon label="cat" {about} {points(CAT)} z_order="0" keep="this">{extra}</polygon>
    <mask label="dog" {about} {mask(DOG)} z_order="2" group_id="0">{extra}</mask>
    <mask label="dog" {about} {mask(ISLAND)} z_order="2"></mask>
    <box label="cat" xtl="1" ytl="2" xbr="3" ybr="4" z_order="0">{extra}</box>
  </image>
  <image id="9" name="b.png" subset="train" task_id="77" width="32" height="24">
    <polygon label="dog" {about} {points(UNDER)} z_order="0">{extra}</polygon>
    <polygon label="cat" {about} {points(OVER)} z_order="1"></polygon>
    <tag label="cat"></tag>
  </image>
</annotations>
"""
    return {"annotations.xml": text}


def labelme() -> dict[str, object]:
    def mask(each: np.ndarray) -> dict:
        rows, columns = np.nonzero(each)
        top, left, bottom, right = rows.min(), columns.min(), rows.max(), columns.max()
        return {
            "points": [[int(left), int(top)], [int(right), int(bottom)]],
            "shape_type": "mask",
            "mask": encode_png(each[top : bottom + 1, left : right + 1]),
        }

    more = {"flags": {"hard": True}, "description": "ä", "mine": [1, {"x": None}]}
    a = [
        {"label": "cat", "points": CAT, "shape_type": "polygon", "group_id": 4, **more},
        {"label": "dog", "group_id": None, **mask(DOG), **more},
        {"label": "dog", "group_id": None, **mask(ISLAND)},
        {"label": "cat", "points": [[1, 1], [3, 4]], "shape_type": "rectangle", **more},
    ]
    b = [
        {"label": "dog", "points": UNDER, "shape_type": "polygon", **more},
        {"label": "cat", "points": OVER, "shape_type": "polygon"},
    ]
    return {
        f"{name}.json": {
            "version": "5.4.1",
            "flags": {"seen": False},
            "shapes": shapes,
            "imagePath": f"{name}.png",
            "imageData": None,
            "imageHeight": SIZE[0],
            "imageWidth": SIZE[1],
            "reviewer": {"name": "me"},
        }
        for name, shapes in (("a", a), ("b", b))
    }


def label_studio() -> dict[str, object]:
    def result(number: str, kind: str, label: str, **value: object) -> dict:
        return {
            "id": number,
            "type": kind,
            "from_name": kind[:3],
            "to_name": "image",
            "original_width": SIZE[1],
            "original_height": SIZE[0],
            "image_rotation": 0,
            "origin": "manual",
            "meta": {"text": ["mine"]},
            "value": {**value, kind: [label]},
        }

    def polygon(number: str, label: str, points: list) -> dict:
        shares = [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in points]
        return result(number, "polygonlabels", label, points=shares, closed=True)

    def brush(number: str, label: str, mask: np.ndarray) -> dict:
        return result(
            number, "brushlabels", label, format="rle", rle=encode_brush(mask)
        )

    a = [
        polygon("r1", "cat", CAT),
        brush("r2", "dog", DOG),
        brush("r3", "dog", ISLAND),
        result("r4", "rectanglelabels", "cat", x=1.5, y=2, width=3, height=4),
    ]
    b = [polygon("r5", "dog", UNDER), polygon("r6", "cat", OVER)]
    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/upload/7/0123456{number}-{name}.png", "x": 1},
            "annotations": [
                {
                    "id": 30 + number,
                    "completed_by": 2,
                    "result": results,
                    "lead_time": 9,
                }
            ],
            "predictions": [],
            "meta": {"mine": True},
        }
        for number, name, results in ((1, "a", a), (2, "b", b))
    ]
    return {"project-7.json": tasks}


def datumaro() -> dict[str, object]:
    def code(mask: np.ndarray) -> dict:
        found = rle.encode(np.asfortranarray(mask, np.uint8))
        return {"counts": found["counts"].decode(), "size": list(SIZE)}

    more = {"attributes": {"occluded": False, "mine": 3.5}, "object_id": 8}
    a = [
        {"id": 3, "type": "polygon", "label_id": 0, "points": ring(CAT), **more},
        {
            "id": 4,
            "type": "mask",
            "label_id": 1,
            "rle": code(DOG),
            "z_order": 2,
            **more,
        },
        {"id": 5, "type": "mask", "label_id": 1, "rle": code(ISLAND), "z_order": 2},
        {"id": 6, "type": "bbox", "label_id": 0, "bbox": [1.0, 2.0, 3.0, 4.0], **more},
    ]
    b = [
        {"id": 7, "type": "polygon", "label_id": 1, "points": ring(UNDER), "group": 2},
        {"id": 8, "type": "polygon", "label_id": 0, "points": ring(OVER), "z_order": 1},
    ]
    return {
        f"annotations/{subset}.json": {
            "dm_format_version": "1.0",
            "media_type": 2,
            "infos": {"mine": "ä"},
            "categories": {
                "label": {
                    "labels": [
                        {"name": n, "parent": "", "attributes": ["x"]}
                        for n in ("cat", "dog")
                    ],
                    "attributes": ["occluded"],
                }
            },
            "items": [
                {
                    "id": name,
                    "annotations": annotations,
                    "attr": {"frame": 5},
                    "image": {"path": f"{name}.png", "size": list(SIZE)},
                }
            ],
        }
        for subset, name, annotations in (("val", "a", a), ("train", "b", b))
    }


def coco() -> dict[str, object]:
    def code(mask: np.ndarray) -> dict:
        return {"counts": encode_runs(mask.T), "size": list(SIZE)}

    more = {"score": 0.25, "iscrowd": 0, "mine": {"a": [1]}, "bbox": [0, 0, 1, 1]}
    return {
        "annotations/instances_val.json": {
            "info": {"year": 2020},
            "licenses": [{"id": 1}],
            "categories": [
                {"id": 7, "name": "cat", "supercategory": "animal"},
                {"id": 18, "name": "dog", "keypoints": ["nose"]},
            ],
            "images": [
                {
                    "id": 40,
                    "file_name": "a.png",
                    "height": 24,
                    "width": 32,
                    "license": 1,
                },
                {"id": 50, "file_name": "b.png", "height": 24, "width": 32},
            ],
            "annotations": [
                {"id": 3, "image_id": 40, "category_id": 7, "area": 120.0, **more}
                | {"segmentation": [ring(CAT)]},
                {"id": 5, "image_id": 50, "category_id": 18, **more}
                | {"segmentation": [ring(UNDER)]},
                {"id": 4, "image_id": 40, "category_id": 18, "segmentation": code(DOG)},
                {"image_id": 40, "category_id": 18, "segmentation": code(ISLAND)},
                {"id": 6, "image_id": 50, "category_id": 7}
                | {"segmentation": [ring(OVER)]},
                {"id": 7, "image_id": 40, "category_id": 7, **more},
            ],
        }
    }


MAKERS = {
    "cvat": cvat,
    "labelme": labelme,
    "label-studio": label_studio,
    "datumaro": datumaro,
    "coco": coco,
}


def data_set(root: Path, form: str) -> Path:
    for number, name in enumerate(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
        (root / "images").mkdir(parents=True, exist_ok=True)
        folder = root if form == "labelme" else root / "images"
        Image.fromarray(pixels).save(folder / f"{name}.png")
    for place, content in MAKERS[form]().items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        (root / place).write_text(text, "utf-8")
    (root / "README.md").write_text("mine")
    return root


def came_back(project: Project, out: Path) -> Path:
    export_dataset(
        *(project.items(), project.label_classes(), out, [AS_IMPORTED]),
        more=more_formats(project),
    )
    return out / AS_IMPORTED


def tree_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "ovam.json"
    }


def records_of(root: Path, form: str) -> dict[str, list]:
    """The annotations of each picture, in the order of the file."""
    found: dict[str, list] = {}
    for place in MAKERS[form]():
        text = (root / place).read_text("utf-8")
        if form == "cvat":
            for image in ElementTree.fromstring(text).iter("image"):
                found[image.get("name")] = [
                    (e.tag, dict(e.attrib), [(c.attrib, c.text) for c in e])
                    for e in image
                ]
            continue
        content = json.loads(text)
        if form == "labelme":
            found[content["imagePath"]] = content["shapes"]
        elif form == "label-studio":
            for each in content:
                name = each["data"]["image"].split("-")[-1]
                found[name] = each["annotations"][0]["result"]
        elif form == "datumaro":
            for each in content["items"]:
                found[f"{each['id']}.png"] = each["annotations"]
        else:
            for image in content["images"]:
                found[image["file_name"]] = [
                    a for a in content["annotations"] if a["image_id"] == image["id"]
                ]
    return found


def without_masks(root: Path, form: str) -> object:
    """All of a data set but the annotations."""
    rest = []
    for place in MAKERS[form]():
        text = (root / place).read_text("utf-8")
        if form == "cvat":
            tree = ElementTree.fromstring(text)
            for image in tree.iter("image"):
                image[:] = []
                image.text = None
            rest.append(ElementTree.tostring(tree))
            continue
        content = json.loads(text)
        if form == "labelme":
            content["shapes"] = 0
        elif form == "label-studio":
            for each in content:
                each["annotations"][0]["result"] = 0
        elif form == "datumaro":
            for each in content["items"]:
                each["annotations"] = 0
        else:
            content["annotations"] = 0
        rest.append(content)
    return rest


@pytest.fixture(params=SHAPES)
def form(request) -> str:
    return request.param


@pytest.fixture
def project(tmp_path: Path, form: str) -> Project:
    project = Project.create(tmp_path / "p")
    project.classes.add("mouse")  # as 1: not the id of the data sets
    source = open_source(data_set(tmp_path / "set", form), form)
    report = import_masks(project, source)
    assert sorted(report.labelled) == ["a", "b"]
    return project


def ids(project: Project) -> dict[str, int]:
    return {entry.name: entry.id for entry in project.classes}


def test_nothing_corrected_is_the_same_byte_by_byte(
    project: Project, tmp_path: Path, form: str
):
    out = came_back(project, tmp_path / "o")
    assert tree_of(out) == tree_of(tmp_path / "set")


def test_only_the_corrected_object_changes(project: Project, tmp_path: Path, form: str):
    labels = project.load_labels("a").copy()
    dog, cat = ids(project)["dog"], ids(project)["cat"]
    assert labels[7, 9] == dog
    labels[18:20, 8:18] = 0  # the lower end of the dog
    project.save_labels("a", labels, "edited")
    out = came_back(project, tmp_path / "o")
    before, after = records_of(tmp_path / "set", form), records_of(out, form)
    assert after["b.png"] == before["b.png"]
    assert len(after["a.png"]) == len(before["a.png"])
    differ = [i for i in range(4) if after["a.png"][i] != before["a.png"][i]]
    assert differ == [1]
    was, now = before["a.png"][1], after["a.png"][1]
    if form == "cvat":
        assert now[0] == "mask"
        assert now[2] == was[2]
        moved = {"rle", "left", "top", "width", "height"}
        assert {k: v for k, v in now[1].items() if k not in moved} == {
            k: v for k, v in was[1].items() if k not in moved
        }
    else:
        moved = {"points", "mask", "value", "rle", "segmentation", "area", "bbox"}
        assert {k: v for k, v in now.items() if k not in moved} == {
            k: v for k, v in was.items() if k not in moved
        }
    assert without_masks(out, form) == without_masks(tmp_path / "set", form)
    assert (cat, dog) != (0, 0)
    same(out, form, {"a": named(project, labels), "b": named(project, None)})


def named(project: Project, labels: np.ndarray | None, name: str = "b") -> np.ndarray:
    """Labels by the names of classes."""
    names = {i: n for n, i in ids(project).items()} | {0: "", 255: "?"}
    labels = project.load_labels(name) if labels is None else labels
    return np.vectorize(lambda i: names[int(i)], otypes=[object])(labels)


def same(out: Path, form: str, expected: dict[str, np.ndarray]) -> None:
    """What is imported of an export is what was to be written."""
    source = open_source(out, form)
    names = np.array(["", *(entry.name for entry in source.classes), "?"], object)
    found = {Path(p.path).stem: names[p.read_masks().places] for p in source.pictures}
    for name, labels in expected.items():
        there = found[name]
        wanted = (
            labels
            if form in ("labelme", *MASKS)
            else np.where(labels == "?", "", labels)
        )
        np.testing.assert_array_equal(there, wanted, err_msg=name)


def test_an_erased_object_is_gone_and_what_it_hid_stays_hidden(
    project: Project, tmp_path: Path, form: str
):
    labels = project.load_labels("b").copy()
    cat = ids(project)["cat"]
    labels[labels == cat] = 0
    project.save_labels("b", labels, "edited")
    out = came_back(project, tmp_path / "o")
    before, after = records_of(tmp_path / "set", form), records_of(out, form)
    assert after["a.png"] == before["a.png"]
    if form != "coco":  # which draws the smaller one above
        assert len(after["b.png"]) == len(before["b.png"]) - 2
    same(out, form, {"b": named(project, labels)})


def test_a_new_object_of_a_new_class(project: Project, tmp_path: Path, form: str):
    labels = project.load_labels("b").copy()
    labels[20:23, 3:9] = ids(project)["mouse"]
    labels[18, 20] = ids(project)["cat"]
    project.save_labels("b", labels, "edited")
    out = came_back(project, tmp_path / "o")
    before, after = records_of(tmp_path / "set", form), records_of(out, form)
    assert after["a.png"] == before["a.png"]
    assert after["b.png"][: len(before["b.png"])] == before["b.png"]
    assert len(after["b.png"]) == len(before["b.png"]) + 2
    same(out, form, {"b": named(project, labels)})


def test_another_class_keeps_id_and_attributes(
    project: Project, tmp_path: Path, form: str
):
    labels = project.load_labels("a").copy()
    island = ISLAND & (labels > 0)
    labels[island] = ids(project)["cat"]
    project.save_labels("a", labels, "edited")
    out = came_back(project, tmp_path / "o")
    before, after = records_of(tmp_path / "set", form), records_of(out, form)
    assert len(after["a.png"]) == len(before["a.png"])
    differ = [i for i in range(4) if after["a.png"][i] != before["a.png"][i]]
    assert differ == [2]
    same(out, form, {"a": named(project, labels)})


def test_a_merged_class_and_a_renamed_one(project: Project, tmp_path: Path, form: str):
    """A merge changes the class and no outline; a name here is no name there."""
    numbers = ids(project)
    project.classes.change(numbers["cat"], name="kitten")
    project.merge_classes(numbers["dog"], numbers["cat"])
    out = came_back(project, tmp_path / "o")
    found = open_source(out, form)
    for picture in found.pictures:
        masks = picture.read_masks()
        used = {found.classes[p - 1].name for p in np.unique(masks.places) if p > 0}
        assert used == {"cat"}
    before, after = records_of(tmp_path / "set", form), records_of(out, form)
    for name in ("a.png", "b.png"):
        assert len(before[name]) == len(after[name])
        for was, now in zip(before[name], after[name], strict=True):
            for key in ("points", "mask", "rle", "segmentation"):
                if form != "cvat":
                    assert was.get(key) == now.get(key)
                else:
                    assert was[1].get(key) == now[1].get(key)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_was_painted_is_what_is_read(
    project: Project, tmp_path: Path, form: str, seed: int
):
    random = np.random.default_rng(seed)
    expected = {}
    for name in PICTURES:
        labels = project.load_labels(name).copy()
        for _ in range(random.integers(1, 5)):
            top, left = random.integers(0, SIZE[0] - 3), random.integers(0, SIZE[1] - 3)
            height, width = random.integers(1, 12, 2)
            value = random.choice([0, 255, *ids(project).values()])
            labels[top : top + height, left : left + width] = value
        specks = random.random(SIZE) < 0.03
        labels[specks] = random.choice([0, *ids(project).values()], int(specks.sum()))
        project.save_labels(name, labels, "edited")
        expected[name] = named(project, labels)
    out = came_back(project, tmp_path / "o")
    same(out, form, expected)
    # and once more through a project
    again = Project.create(tmp_path / "again")
    import_masks(again, open_source(out, form))
    assert tree_of(came_back(again, tmp_path / "o2")) == tree_of(out)


@pytest.mark.parametrize("split", [None, Split(0.5, 0.5, 0.0)])
@pytest.mark.parametrize("form", MASKS)
@few
@given(st.integers(0, 2**32))
def test_masks_of_files(tmp_path_factory, form: str, split, seed: int):
    tmp_path = tmp_path_factory.mktemp("m")
    random = np.random.default_rng(seed)
    items = []
    for name in ("a", "b", "c"):
        labels = random.choice([0, 1, 2, 255], SIZE).astype(np.uint8)
        labels[:10, :10] = 1
        image = random.integers(0, 256, (*SIZE, 3), np.uint8)
        items.append(ExportItem(name, image, labels))
    if form == "voc":  # which holds 254 objects
        items = [
            ExportItem(
                i.name, i.image, np.kron(i.labels[:6, :8], np.ones((4, 4), "u1"))
            )
            for i in items
        ]
    root = tmp_path / "set"
    export_dataset(items, CLASSES, tmp_path / "first", [form], split=split)
    shutil.move(tmp_path / "first" / form, root)
    project = Project.create(tmp_path / "p")
    project.classes.add("mouse")
    import_masks(project, open_source(root, form))
    unchanged = came_back(project, tmp_path / "o")
    assert tree_of(unchanged) == tree_of(root)
    labels = project.load_labels("b").copy()
    top, left = random.integers(0, SIZE[0]), random.integers(0, SIZE[1])
    labels[top:, left:] = random.choice([0, 255, *ids(project).values()])
    project.save_labels("b", labels, "edited")
    out = came_back(project, tmp_path / "o2")
    same(out, form, {n: named(project, None, n) for n in "abc"})
    differ = [
        place for place, data in tree_of(root).items() if tree_of(out)[place] != data
    ]
    lists = {"classes.json", "labelmap.txt"}  # which may have got a mouse
    assert all(Path(place).stem == "b" or place in lists for place in differ)
    assert not any("mages" in place for place in differ)


def test_samples_of_elsewhere_are_left_out_and_said(
    project: Project, tmp_path: Path, form: str
):
    image = np.zeros((5, 5, 3), np.uint8)
    project.add_sample(image, name="mine")
    project.save_labels("mine", np.ones((5, 5), np.uint8), "edited")
    done = export_dataset(
        *(project.items(), project.label_classes(), tmp_path / "o", [AS_IMPORTED]),
        more=more_formats(project),
    )
    assert any("1 images" in note for note in done.notes)
    with pytest.raises(ValueError, match="none of these images was imported"):
        export_dataset(
            *(project.items(["mine"]), project.label_classes(), tmp_path / "x"),
            [AS_IMPORTED],
            more=more_formats(project),
        )
    assert not (tmp_path / "x").exists()


def test_pictures_that_moved_are_named_and_annotations_written(
    project: Project, tmp_path: Path, form: str
):
    before = records_of(tmp_path / "set", form)
    shutil.rmtree(tmp_path / "set")
    done = export_dataset(
        *(project.items(), project.label_classes(), tmp_path / "o", [AS_IMPORTED]),
        more=more_formats(project),
    )
    assert any("2 pictures" in note for note in done.notes)
    assert records_of(tmp_path / "o" / AS_IMPORTED, form) == before


def test_what_was_kept_and_then_damaged_is_named(
    project: Project, tmp_path: Path, form: str
):
    place = next(iter(MAKERS[form]()))
    (kept,) = (project.path / "imported").glob(f"*/files/{place}")
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(ValueError, match="import the data set again"):
        came_back(project, tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("damage", ["cut", "file", "about"])
def test_what_was_damaged_is_whole_when_the_data_set_is_imported_again(
    project: Project, tmp_path: Path, form: str, damage: str
):
    place = next(iter(MAKERS[form]()))
    (kept,) = (project.path / "imported").glob(f"*/files/{place}")
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:-9])
    elif damage == "file":
        kept.unlink()
    else:
        (about,) = (project.path / "imported").glob("*/about.json")
        about.unlink()
    import_masks(project, open_source(tmp_path / "set", form))  # labels are kept
    assert tree_of(came_back(project, tmp_path / "o")) == tree_of(tmp_path / "set")


def test_two_data_sets_in_one_project(tmp_path: Path):
    project = Project.create(tmp_path / "p")
    for form in ("cvat", "coco"):
        root = data_set(tmp_path / form, form)
        for name in PICTURES:  # of other names
            (root / f"images/{name}.png").rename(root / f"images/{form}{name}.png")
        for path in root.rglob("*.*"):
            if path.suffix in (".xml", ".json"):
                text = path.read_text("utf-8")
                for name in PICTURES:
                    text = text.replace(f'"{name}.png"', f'"{form}{name}.png"')
                path.write_text(text, "utf-8")
        import_masks(project, open_source(root, form))
    out = came_back(project, tmp_path / "o")
    for form in ("cvat", "coco"):
        assert tree_of(out / form) == tree_of(tmp_path / form)


def test_a_data_set_that_changed_since_is_another(tmp_path: Path):
    """Samples that stay as they were go back into the files that they came from."""
    root = data_set(tmp_path / "set", "coco")
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(root, "coco"))
    first = tree_of(root)
    path = root / "annotations/instances_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [ring(UNDER)]
    path.write_text(json.dumps(content))
    import_masks(project, open_source(root, "coco"))  # all are kept
    assert tree_of(came_back(project, tmp_path / "o")) == first
    import_masks(project, open_source(root, "coco"), overwrite=True)
    assert tree_of(came_back(project, tmp_path / "o2")) == tree_of(root)
    assert copy.copy(first) != tree_of(root)


def test_objects_of_a_project_with_polygons_only_are_polygons(tmp_path: Path):
    root = data_set(tmp_path / "set", "label-studio")
    path = root / "project-7.json"
    tasks = json.loads(path.read_text("utf-8"))
    for each in tasks:
        results = each["annotations"][0]["result"]
        results[:] = [r for r in results if r["type"] != "brushlabels"]
    path.write_text(json.dumps(tasks))
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(root, "label-studio"))
    labels = project.load_labels("a").copy()
    labels[18:22, 2:6] = labels[20, 10:13] = ids(project)["dog"]
    labels[5:7] = 0  # cuts the cat in two
    project.save_labels("a", labels, "edited")
    out = came_back(project, tmp_path / "o")
    results = records_of(out, "label-studio")["a.png"]
    assert {r["from_name"] for r in results} == {"pol", "rec"}
    assert len({r["id"] for r in results}) == len(results) == 5
    same(out, "label-studio", {"a": named(project, labels)})


def test_a_project_of_others_does_not_write_elsewhere(tmp_path: Path):
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(data_set(tmp_path / "set", "coco"), "coco"))
    text = (project.path / "project.json").read_text("utf-8")
    (project.path / "project.json").write_text(
        text.replace('"images/a.png"', '"../../a.png"')
    )
    with pytest.raises(ValueError, match="no place in a data set"):
        came_back(Project.open(project.path), tmp_path / "o")
    assert not (tmp_path / "a.png").exists()


def test_turned_pictures_are_turned_back(tmp_path: Path):
    """EXIF turns the picture; the masks of the data set are of its stored pixels."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(root / "images/a.jpg", exif=exif)
    mask = np.zeros(SIZE, np.uint8)
    mask[2:9, 3:20] = 3
    Image.fromarray(mask).save(root / "masks/a.png")
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(root, "indexed"))
    assert tree_of(came_back(project, tmp_path / "o")) == tree_of(root)
    labels = project.load_labels("a").copy()
    assert labels.shape == SIZE[::-1]
    labels[0, 0] = 3
    project.save_labels("a", labels, "edited")
    out = came_back(project, tmp_path / "o2")
    with Image.open(out / "masks/a.png") as written:
        differ = np.argwhere(np.asarray(written) != mask)
    assert differ.tolist() == [[SIZE[0] - 1, 0]]
