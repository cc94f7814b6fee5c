"""Each format, read back as its readers do.

Readers that this project did not write: Pillow, scikit-image, pycocotools, PyYAML, and
where they are installed `datasets` and cv2. Where a format has no reader here, its
public rule is written out in the test: panoptic ids, VOC colours, nnU-Net file names,
the cut and fill of YOLO.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
import yaml
import zarr
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from skimage.draw import polygon as inside
from skimage.measure import label as connected
from typer.testing import CliRunner

from napari_ovam import ExportItem, LabelClass, export_dataset
from napari_ovam.cli import app
from napari_ovam.datasets.exporters import FORMATS, ExportError, Split, yolo_seg
from napari_ovam.datasets.exporters.polygons import fill, outlines
from napari_ovam.images.zarr_stores import StoreError
from napari_ovam.project import Project

CLASSES = [
    LabelClass(2, "cat", (255, 0, 0)),
    LabelClass(7, "never used"),
    LabelClass(9, 'a, "hat"\'s / ../\\ 🐱 {x} # 100%', (0, 255, 0)),
    LabelClass(254, "n" * 300),
]
NAMES = [entry.name for entry in CLASSES]
IDS = [entry.id for entry in CLASSES]
RNG = np.random.default_rng(0)


def item(name: str, labels: np.ndarray, split: str = "") -> ExportItem:
    image = RNG.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    return ExportItem(name, image, labels, split)


def items() -> list[ExportItem]:
    """Holes, islands, thin and one-pixel objects, ignored pixels; not square."""
    rings = np.zeros((21, 34), np.uint8)
    rings[2:18, 2:20] = 2
    rings[4:6, 4:6] = rings[5:15, 8:15] = 0  # two holes
    rings[7:12, 9:13] = 9  # an island in one
    rings[9, 10] = 2  # one pixel in the island
    rings[0, 33] = rings[20, 0] = 254
    rings[20, 8:30] = rings[4:15, 32] = 9  # thin, at the border
    rings[6, 6] = rings[16, 17] = 0  # a hole that touches another by a corner
    rings[8:10, 22:28] = 255
    rings[8, 23] = 2
    diagonal = np.eye(12, dtype=np.int64) * 9
    diagonal[0, 11] = 2
    diagonal[1:3, 9:11] = np.eye(2) * 2
    arrays = {
        "rings": rings,
        "ein Kätzchen 🐱 (2)": diagonal,
        "test": np.full((7, 5), 254, np.uint8),
        "empty": np.zeros((6, 4), np.int32),
        "unsure": np.full((3, 3), 255, np.uint8),
        "noise.v2": RNG.choice(np.array([0, 2, 9, 254, 255], np.uint16), (17, 16)),
    }
    return [item(name, labels) for name, labels in arrays.items()]


def visible(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 255, 0, labels)


def read_png(path: Path, mode: str) -> np.ndarray:
    with Image.open(path) as png:
        assert png.mode == mode
        return np.asarray(png)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


# coco-panoptic


def read_panoptic(folder: Path, split: str = "") -> dict[str, np.ndarray]:
    """The panoptic format's rule: id = R + 256 G + 65536 B, 0 is void."""
    content = read_json(folder / f"panoptic{split}.json")
    images = {image["id"]: image for image in content["images"]}
    classes = {c["id"] for c in content["categories"]}
    found = {}
    for annotation in content["annotations"]:
        rgb = read_png(folder / f"panoptic{split}" / annotation["file_name"], "RGB")
        ids = rgb.astype(int) @ [1, 256, 65536]
        segments = {s["id"]: s for s in annotation["segments_info"]}
        assert {*np.unique(ids)} - {0} == {*segments}
        labels = np.zeros(ids.shape, int)
        for number, segment in segments.items():
            mask = ids == number
            code = rle.encode(np.asfortranarray(mask, np.uint8))
            assert segment["area"] == rle.area(code)
            assert segment["bbox"] == rle.toBbox(code).tolist()
            assert segment["iscrowd"] == 0
            assert segment["category_id"] in classes
            labels[mask] = segment["category_id"]
        image = images[annotation["image_id"]]
        assert labels.shape == (image["height"], image["width"])
        assert (folder / "images" / image["file_name"]).is_file()
        found[Path(image["file_name"]).stem] = labels
    assert len(found) == len(images)
    return found


