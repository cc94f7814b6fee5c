"""CVAT, LabelMe, Label Studio and Datumaro: what we write, and what others wrote."""

import base64
import json
import os
import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_ovam import ExportItem, LabelClass, export_dataset
from napari_ovam.datasets.exporters import Split
from napari_ovam.datasets.importers import UNSURE, ImportSourceError, open_source
from napari_ovam.datasets.mask_codes import (
    MaskCodeError,
    decode_brush,
    decode_png,
    decode_runs,
    encode_brush,
    encode_png,
    encode_runs,
)

FORMS = ("cvat", "labelme", "label-studio", "datumaro")
CLASSES = [
    LabelClass(2, "cat", (255, 0, 0)),
    LabelClass(9, 'a "hat" & <b>, ä', (0, 255, 10)),
    LabelClass(300, "sky", (1, 2, 3), thing=False),
    LabelClass(7, "never used"),
]
NAMES = [entry.name for entry in sorted(CLASSES, key=lambda entry: entry.id)]
SIZE = (20, 30)
few = settings(max_examples=20, deadline=None)


def item(name: str, labels: np.ndarray, **more: object) -> ExportItem:
    image = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), np.uint8)
    return ExportItem(name, image, labels, **more)


def random_labels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels with holes, islands and specks, and instances of several parts."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 24, 2)
    coarse = random.choice([0, 2, 9, 300, 255], (height // 3 + 1, width // 3 + 1))
    labels = np.kron(coarse, np.ones((3, 3), int))[:height, :width]
    specks = random.random(labels.shape) < 0.1
    labels[specks] = random.choice([0, 2, 9, 300, 255], int(specks.sum()))
    parts = random.integers(1, 4, labels.shape)
    inside = (labels > 0) & (labels != 255)
    instances = np.where(inside, labels * 4 + parts, 0)
    instances[labels == 300] = 1  # one region
    return labels, instances


def seen_by(masks, names) -> np.ndarray:
    """The class ids of what was imported."""
    ids = {entry.name: entry.id for entry in CLASSES}
    table = np.array([0, *(ids[name] for name in names), 255])
    return table[masks.places]


def same_objects(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = len(np.unique(np.stack([one, other], 1), axis=0))
    return pairs == len(np.unique(one)) == len(np.unique(other))


@pytest.mark.parametrize("form", FORMS)
@few
@given(st.integers(0, 2**32))
def test_what_is_written_comes_back(tmp_path_factory, form: str, seed: int):
    labels, instances = random_labels(seed)
    out = tmp_path_factory.mktemp("o") / "out"
    export_dataset(
        [item("a b", labels, instances=instances), item("ä.v2", labels)],
        *(CLASSES, out, [form]),
    )
    source = open_source(out / form, form)
    assert not source.problems
    names = [entry.name for entry in source.classes]
    if form != "labelme":  # it knows the classes that are used
        assert names == NAMES
        colors = {entry.name: entry.color for entry in source.classes}
        assert colors == {entry.name: entry.color for entry in CLASSES}
    wanted = labels if form == "labelme" else np.where(labels == 255, 0, labels)
    assert [Path(p.path).name for p in source.pictures] == ["a b.png", "ä.v2.png"]
    for picture in source.pictures:
        np.testing.assert_array_equal(picture.read_image().shape[:2], labels.shape)
        masks = picture.read_masks()
        assert not masks.problems
        np.testing.assert_array_equal(seen_by(masks, names), wanted)
        inside = (labels > 0) & (labels != 255)
        if picture.path.endswith("a b.png"):
            assert same_objects(masks.objects[inside], instances[inside])


@few
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_codes_are_exact(seed: int, share: float):
    random = np.random.default_rng(seed)
    mask = random.random(random.integers(1, 60, 2)) < share
    assert (decode_runs(encode_runs(mask), mask.shape) == mask).all()
    assert (decode_brush(encode_brush(mask), mask.shape) == mask).all()
    assert (decode_png(encode_png(mask), mask.size) == mask).all()


def test_codes_of_large_plain_masks():
    """Runs that are longer than the code has bits for."""
    for value in (False, True):
        mask = np.full((300, 400), value)
        assert (decode_brush(encode_brush(mask), mask.shape) == mask).all()
    literal = [0, 0, 0, 8, 58, 107, 240]  # as browsers write: 8 values, one by one
    code = np.packbits(
        [
            int(b)
            for b in f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
            + "000"
            + "111"
            + "".join(f"{v:08b}" for v in (1, 2, 3, 0, 1, 2, 3, 9))
        ]
    )
    assert literal  # two pixels, of which only the second is not transparent
    assert decode_brush(code.tolist(), (1, 2)).tolist() == [[False, True]]


@pytest.mark.parametrize(
    "code", [[], [0] * 10, encode_brush(np.eye(3) > 0)[:-3], "text", [300], [-1]]
)
def test_broken_brushes_are_named(code: object):
    with pytest.raises(MaskCodeError):
        decode_brush(code, (3, 3))


@pytest.mark.parametrize("side", [1000, 10_000, 20_000])
def test_a_png_that_unpacks_to_too_much_is_named(side: int):
    code = BytesIO()
    Image.new("1", (side, side)).save(code, "PNG")
    with pytest.raises(MaskCodeError, match="larger than its picture"):
        decode_png(base64.b64encode(code.getvalue()).decode(), 100)


@pytest.mark.parametrize("form", FORMS)
def test_splits_stay_apart(tmp_path: Path, form: str):
    labels = np.zeros(SIZE, int)
    labels[3:9, 4:8] = 2
    items = [item(f"p{i}", labels) for i in range(6)]
    out = export_dataset(
        *(items, CLASSES, tmp_path / "o", [form]), split=Split(0.5, 0.3, 0.2)
    )
    source = open_source(out / form, form)
    assert len(source.pictures) == 6
    for picture in source.pictures:
        assert (
            seen_by(picture.read_masks(), [c.name for c in source.classes]) == labels
        ).all()
    text = " ".join(
        [p.as_posix() for p in (out / form).rglob("*.*")]
        + [p.read_text("utf-8") for p in (out / form).glob("*.xml")]
    )
    assert "train" in text
    assert "val" in text


@pytest.mark.parametrize("form", FORMS)
def test_names_that_a_format_cannot_hold_are_refused(tmp_path: Path, form: str):
    if form == "datumaro":
        pytest.skip("JSON holds any name")
    labels = np.ones(SIZE, int)
    with pytest.raises(ValueError, match="rename"):
        export_dataset(
            *([item("a", labels)], [LabelClass(1, "a\x00b")], tmp_path / "o", [form])
        )
    assert not (tmp_path / "o").exists()


def test_unsure_pixels_are_counted_and_labelme_holds_them(tmp_path: Path):
    labels = np.zeros(SIZE, int)
    labels[1, 2] = labels[5:7, 5:9] = 255
    out = export_dataset([item("a", labels)], CLASSES, tmp_path / "o", FORMS)
    for form in FORMS:
        about = json.loads((out / form / "ovam.json").read_text("utf-8"))
        assert about["items"][0]["ignore_pixels"] == 9
    masks = open_source(out / "labelme", "labelme").pictures[0].read_masks()
    assert ((masks.places == UNSURE) == (labels == 255)).all()


# what others write

OUTER = [(2, 2), (12, 2), (12, 10), (2, 10)]
STAR = [(2, 2), (12, 10), (12, 2), (2, 10)]  # crosses itself


def picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(path.name.encode()[:4], "big")
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def cvat(*images: str, labels: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><task><labels>{labels}</labels></task></meta>{''.join(images)}"
        "</annotations>"
    )


def cvat_image(name: str, *shapes: str, size: tuple[int, int] = SIZE) -> str:
    return (
        f'<image id="0" name="{name}" width="{size[1]}" height="{size[0]}">'
        f"{''.join(shapes)}</image>"
    )


def cvat_polygon(points: list, label: str = "cat", **more: object) -> str:
    text = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
    about = "".join(f' {k}="{v}"' for k, v in more.items())
    return f'<polygon label="{label}" occluded="0" points="{text}"{about}></polygon>'


def read_one(folder: Path, form: str):
    source = open_source(folder, form)
    assert len(source.pictures) == 1
    return source, source.pictures[0].read_masks()


def test_cvat_polygons_lie_as_z_order_says_and_groups_are_one(tmp_path: Path):
    picture(tmp_path / "images/a.png")
    shapes = [
        cvat_polygon([(4, 4), (8, 4), (8, 8), (4, 8)], "dog", z_order=1),
        cvat_polygon(OUTER, z_order=0, group_id=3),
        cvat_polygon([(20, 2), (24, 2), (24, 6), (20, 6)], group_id=3),
        cvat_polygon([(20, 12), (24, 12), (24, 16), (20, 16)]),
        '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="5"></box>',
        '<ellipse label="cat" cx="1" cy="1" rx="5" ry="5"></ellipse>',
        '<tag label="dog" source="manual"></tag>',
    ]
    (tmp_path / "annotations.xml").write_text(cvat(cvat_image("a.png", *shapes)))
    source, masks = read_one(tmp_path, "cvat")
    names = [entry.name for entry in source.classes]
    dog, cat = names.index("dog") + 1, names.index("cat") + 1
    expected = np.zeros(SIZE, int)
    expected[2:10, 2:12] = cat
    expected[4:8, 4:8] = dog
    expected[2:6, 20:24] = expected[12:16, 20:24] = cat
    np.testing.assert_array_equal(masks.places, expected)
    objects = masks.objects
    assert objects[2, 2] == objects[3, 21] != objects[13, 21]
    said = " ".join(masks.problems)
    assert "1 boxes" in said
    assert "1 ellipses" in said
    assert "1 tags" in said


@pytest.mark.parametrize("form", FORMS)
def test_polygons_that_cross_themselves_are_named(tmp_path: Path, form: str):
    write_polygons(tmp_path, form, [STAR])
    _, masks = read_one(tmp_path, form)
    assert any("crosses itself" in said for said in masks.problems)
    assert (masks.places > 0).any()
    assert not masks.places[:, 13:].any()


def write_polygons(folder: Path, form: str, polygons: list, size=SIZE) -> Path:
    """A data set of one picture with polygons of "cat"."""
    height, width = size
    picture(folder / "a.png", size)
    flat = [[float(v) for point in each for v in point] for each in polygons]
    if form == "cvat":
        file = folder / "annotations.xml"
        shapes = [cvat_polygon(each) for each in polygons]
        file.write_text(cvat(cvat_image("a.png", *shapes, size=size)))
        return file
    if form == "labelme":
        file = folder / "a.json"
        content = {
            "version": "5.4.1",
            "flags": {},
            "shapes": [
                {"label": "cat", "points": each, "group_id": None, "flags": {}}
                for each in polygons
            ],
            "imagePath": "a.png",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
    elif form == "label-studio":
        file = folder / "tasks.json"
        results = [
            {
                "id": f"r{number}",
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "points": [[100 * x / width, 100 * y / height] for x, y in each],
                    "closed": True,
                    "polygonlabels": ["cat"],
                },
            }
            for number, each in enumerate(polygons)
        ]
        content = [
            {
                "id": 1,
                "data": {"image": "/data/upload/3/0123abcd-a.png"},
                "annotations": [{"id": 5, "result": results}],
            }
        ]
    else:
        file = folder / "annotations/default.json"
        file.parent.mkdir(exist_ok=True)
        content = {
            "categories": {"label": {"labels": [{"name": "cat"}]}},
            "items": [
                {
                    "id": "a",
                    "image": {"path": "a.png", "size": [height, width]},
                    "annotations": [
                        {"id": i, "type": "polygon", "label_id": 0, "points": each}
                        for i, each in enumerate(flat)
                    ],
                }
            ],
        }
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize("form", FORMS)
def test_polygons_are_read(tmp_path: Path, form: str):
    write_polygons(tmp_path, form, [OUTER])
    source, masks = read_one(tmp_path, form)
    expected = np.zeros(SIZE, int)
    expected[2:10, 2:12] = 1
    np.testing.assert_array_equal(masks.places, expected)
    assert [entry.name for entry in source.classes] == ["cat"]
    assert source.pictures[0].file == tmp_path / "a.png"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "bad",
    [
        [(1e300, 2), (3, 1e300), (5, 5)],
        [(float("nan"), 2), (3, 4), (5, 5)],
        [(3, 3), (5, 5)],
        [(100, 100), (110, 100), (110, 110)],
    ],
)
def test_one_bad_shape_among_good_ones_is_named(tmp_path: Path, form: str, bad: list):
    write_polygons(tmp_path, form, [OUTER, bad])
    _, masks = read_one(tmp_path, form)
    assert len(masks.problems) == 1
    assert masks.places[3, 3] == 1


@pytest.mark.parametrize("form", FORMS)
def test_files_that_are_cut_off_or_of_others_are_named(tmp_path: Path, form: str):
    file = write_polygons(tmp_path, form, [OUTER])
    whole = file.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        b"",
        b"\x00\xff\xfe\x01",
        b"[]",
        b"{}",
        b"[1, 2]",
        b"null",
        b"<html></html>",
        b"<annotations></annotations>",
        b"[" * 100_000,
        b"<a>" * 100_000,
        b'{"shapes": 3, "items": 4, "categories": []}',
    ):
        file.write_bytes(content)
        with pytest.raises(ImportSourceError, match=re.escape(str(tmp_path))):
            open_source(tmp_path, form)


def test_xml_with_entities_is_refused(tmp_path: Path):
    picture(tmp_path / "a.png")
    laughs = "".join(
        f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(10)
    )
    text = f"<!DOCTYPE lolz [{laughs}]>" + cvat(cvat_image("&l9;.png")).split("?>")[1]
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(ImportSourceError, match="document type"):
        open_source(tmp_path, "cvat")
    (tmp_path / "a.xml").write_text(text, "utf-16")
    with pytest.raises(ImportSourceError, match="document type"):
        open_source(tmp_path, "cvat")


def test_files_that_are_too_large_are_named(tmp_path: Path, monkeypatch):
    from napari_ovam.datasets.importers import annotated

    write_polygons(tmp_path, "labelme", [OUTER])
    monkeypatch.setattr(annotated, "LARGEST_FILE", 100)
    with pytest.raises(ImportSourceError, match="limit"):
        open_source(tmp_path, "labelme")


def test_a_cvat_task_of_mixed_sizes(tmp_path: Path):
    sizes = {"a.png": (20, 30), "b.png": (31, 17), "c.png": (5, 5)}
    for name, size in sizes.items():
        picture(tmp_path / name, size)
    images = [
        cvat_image(name, cvat_polygon([(0, 0), (3, 0), (3, 3), (0, 3)]), size=size)
        for name, size in sizes.items()
    ]
    # the task says another size of this one than the picture has
    images[2] = images[2].replace('width="5"', 'width="50"')
    (tmp_path / "annotations.xml").write_text(cvat(*images))
    source = open_source(tmp_path, "cvat")
    shapes = [p.read_masks().places.shape for p in source.pictures]
    assert shapes == [(20, 30), (31, 17), (5, 50)]


def test_cvat_videos_are_named(tmp_path: Path):
    (tmp_path / "a.xml").write_text(cvat('<track id="0" label="cat"></track>'))
    with pytest.raises(ImportSourceError, match="CVAT for images"):
        open_source(tmp_path, "cvat")


def test_more_classes_than_ids_are_refused(tmp_path: Path):
    picture(tmp_path / "a.png")
    labels = "".join(f"<label><name>c{i}</name></label>" for i in range(65_600))
    shape = cvat_polygon(OUTER, "c1")
    (tmp_path / "a.xml").write_text(cvat(cvat_image("a.png", shape), labels=labels))
    with pytest.raises(ImportSourceError, match="65600 classes"):
        open_source(tmp_path, "cvat")


def test_a_picture_of_which_nothing_is_a_mask_is_no_background(tmp_path: Path):
    picture(tmp_path / "a.png")
    box = '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="5"></box>'
    (tmp_path / "a.xml").write_text(cvat(cvat_image("a.png", box)))
    with pytest.raises(ImportSourceError, match="1 boxes are no masks"):
        open_source(tmp_path, "cvat").pictures[0].read_masks()


# LabelMe


def labelme(folder: Path, name: str = "a", **more: object) -> dict:
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": [{"label": "cat", "points": OUTER, "shape_type": "polygon"}],
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))
    return content