def test_panoptic_ids_decode_to_the_labels_without_ignored_pixels(tmp_path):
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "o", ["coco-panoptic"])
    found = read_panoptic(out / "coco-panoptic")
    assert list(found) == [each.name for each in data]
    for each in data:
        np.testing.assert_array_equal(found[each.name], visible(each.labels))
    content = read_json(out / "coco-panoptic/panoptic.json")
    assert [c["name"] for c in content["categories"]] == NAMES
    assert all(len(c["color"]) == 3 for c in content["categories"])
    ignored = [image["ignore_pixels"] for image in content["images"]]
    assert ignored == [(each.labels == 255).sum() for each in data]


def test_panoptic_things_are_parts_and_stuff_is_one_region(tmp_path):
    labels = np.zeros((40, 41), int)
    labels[::2, ::2] = 1  # 420 parts: ids that need the second byte
    labels[1::2, 1] = 2
    classes = [LabelClass(1, "star"), LabelClass(2, "sky", thing=False)]
    out = export_dataset(
        [item("a", labels)], classes, tmp_path / "o", ["coco-panoptic"]
    )
    np.testing.assert_array_equal(read_panoptic(out / "coco-panoptic")["a"], labels)
    content = read_json(out / "coco-panoptic/panoptic.json")
    assert [c["isthing"] for c in content["categories"]] == [1, 0]
    (annotation,) = content["annotations"]
    counts = Counter(s["category_id"] for s in annotation["segments_info"])
    assert counts == {1: 420, 2: 1}


# voc


def read_voc(folder: Path, name: str) -> np.ndarray:
    """Read by colour, as tools with a labelmap do."""
    rows = [
        line.split(":")
        for line in (folder / "labelmap.txt").read_text("utf-8").split("\n")
    ]
    labelmap = {row[1]: row[0] for row in rows if len(row) == 4 and row[0][0] != "#"}
    ids = {"background": 0, "ignored": 255} | dict(zip(NAMES, IDS, strict=True))
    colors = skimage.io.imread(folder / "SegmentationClass" / f"{name}.png")
    assert colors.shape[2] == 3
    return np.array(
        [[ids[labelmap[",".join(map(str, c))]] for c in row] for row in colors.tolist()]
    )


def test_voc_masks_hold_the_labels_as_ids_and_as_colours(tmp_path):
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "o", ["voc"]) / "voc"
    lists = out / "ImageSets/Segmentation"
    assert {path.name for path in lists.iterdir()} == {"train.txt", "trainval.txt"}
    names = (lists / "train.txt").read_text("utf-8").splitlines()
    assert names == [each.name for each in data]
    for each in data:
        pixels = read_png(out / "SegmentationClass" / f"{each.name}.png", "P")
        np.testing.assert_array_equal(pixels, each.labels)
        np.testing.assert_array_equal(read_voc(out, each.name), each.labels)
        image = read_png(out / "JPEGImages" / f"{each.name}.jpg", "RGB")
        assert image.shape == each.image.shape


def test_voc_palette_is_that_of_pascal_voc(tmp_path):
    out = export_dataset(items()[:1], CLASSES, tmp_path / "o", ["voc"]) / "voc"
    with Image.open(out / "SegmentationClass/rings.png") as png:
        colors = np.array(png.getpalette()).reshape(-1, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 8: (64, 0, 0), 15: (192, 128, 128)}
    known |= {20: (0, 64, 128), 255: (224, 224, 192)}
    assert {i: tuple(colors[i]) for i in known} == known


def test_voc_objects_are_the_connected_parts(tmp_path):
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "o", ["voc"]) / "voc"
    for each in data:
        objects = read_png(out / "SegmentationObject" / f"{each.name}.png", "P")
        np.testing.assert_array_equal(objects == 255, each.labels == 255)
        np.testing.assert_array_equal(objects == 0, each.labels == 0)
        expected = 0
        for i in IDS:
            parts = connected(each.labels == i, connectivity=2)
            expected += parts.max()
            for part in range(1, parts.max() + 1):
                (number,) = np.unique(objects[parts == part])
                assert (objects == number).sum() == (parts == part).sum()
        assert len({*np.unique(objects)} - {0, 255}) == expected