def test_labelme_takes_pictures_from_where_they_are(tmp_path: Path):
    """Beside it, where the path says, and in the file."""
    picture(tmp_path / "images/a.png")
    labelme(tmp_path / "labels", "a", imagePath="..\\images\\a.png")
    picture(tmp_path / "labels/b.jpg")
    labelme(tmp_path / "labels", "b", imagePath="C:\\me\\pictures\\b.png")
    pixels = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    code = BytesIO()
    Image.fromarray(pixels).save(code, "PNG")
    data = base64.b64encode(code.getvalue()).decode()
    labelme(tmp_path / "labels", "c", imageData=data)
    source = open_source(tmp_path, "labelme")
    a, b, c = source.pictures
    assert a.file == tmp_path / "images/a.png"
    assert b.file == tmp_path / "labels/b.jpg"
    np.testing.assert_array_equal(c.read_image(), pixels)


def test_labelme_groups_ignored_and_background_shapes(tmp_path: Path):
    picture(tmp_path / "a.png")
    far = [(20, 2), (24, 2), (24, 6), (20, 6)]
    hole = [(4, 4), (8, 4), (8, 8), (4, 8)]
    shapes = [
        {"label": "cat", "points": OUTER, "group_id": 0},
        {"label": "cat", "points": far, "group_id": 0},
        {"label": "_background_", "points": hole},
        {"label": "__ignore__", "points": [(0, 12), (30, 12), (30, 14), (0, 14)]},
        {"label": "cat", "points": [(1, 1)], "shape_type": "point"},
    ]
    labelme(tmp_path, shapes=shapes)
    _, masks = read_one(tmp_path, "labelme")
    assert (masks.places[4:8, 4:8] == 0).all()
    assert (masks.places[12:14] == UNSURE).all()
    assert masks.objects[2, 2] == masks.objects[3, 21] > 0
    assert masks.problems == ("1 shapes of the kind 'point' are no masks",)