def test_voc_jpegs_look_like_the_images(tmp_path):
    ramp = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 4, 90, 255), -1)
    image = np.broadcast_to(ramp, (64, 64, 3)).astype(np.uint8)
    data = [ExportItem("a", image, np.zeros((64, 64), int))]
    out = export_dataset(data, [], tmp_path / "o", ["voc"])
    found = read_png(out / "voc/JPEGImages/a.jpg", "RGB").astype(int)
    assert abs(found - image).max() <= 4


def test_voc_refuses_more_objects_than_it_holds(tmp_path):
    labels = np.zeros((32, 32), int)
    labels[::2, ::2] = 2
    with pytest.raises(ValueError, match=r"'specks' has 256 connected parts.*254"):
        export_dataset([item("specks", labels)], CLASSES, tmp_path / "o", ["voc"])
    labels[0, :4] = labels[2, 0] = 0  # 253 of them, and one of another class
    labels[0, 0] = 9
    export_dataset([item("specks", labels)], CLASSES, tmp_path / "o", ["voc"])


@pytest.mark.parametrize(
    "name", ["a:b", "#cat", "a\nb", " cat", "background", "ignored"]
)
def test_voc_refuses_names_that_its_labelmap_cannot_hold(tmp_path, name):
    with pytest.raises(ValueError, match=re.escape(repr(name)) + ".*rename"):
        export_dataset(items(), [LabelClass(1, name)], tmp_path / "o", ["voc"])
    assert not list(tmp_path.iterdir())


def test_voc_refuses_item_names_that_readers_strip(tmp_path):
    data = [item(" a", np.zeros((2, 2), int))]
    with pytest.raises(ValueError, match="' a' starts with a space"):
        export_dataset(data, [], tmp_path / "o", ["voc"])


# yolo