def test_two_jsons_of_one_picture_are_named(tmp_path: Path):
    picture(tmp_path / "a.png")
    labelme(tmp_path, "a")
    labelme(tmp_path, "b", imagePath="a.png")
    source = open_source(tmp_path, "labelme")
    assert all(p.file is None for p in source.pictures)


# Label Studio


def task(**more: object) -> dict:
    mask = np.zeros(SIZE, bool)
    mask[3:6, 4:9] = True
    result = {
        "id": "abc",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["cat"]},
    }
    return {
        "id": 1,
        "data": {"image": "/data/upload/1/0a1b2c3d-a%20b.png"},
        "annotations": [{"id": 1, "result": [result]}],
        **more,
    }


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/0a1b2c3d-a%20b.png",
        "/data/upload/0a1b2c3d-a%20b.png",
        "/data/local-files/?d=pictures/a%20b.png",
        "s3://bucket/pictures/a%20b.png",
        "https://host:8080/pictures/a%20b.png?token=1",
        "a b.png",
        "0a1b2c3d-a b.png",
    ],
)
def test_addresses_of_label_studio(tmp_path: Path, address: str):
    picture(tmp_path / "pictures/a b.png")
    (tmp_path / "t.json").write_text(json.dumps([task(data={"image": address})]))
    source, masks = read_one(tmp_path, "label-studio")
    assert source.pictures[0].file == tmp_path / "pictures/a b.png"
    assert (masks.places == 1).sum() == 15


def test_label_studio_takes_annotations_before_predictions(tmp_path: Path):
    picture(tmp_path / "a b.png")
    good, other = task()["annotations"][0]["result"], task()["annotations"][0]["result"]
    other[0]["value"]["brushlabels"] = ["dog"]
    for about, label, said in (
        ({"predictions": [{"result": other}]}, "cat", False),
        ({"annotations": [], "predictions": [{"result": other}]}, "dog", True),
        (
            {
                "annotations": [
                    {"result": other, "ground_truth": True},
                    {"result": good},
                ]
            },
            "dog",
            False,
        ),
        (
            {
                "annotations": [
                    {"result": good},
                    {"result": other, "was_cancelled": True},
                ]
            },
            "cat",
            False,
        ),
    ):
        (tmp_path / "t.json").write_text(json.dumps([task(**about)]))
        source, masks = read_one(tmp_path, "label-studio")
        assert source.classes[masks.places.max() - 1].name == label
        assert any("predictions" in note for note in source.notes) == said


def test_label_studio_without_geometry_is_refused(tmp_path: Path):
    content = [{"image": "/data/upload/a.png", "id": 1, "tag": [{"rle": [1]}]}]
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(ImportSourceError, match="JSON-MIN"):
        open_source(tmp_path, "label-studio")