def read_yolo(path: Path, shape: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
    """Lines of a class and x y pairs from 0 to 1; fewer than 3 points are a box."""
    height, width = shape
    polygons = []
    for line in path.read_text("utf-8").splitlines():
        index, *numbers = line.split()
        points = np.array(numbers, np.float32).reshape(-1, 2)
        assert len(points) >= 3
        assert points.min() >= 0
        assert points.max() <= 1
        assert (np.ptp(points, axis=0) > 0).all()  # trainers drop boxes without area
        polygons.append((int(index), points * np.array([width, height], np.float32)))
    return polygons


def draw_cut(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """YOLO's own rule: cut to whole pixels, then fill with the border."""
    canvas = Image.new("L", shape[::-1])
    corners = [tuple(point) for point in points.astype(int).tolist()]
    ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=1)
    return np.asarray(canvas) == 1


def draw_centres(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[inside(points[:, 1] - 0.5, points[:, 0] - 0.5, shape)] = True
    return mask


def draw_coco(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    codes = rle.frPyObjects([points.ravel().tolist()], *shape)
    return rle.decode(rle.merge(codes)) == 1


def draw_cv2(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    cv2 = pytest.importorskip("cv2")
    canvas = np.zeros(shape, np.uint8)
    return cv2.fillPoly(canvas, [points.astype(np.int32)], 1) == 1


@pytest.mark.parametrize("draw", [draw_cut, draw_centres, draw_coco, draw_cv2])
def test_yolo_polygons_draw_the_labels(tmp_path, draw):
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "o", ["yolo-seg"]) / "yolo-seg"
    count = 0
    for each in data:
        shape = each.labels.shape
        image = read_png(out / "images/train" / f"{each.name}.png", "RGB")
        np.testing.assert_array_equal(image, each.image)
        drawn = np.zeros(shape, int)
        for index, points in read_yolo(out / f"labels/train/{each.name}.txt", shape):
            mask = draw(points, shape)
            assert not drawn[mask].any()
            drawn[mask] = IDS[index]
            count += 1
        np.testing.assert_array_equal(drawn, visible(each.labels))
    report = read_json(out / "report.json")
    assert report["lowest_iou"] == 1.0
    assert report["polygons"] == count
    assert report["ignore_pixels"] == sum((e.labels == 255).sum() for e in data)


@pytest.mark.parametrize("seed", range(30))
def test_polygons_of_any_mask_draw_the_mask(seed):
    random = np.random.default_rng(seed)
    mask = random.random(random.integers(1, 30, 2)) < random.uniform(0.05, 0.95)
    height, width = mask.shape
    drawn = {draw: np.zeros(mask.shape, bool) for draw in (fill, draw_cut, draw_coco)}
    parts = 0
    for points in outlines(mask):
        parts += 1
        assert points.min() > 0
        assert (points < (width, height)).all()
        for draw, found in drawn.items():
            found |= draw(points, mask.shape)
    assert parts == connected(mask, connectivity=2).max()
    for found in drawn.values():
        np.testing.assert_array_equal(found, mask)


def test_the_lowest_iou_of_polygons_is_reported(tmp_path, monkeypatch):
    labels = np.zeros((8, 8), int)
    labels[1:4, 1:4] = 2
    labels[6, 6] = 2  # lost below
    monkeypatch.setattr(yolo_seg, "outlines", lambda mask: list(outlines(mask))[:1])
    data = [item("good", np.full((4, 4), 9)), item("bad", labels)]
    out = export_dataset(data, CLASSES, tmp_path / "o", ["yolo-seg"])
    report = read_json(out / "yolo-seg/report.json")
    assert report["lowest_iou"] == pytest.approx(9 / 10)
    assert (report["image"], report["class"]) == ("bad", "cat")


def test_yolo_without_objects_reports_no_iou(tmp_path):
    data = [item("empty", np.zeros((4, 4), int))]
    out = export_dataset(data, CLASSES, tmp_path / "o", ["yolo-seg"]) / "yolo-seg"
    assert (out / "labels/train/empty.txt").read_bytes() == b""
    assert read_json(out / "report.json")["lowest_iou"] is None


def test_yolo_yaml_names_classes_from_zero(tmp_path):
    odd = LabelClass(20, 'tab\t line\u2028 sep\n "q" \\ \x7f 👩\u200d🚀')
    classes = [*CLASSES, odd]
    out = export_dataset(
        items(), classes, tmp_path / "o", ["yolo-seg", "yolo-semantic"]
    )
    names = [c.name for c in sorted(classes, key=lambda c: c.id)]
    content = yaml.safe_load((out / "yolo-seg/data.yaml").read_text("utf-8"))
    assert content["names"] == dict(enumerate(names))
    # Both keys are required; no path, so that readers take the file's own folder.
    assert (content["train"], content["val"]) == ("images/train", "images/train")
    assert "path" not in content
    content = yaml.safe_load((out / "yolo-semantic/data.yaml").read_text("utf-8"))
    assert content["names"] == dict(enumerate(["background", *names]))
    assert content["masks_dir"] == "masks"


def test_yolo_semantic_masks_hold_the_place_of_each_class(tmp_path):
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "o", ["yolo-semantic"])
    out /= "yolo-semantic"
    values = np.array([0, *IDS])
    for each in data:
        pixels = read_png(out / "masks/train" / f"{each.name}.png", "L")
        assert (out / "images/train" / f"{each.name}.png").is_file()
        np.testing.assert_array_equal(pixels == 255, each.labels == 255)
        decoded = values[np.where(pixels == 255, 0, pixels)]
        np.testing.assert_array_equal(decoded, visible(each.labels))


# nnunet


def read_nnunet(folder: Path, part: str = "Tr") -> dict[str, np.ndarray]:
    """Cases are images less `_0000.png`; consecutive labels, the ignore label last."""
    content = read_json(folder / "dataset.json")
    assert content["file_ending"] == ".png"
    labels = content["labels"]
    assert sorted(labels.values()) == list(range(len(labels)))
    assert labels["background"] == 0
    assert labels.get("ignore", max(labels.values())) == max(labels.values())
    ids = {"background": 0, "ignore": 255} | dict(zip(NAMES, IDS, strict=True))
    values = np.array(
        [ids[name] for name, _ in sorted(labels.items(), key=lambda e: e[1])]
    )
    found = {}
    for path in (folder / f"images{part}").iterdir():
        case = path.name.removesuffix("_0000.png")
        image = skimage.io.imread(path)
        assert image.shape[2] == len(content["channel_names"]) == 3
        pixels = skimage.io.imread(folder / f"labels{part}" / f"{case}.png")
        assert pixels.shape == image.shape[:2]
        found[case] = values[pixels]
    return found


def test_nnunet_labels_are_consecutive_with_ignore_last(tmp_path):
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "o", ["nnunet"]) / "nnunet"
    found = read_nnunet(out)
    assert {*found} == {each.name for each in data}
    for each in data:
        np.testing.assert_array_equal(found[each.name], each.labels)
    content = read_json(out / "dataset.json")
    assert [*content["labels"]] == ["background", *NAMES, "ignore"]
    assert content["numTraining"] == len(data)
    assert not (out / "imagesTs").exists()


def test_nnunet_names_no_ignore_label_where_no_pixel_has_it(tmp_path):
    data = [each for each in items() if not (each.labels == 255).any()]
    out = export_dataset(data, CLASSES, tmp_path / "o", ["nnunet"]) / "nnunet"
    assert [*read_json(out / "dataset.json")["labels"]] == ["background", *NAMES]
    read_nnunet(out)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("nnunet", "background"),
        ("nnunet", "ignore"),
        ("yolo-semantic", "background"),
    ],
)
def test_names_that_a_format_uses_itself_are_refused(tmp_path, form, name):
    with pytest.raises(ValueError, match=f"{form!r} uses the name {name!r}"):
        export_dataset(items(), [LabelClass(1, name)], tmp_path / "o", [form])