def test_turned_pictures_and_unknown_kinds_of_label_studio_are_named(tmp_path: Path):
    picture(tmp_path / "a b.png")
    content = task()
    results = content["annotations"][0]["result"]
    results.append({**results[0], "id": "r", "image_rotation": 90})
    results.append({"id": "c", "type": "choices", "value": {"choices": ["x"]}})
    (tmp_path / "t.json").write_text(json.dumps([content]))
    _, masks = read_one(tmp_path, "label-studio")
    said = " ".join(masks.problems)
    assert "turned picture" in said
    assert "'choices'" in said


# the places


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="POSIX has such rights")
@pytest.mark.parametrize("form", FORMS)
def test_a_place_that_can_only_be_read_is_left_alone(tmp_path: Path, form: str):
    was = os.geteuid()
    tmp_path.chmod(0o555)
    if was == 0:  # who may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            export_dataset(
                *([item("a", np.ones(SIZE, int))], [LabelClass(1, "x")]),
                *(tmp_path / "o", [form]),
            )
    finally:
        os.seteuid(was)
        tmp_path.chmod(0o755)
    assert not list(tmp_path.iterdir())


def test_cvat_writes_what_its_documentation_says(tmp_path: Path):
    labels = np.zeros(SIZE, int)
    labels[3, 4] = labels[3, 6] = labels[4, 4:7] = 2
    out = export_dataset([item("a", labels)], CLASSES, tmp_path / "o", ["cvat"])
    tree = ElementTree.parse(out / "cvat/annotations.xml").getroot()
    assert tree.findtext("version") == "1.1"
    mask = tree.find("image/mask")
    about = {"left": "4", "top": "3", "width": "3", "height": "2"}
    assert {key: mask.get(key) for key in about} == about
    assert mask.get("rle") == "0, 1, 1, 4"
    assert [n.text for n in tree.iterfind("meta/task/labels/label/name")] == NAMES


def test_pictures_of_one_name_in_two_subsets_of_cvat(tmp_path: Path):
    images = []
    for subset, points in (("train", OUTER), ("val", [(0, 0), (3, 0), (3, 3)])):
        picture(tmp_path / f"images/{subset}/a.png")
        image = cvat_image("a.png", cvat_polygon(points))
        images.append(image.replace("<image", f'<image subset="{subset}"'))
    (tmp_path / "annotations.xml").write_text(cvat(*images))
    source = open_source(tmp_path, "cvat")
    found = {p.path: int((p.read_masks().places > 0).sum()) for p in source.pictures}
    assert found["images/train/a.png"] == 80
    assert found["images/val/a.png"] < 10