# hf


def read_hf(folder: Path, split: str = "train") -> dict[str, np.ndarray]:
    """`file_name` and `*_file_name` are paths beside metadata.jsonl."""
    found = {}
    for line in (folder / split / "metadata.jsonl").read_text("utf-8").split("\n")[:-1]:
        row = json.loads(line)
        image = skimage.io.imread(folder / split / row["file_name"])
        mask = skimage.io.imread(folder / split / row["mask_file_name"])
        assert image.shape[:2] == mask.shape
        found[Path(row["file_name"]).stem] = mask
    return found


def test_hf_rows_lead_to_images_and_masks(tmp_path):
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "o", ["hf"]) / "hf"
    found = read_hf(out)
    assert list(found) == [each.name for each in data]
    for each in data:
        np.testing.assert_array_equal(found[each.name], each.labels)
    names = {"0": "background"} | dict(zip(map(str, IDS), NAMES, strict=True))
    assert read_json(out / "id2label.json") == names


def test_hf_loads_with_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    # its module: tests/datasets passes for a package of that name
    pytest.importorskip("datasets.load")
    import datasets

    data = [*items(), item("last", np.full((2, 2), 9))]
    split = Split(0.4, 0.3, 0.3)
    for chosen in (None, split):
        out = tmp_path / f"o{chosen is None}"
        export_dataset(data, CLASSES, out, ["hf"], split=chosen)
        loaded = datasets.load_dataset(str(out / "hf"), cache_dir=str(tmp_path / "c"))
        rows = [row for part in loaded.values() for row in part]
        images = {each.image.tobytes(): each.labels for each in data}
        assert len(rows) == len(data)
        for row in rows:
            labels = images[np.asarray(row["image"]).tobytes()]
            np.testing.assert_array_equal(np.asarray(row["mask"]), labels)
    assert {*loaded} == {"train", "validation", "test"}


# ids and classes that do not fit


def test_ids_above_255_where_pixels_are_ids(tmp_path):
    classes = [LabelClass(3, "cat"), LabelClass(300, "wide hat")]
    labels = np.array([[3, 300, 255, 0]])
    with pytest.raises(ValueError, match="'wide hat' has the id 300; 'voc' holds"):
        export_dataset([item("a", labels)], classes, tmp_path / "o", ["hf", "voc"])
    assert not list(tmp_path.iterdir())
    others = [form for form in FORMATS if form != "voc"]
    out = export_dataset([item("a", labels)], classes, tmp_path / "o", others)
    np.testing.assert_array_equal(read_hf(out / "hf")["a"], labels)
    np.testing.assert_array_equal(
        read_panoptic(out / "coco-panoptic")["a"], visible(labels)
    )
    for path in ("yolo-semantic/masks/train", "nnunet/labelsTr"):
        pixels = read_png(out / path / "a.png", "L")
        assert pixels[0, :2].tolist() == [1, 2]
    assert read_json(out / "nnunet/dataset.json")["class_ids"] == {
        "cat": 3,
        "wide hat": 300,
    }


def test_a_thousand_classes_are_refused_by_name_or_kept(tmp_path):
    classes = [LabelClass(i + (i >= 255), f"class {i}") for i in range(1, 1001)]
    data = [item("a", np.array([[1, 254, 256, 1001, 0, 255]]))]
    for form in ("yolo-semantic", "nnunet"):
        match = f"1000 classes; '{form}' holds 254.*'class 255'"
        with pytest.raises(ValueError, match=match):
            export_dataset(data, classes, tmp_path / "o", [form])
    out = export_dataset(data, classes, tmp_path / "o", ["yolo-seg", "coco-panoptic"])
    found = [i for i, _ in read_yolo(out / "yolo-seg/labels/train/a.txt", (1, 6))]
    assert found == [0, 253, 254, 999]
    np.testing.assert_array_equal(
        read_panoptic(out / "coco-panoptic")["a"], visible(data[0].labels)
    )


def test_most_classes_that_eight_bits_hold(tmp_path):
    classes = [LabelClass(i, f"class {i}") for i in range(1, 255)]
    labels = np.arange(256).reshape(8, 32)
    forms = ["yolo-semantic", "nnunet"]
    out = export_dataset([item("a", labels)], classes, tmp_path / "o", forms)
    for path in ("yolo-semantic/masks/train", "nnunet/labelsTr"):
        np.testing.assert_array_equal(read_png(out / path / "a.png", "L"), labels)
    assert read_json(out / "nnunet/dataset.json")["labels"]["ignore"] == 255


# reading back


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_changed_pixel_is_found_before_the_move(tmp_path, monkeypatch, form):
    plain = Image.Image.save

    def flipped(image, file, **options):
        with image.copy() as changed:
            value = changed.getpixel((0, 0))
            changed.putpixel(
                (0, 0),
                value ^ 1 if isinstance(value, int) else (value[0] ^ 1, *value[1:]),
            )
            plain(changed, file, **options)

    plain_set = zarr.Array.__setitem__

    def flipped_pixel(array, place, values):
        changed = values.copy()
        changed.flat[0] ^= 1
        plain_set(array, place, changed)

    monkeypatch.setattr(Image.Image, "save", flipped)
    monkeypatch.setattr(zarr.Array, "__setitem__", flipped_pixel)
    with pytest.raises((ExportError, StoreError), match="reads back differently"):
        export_dataset(items(), CLASSES, tmp_path / "o", [form])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "form", [f for f in FORMATS if f not in ("coco", "coco-parts")]
)
def test_a_changed_text_is_found_before_the_move(tmp_path, monkeypatch, form):
    plain = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, **o: plain(path, **o).replace("2", "3")
    )
    with pytest.raises(ExportError, match="reads back differently"):
        export_dataset(items(), CLASSES, tmp_path / "o", [form])
    assert not list(tmp_path.iterdir())


def test_a_changed_jpeg_is_found_before_the_move(tmp_path, monkeypatch):
    plain = Path.write_bytes
    blank = item("b", np.zeros((9, 9), int))
    data = [blank, ExportItem("c", blank.image[::-1].copy(), blank.labels)]
    kept: list[bytes] = []

    def mixed_up(path, code):
        kept.append(code)
        return plain(path, kept[0])

    monkeypatch.setattr(Path, "write_bytes", mixed_up)
    with pytest.raises(ExportError, match=r"c\.jpg reads back differently"):
        export_dataset(data, [], tmp_path / "o", ["voc"])


# splits


def many(count: int = 200) -> list[ExportItem]:
    """Every image has 2, each second one 9, each tenth one 254."""
    data = []
    for number in range(count):
        labels = np.zeros((4, 5), np.uint8)
        labels[0] = 2
        labels[1] = 9 * (number % 2)
        labels[2] = 254 * (number % 10 == 0)
        labels[3] = 255
        data.append(item(f"image {number}", labels))
    return data


def test_a_split_gives_each_class_its_share_and_depends_on_the_seed():
    data = many()
    dealt = [each.split for each in Split(0.7, 0.2, 0.1, seed=3).deal(iter(data))]
    for i, total in ((2, 200), (9, 100), (254, 20)):
        counts = Counter(
            split for split, each in zip(dealt, data, strict=True) if i in each.labels
        )
        for split, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
            assert abs(counts[split] - share * total) <= 2
    assert dealt == [e.split for e in Split(0.7, 0.2, 0.1, seed=3).deal(data)]
    assert dealt != [e.split for e in Split(0.7, 0.2, 0.1, seed=4).deal(data)]
    assert {e.split for e in Split(0.5, 0.5, 0).deal(data)} == {"train", "val"}


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (0, 0, 0)])
def test_shares_must_add_up(shares):
    with pytest.raises(ValueError, match="must add up to 1"):
        Split(*shares)


def test_each_format_keeps_the_splits_apart(tmp_path):
    data = many(20)
    split = Split(0.5, 0.3, 0.2, seed=1)
    out = export_dataset(data, CLASSES, tmp_path / "o", list(FORMATS), split=split)
    expected: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for each in split.deal(data):
        expected[each.split].append(each.name)
    assert all(expected.values())
    labels = {each.name: each.labels for each in data}

    folds = read_json(out / "nnunet/splits_final.json")
    assert folds == [{"train": expected["train"], "val": expected["val"]}]
    assert {*read_nnunet(out / "nnunet", "Ts")} == {*expected["test"]}
    assert len(read_nnunet(out / "nnunet")) == len(data) - len(expected["test"])
    content = yaml.safe_load((out / "yolo-seg/data.yaml").read_text("utf-8"))
    lists = out / "voc/ImageSets/Segmentation"
    for part, names in expected.items():
        text = (out / f"indexed/splits/{part}.txt").read_text("utf-8")
        assert text.splitlines() == names
        assert (lists / f"{part}.txt").read_text("utf-8").splitlines() == names
        for form in ("coco", "coco-parts"):
            coco = read_json(out / form / f"annotations_{part}.json")
            assert [Path(i["file_name"]).stem for i in coco["images"]] == names
            ids = {i["id"] for i in coco["images"]}
            assert {a["image_id"] for a in coco["annotations"]} == ids
        found = read_panoptic(out / "coco-panoptic", f"_{part}")
        assert list(found) == names
        for name in names:
            np.testing.assert_array_equal(found[name], visible(labels[name]))
        assert content[part] == f"images/{part}"
        for kind in ("yolo-seg/labels", "yolo-seg/images", "yolo-semantic/masks"):
            assert {p.stem for p in (out / kind / part).iterdir()} == {*names}
        found = read_hf(out / "hf", "validation" if part == "val" else part)
        assert list(found) == names
    trainval = (lists / "trainval.txt").read_text("utf-8").splitlines()
    assert trainval == expected["train"] + expected["val"]


def test_an_item_may_bring_its_own_split(tmp_path):
    data = [
        item("a", np.full((2, 2), 2), "val"),
        item("b", np.full((2, 2), 2), "train"),
    ]
    out = export_dataset(data, CLASSES, tmp_path / "o", ["yolo-seg"])
    assert (out / "yolo-seg/labels/val/a.txt").is_file()
    with pytest.raises(ValueError, match="'c' is in the split 'dev'"):
        export_dataset([item("c", np.zeros((2, 2), int), "dev")], [], tmp_path / "p")


# the command line


def test_the_command_takes_formats_by_commas_and_one_by_one(tmp_path):
    work = tmp_path / "work"
    project = Project.create(work)
    project.classes.add("cat")
    labels = np.zeros((8, 9), np.uint8)
    labels[2:5, 3:6] = 1
    project.add_sample(np.zeros((8, 9, 3), np.uint8), name="a")
    project.save_labels("a", labels)
    words = ["export", work, "--out", tmp_path / "o", "--format", "voc,yolo-seg"]
    words += ["--format", "hf"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"voc", "yolo-seg", "hf"}
    pixels = read_png(tmp_path / "o/voc/SegmentationClass/a.png", "P")
    np.testing.assert_array_equal(pixels, labels)

    help_text = CliRunner().invoke(app, ["export", "--help"]).output
    unwrapped = "".join(help_text.split("--format")[1].split())
    assert all(form in unwrapped for form in FORMATS)
