"""Exported datasets hold exactly the labels, in files that other tools read."""

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from napari_ovam import Cancelled, ExportItem, LabelClass, export_dataset
from napari_ovam.datasets.exporters import (
    FORMATS,
    FolderInUseError,
    Split,
    dataset,
    parse_split,
)
from napari_ovam.project.verify import verify

CLASSES = [
    LabelClass(1, "cat", (255, 0, 0)),
    LabelClass(2, 'a "hat" of/../the ../cat 🐱', (0, 255, 0)),
    LabelClass(np.uint8(254), "never used"),  # as read from an array
]
RNG = np.random.default_rng(0)


def item(name: str, labels: np.ndarray) -> ExportItem:
    image = RNG.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    return ExportItem(name, image, labels)


def items() -> list[ExportItem]:
    """Holes, islands, one-pixel and edge objects, ignore pixels; not square."""
    rings = np.zeros((20, 31), np.uint8)
    rings[2:18, 2:20] = 1
    rings[5:15, 5:15] = 0  # a hole
    rings[7:12, 7:12] = 2  # an island in the hole
    rings[9, 9] = 1  # one pixel in the island
    rings[0, 30] = rings[19, 0] = 2
    rings[4:6, 22:28] = 255
    rings[5, 23] = 1
    diagonal = np.eye(9, dtype=np.int64)
    diagonal[0, 8] = 2
    full = np.full((7, 5), 2, np.uint8)
    empty = np.zeros((6, 4), np.int32)
    unsure = np.full((3, 3), 255, np.uint8)
    noise = RNG.choice(np.array([0, 1, 2, 255], np.uint16), (16, 16))
    arrays = {
        "rings": rings,
        "ein Kätzchen 🐱 (2)": diagonal,
        "full": full,
        "empty": empty,
        "unsure": unsure,
        "noise.v2": noise,
    }
    return [item(name, labels) for name, labels in arrays.items()]


def test_indexed_png_holds_exactly_the_labels(tmp_path):
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "masks")
    assert [path.name for path in out.iterdir()] == ["indexed"]
    for expected in data:
        with Image.open(out / "indexed/labels" / f"{expected.name}.png") as png:
            assert png.mode == "L"
            np.testing.assert_array_equal(np.asarray(png), expected.labels)
        with Image.open(out / "indexed/images" / f"{expected.name}.png") as png:
            np.testing.assert_array_equal(np.asarray(png), expected.image)
    content = json.loads((out / "indexed/classes.json").read_text("utf-8"))
    assert content["classes"] == [
        {"id": 1, "name": "cat", "color": [255, 0, 0]},
        {"id": 2, "name": CLASSES[1].name, "color": [0, 255, 0]},
        {"id": 254, "name": "never used", "color": None},
    ]
    assert (content["background"], content["ignore"], content["bits"]) == (0, 255, 8)


def test_ids_above_255_need_sixteen_bits_in_every_file(tmp_path):
    classes = [LabelClass(7, "cat"), LabelClass(300, "hat"), LabelClass(65535, "last")]
    wide = np.array([[7, 300, 65535], [0, 255, 300]])
    out = export_dataset(
        [item("wide", wide), item("narrow", np.full((2, 2), 7))],
        classes,
        tmp_path / "o",
    )
    for name, expected in (("wide", wide), ("narrow", np.full((2, 2), 7))):
        with Image.open(out / "indexed/labels" / f"{name}.png") as png:
            assert png.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(png), expected)
    bits = json.loads((out / "indexed/classes.json").read_text("utf-8"))["bits"]
    assert bits == 16


@pytest.mark.parametrize("form", ["coco", "coco-parts"])
def test_coco_decodes_to_the_labels_without_ignored_pixels(tmp_path, form):
    data = items()
    out = export_dataset(iter(data), CLASSES, tmp_path / "o", [form]) / form
    coco = COCO(out / "annotations.json")
    assert {c["id"]: c["name"] for c in coco.cats.values()} == {
        c.id: c.name for c in CLASSES
    }
    assert len(coco.imgs) == len(data)
    for entry, expected in zip(coco.imgs.values(), data, strict=True):
        assert entry["file_name"] == f"{expected.name}.png"
        assert (out / "images" / entry["file_name"]).is_file()
        assert (entry["height"], entry["width"]) == expected.labels.shape
        assert entry["ignore_pixels"] == (expected.labels == 255).sum()
        decoded = np.zeros(expected.labels.shape, int)
        for annotation in coco.imgToAnns[entry["id"]]:
            mask = coco.annToMask(annotation).astype(bool)
            rows, columns = np.nonzero(mask)
            x, y = columns.min(), rows.min()
            box = [x, y, columns.max() - x + 1, rows.max() - y + 1]
            assert annotation["bbox"] == box
            assert annotation["area"] == mask.sum()
            assert annotation["iscrowd"] == 0
            assert not decoded[mask].any()
            decoded[mask] = annotation["category_id"]
        visible = np.where(expected.labels == 255, 0, expected.labels)
        np.testing.assert_array_equal(decoded, visible)
    numbers = [annotation["id"] for annotation in coco.dataset["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_coco_writes_one_annotation_per_class_or_per_connected_part(tmp_path):
    labels = np.array([[1, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # a diagonal holds
    data = [item("a", labels)]
    out = export_dataset(data, CLASSES, tmp_path / "o", ["coco", "coco-parts"])
    counts = {
        form: sorted(
            (a["category_id"], a["area"])
            for a in json.loads((out / form / "annotations.json").read_text("utf-8"))[
                "annotations"
            ]
        )
        for form in ("coco", "coco-parts")
    }
    assert counts == {
        "coco": [(1, 3), (2, 1)],
        "coco-parts": [(1, 1), (1, 2), (2, 1)],
    }


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([[1, 9], [3, 0]]), r"'x'.*without a class: 3, 9"),
        (np.array([[-1, 1]]), r"'x'.*without a class: -1"),
        (np.array([[0.5]]), r"'x'.*float64"),
        (np.array([[True]]), r"'x'.*bool"),
        (np.zeros((2, 2, 2), int), r"'x'.*\(2, 2, 2\)"),
        (np.zeros((0, 3), int), r"'x' has no pixels"),
    ],
)
def test_bad_labels_are_named_and_nothing_is_written(tmp_path, labels, message):
    image = np.zeros((*labels.shape[:2], 3), np.uint8)
    data = [*items(), ExportItem("x", image, labels)]
    with pytest.raises(ValueError, match=message):
        export_dataset(data, CLASSES, tmp_path / "o", list(FORMATS))
    assert not list(tmp_path.iterdir())


def test_shapes_that_differ_and_bad_images_are_named(tmp_path):
    labels = np.zeros((4, 6), np.uint8)
    for shape, dtype, message in [
        (
            (6, 4, 3),
            np.uint8,
            r"'x': the image is \(6, 4\) but its labels are \(4, 6\)",
        ),
        ((4, 6, 4), np.uint8, r"'x'.*\(4, 6, 4\) uint8"),
        ((4, 6, 3), np.float32, r"'x'.*float32"),
    ]:
        data = [ExportItem("x", np.zeros(shape, dtype), labels)]
        with pytest.raises(ValueError, match=message):
            export_dataset(data, CLASSES, tmp_path / "o")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x",
        "/etc/x",
        "a\\b",
        "a:b",
        "nul",
        "CON.v2",
        "x.",
        "a\nb",
        "é" * 101,
    ],
)
def test_item_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be a file name"):
        export_dataset([item(name, np.zeros((2, 2), int))], [], tmp_path / "o")
    assert not list(tmp_path.iterdir())


def test_item_names_must_differ_also_where_case_does_not_count(tmp_path):
    data = [item("Cat", np.zeros((2, 2), int)), item("cat", np.zeros((2, 2), int))]
    with pytest.raises(ValueError, match="two items are named 'cat'"):
        export_dataset(data, [], tmp_path / "o")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([LabelClass(0, "cat")], "'cat' has the id 0"),
        ([LabelClass(255, "cat")], "'cat' has the id 255"),
        ([LabelClass(65536, "cat")], "'cat' has the id 65536"),
        (
            [LabelClass(1, "cat"), LabelClass(1, "hat")],
            "'cat' and 'hat' share the id 1",
        ),
        ([LabelClass(1, "cat"), LabelClass(2, "cat")], "two classes are named 'cat'"),
        ([LabelClass(1, " ")], "id 1 has no name"),
        ([LabelClass(1, "cat", (0, 0, 256))], "'cat' has the colour"),
        ([LabelClass(1, "cat", (0, 0, 0.5))], "'cat' has the colour"),
        ([LabelClass(1.5, "cat")], "'cat' has the id 1.5"),
        ([LabelClass(True, "cat")], "'cat' has the id True"),
    ],
)
def test_bad_classes_are_named(tmp_path, classes, message):
    with pytest.raises(ValueError, match=message):
        export_dataset(items(), classes, tmp_path / "o")


def test_unknown_formats_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"\['gif'\]; choose from indexed, coco"):
        export_dataset(items(), CLASSES, tmp_path / "o", ["indexed", "gif"])
    with pytest.raises(ValueError, match=r"\['gif'\]"):
        export_dataset(items(), CLASSES, tmp_path / "o", "gif")
    export_dataset(items(), CLASSES, tmp_path / "o", "coco")
    assert (tmp_path / "o" / "coco").is_dir()


def test_nothing_to_export_is_said(tmp_path):
    with pytest.raises(ValueError, match="no items"):
        export_dataset([], CLASSES, tmp_path / "o")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_kept_unless_overwriting_is_allowed(tmp_path):
    out = tmp_path / "o"
    export_dataset(items(), CLASSES, out)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty") as error:
        export_dataset(items()[:1], CLASSES, out)
    assert isinstance(error.value, FileExistsError)
    assert len(list((out / "indexed/labels").iterdir())) == len(items())

    export_dataset(items()[:1], CLASSES, out, overwrite=True)
    assert len(list((out / "indexed/labels").iterdir())) == 1
    assert (out / "mine.txt").read_text() == "mine"
    assert {path.name for path in out.iterdir()} == {"indexed", "mine.txt"}


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    export_dataset(items()[:1], CLASSES, tmp_path / "empty")
    export_dataset(items()[:1], CLASSES, tmp_path / "a/b/c")
    for out in ("empty", "a/b/c"):
        assert [p.name for p in (tmp_path / out).iterdir()] == ["indexed"]
    with pytest.raises(ValueError, match="is a file"):
        export_dataset(items()[:1], CLASSES, tmp_path / "a/b/c/indexed/classes.json")


@pytest.mark.parametrize("error", [Cancelled, OSError(errno.ENOSPC, "disk full")])
def test_a_cancel_or_a_full_disk_leaves_everything_as_it_was(tmp_path, error):
    def stop(done: int, total: int) -> None:
        assert total == len(items())
        if done == 2:
            raise error

    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind):
        export_dataset(items(), CLASSES, tmp_path / "o", progress=stop)
    assert not list(tmp_path.iterdir())

    out = export_dataset(items()[3:], CLASSES, tmp_path / "o")
    with pytest.raises(kind):
        export_dataset(items(), CLASSES, out, overwrite=True, progress=stop)
    assert [path.name for path in out.iterdir()] == ["indexed"]
    assert len(list((out / "indexed/labels").iterdir())) == len(items()) - 3


@pytest.mark.parametrize("existing", [False, True])
def test_a_kill_leaves_no_half_written_dataset(tmp_path, existing):
    script = """
import os, sys, numpy as np
from napari_ovam.datasets.exporters import ExportItem, export_dataset
def items():
    for i in range(3):
        yield ExportItem(str(i), np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), int))
    os._exit(9)
export_dataset(items(), [], sys.argv[1], ["indexed", "coco"])
"""
    out = tmp_path / "o"
    if existing:
        out.mkdir()
    done = subprocess.run([sys.executable, "-c", script, str(out)], check=False)
    assert done.returncode == 9
    assert out.exists() == existing
    assert not list(out.glob("[!.]*"))
    export_dataset(items(), CLASSES, out)  # and nothing is in the way
    assert [path.name for path in out.glob("[!.]*")] == ["indexed"]


def test_items_are_taken_one_at_a_time(tmp_path):
    written: list[int] = []

    def stream():
        for number, entry in enumerate(items()):
            assert written == list(range(1, number + 1))
            yield entry

    export_dataset(
        stream(),
        CLASSES,
        tmp_path / "o",
        list(FORMATS),
        progress=lambda done, total: written.append(done),
    )
    assert len(written) == len(items())


@pytest.mark.parametrize("form", ["indexed", "coco", "coco-parts"])
def test_a_file_that_reads_back_differently_is_an_error(tmp_path, monkeypatch, form):
    """Whatever goes wrong between memory and disk is found before the move."""
    original = Path.read_text

    def flipped(png, file, **options):
        pixels = np.asarray(png).copy()
        pixels.flat[0] ^= 1
        plain(Image.fromarray(pixels), file, **options)

    plain = Image.Image.save
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", flipped)
        with pytest.raises(dataset.ExportError, match="reads back differently"):
            export_dataset(items(), CLASSES, tmp_path / "o", [form])
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "read_text",
            lambda path, **options: (
                original(path, **options)
                .replace('"id": 2,', '"id": 3,')
                .replace('"category_id": 2', '"category_id": 1')
            ),
        )
        with pytest.raises(dataset.ExportError, match="reads back differently"):
            export_dataset(items(), CLASSES, tmp_path / "o", [form])
    assert not list(tmp_path.iterdir())


# what an export says of itself


def test_polygons_say_where_they_come_least_near(tmp_path):
    forms = ["indexed", "coco-polygons", "yolo-seg"]
    data = items()
    out = export_dataset(data, CLASSES, tmp_path / "o", forms)
    assert set(out.lowest_iou) == {"coco-polygons", "yolo-seg"}
    for lowest in out.lowest_iou.values():
        assert 0.99 < lowest.iou <= 1
        assert lowest.image in {each.name for each in items()}
        assert lowest.class_name in {each.name for each in CLASSES}
    # drawn by pycocotools from the file, not from what is in memory
    coco = COCO(out / "coco-polygons/annotations.json")
    for each in data:
        (image,) = (
            i
            for i in coco.loadImgs(coco.getImgIds())
            if i["file_name"] == f"{each.name}.png"
        )
        found = np.zeros(each.labels.shape, int)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            assert isinstance(annotation["segmentation"], list)
            found[coco.annToMask(annotation) > 0] = annotation["category_id"]
        wanted = np.where(each.labels == 255, 0, each.labels)
        assert np.mean(found != wanted) < 0.01


def test_the_second_of_two_exports_is_refused_by_name(tmp_path):
    out = tmp_path / "o"

    def during(done, total):
        if done == 1:
            for forms in (["indexed"], ["voc"]):
                with pytest.raises(FolderInUseError, match=r"another export.*'.*o'"):
                    export_dataset(items(), CLASSES, out, forms, overwrite=True)
            export_dataset(items(), CLASSES, tmp_path / "other", overwrite=True)

    export_dataset(items(), CLASSES, out, progress=during)  # a new folder
    export_dataset(items(), CLASSES, out, overwrite=True, progress=during)
    assert [path.name for path in out.iterdir()] == ["indexed"]
    assert {path.name for path in tmp_path.iterdir()} == {"o", "other"}


def test_exports_from_several_processes_never_mix(tmp_path):
    script = """
import sys, numpy as np
from napari_ovam.datasets.exporters import ExportItem, FolderInUseError, export_dataset
value = int(sys.argv[2])
labels = np.full((40, 40), value)
from napari_ovam import LabelClass
classes = [LabelClass(value, str(value))]
rows = [ExportItem(str(i), np.zeros((40, 40, 3), np.uint8), labels) for i in range(5)]
done = 0
while done < 5:
    try:
        export_dataset(rows, classes, sys.argv[1], overwrite=True)
        done += 1
    except FolderInUseError:
        pass
"""
    out = tmp_path / "o"
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(out), str(value)])
        for value in (1, 2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    assert not verify(out).problems
    assert len(list((out / "indexed/labels").iterdir())) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_provenance_goes_where_a_format_has_room(tmp_path):
    made = {"image": {"prompt": "a 🐈", "seed": 3}, "status": "accepted"}
    data = [
        replace(items()[0], provenance=made),
        replace(items()[1], provenance=None),
    ]
    forms = ["coco", "coco-panoptic", "hf", "voc"]
    out = export_dataset(data, CLASSES, tmp_path / "o", forms)
    for place in ("coco/annotations.json", "coco-panoptic/panoptic.json"):
        first, second = json.loads((out / place).read_text("utf-8"))["images"]
        assert first["ovam"] == made
        assert "ovam" not in second
    rows = (out / "hf/train/metadata.jsonl").read_text("utf-8").splitlines()
    assert json.loads(json.loads(rows[0])["ovam"]) == made
    for form in forms:
        about = json.loads((out / form / "ovam.json").read_text("utf-8"))
        assert about["format"] == form
        first = {"name": data[0].name, "ignore_pixels": 11, "provenance": made}
        assert about["items"][0] == first
    broken = replace(items()[0], provenance={"a": object()})
    with pytest.raises(ValueError, match="not JSON"):
        export_dataset([broken], CLASSES, tmp_path / "p", ["voc"])
    assert not (tmp_path / "p").exists()


def test_a_split_is_read_from_text():
    assert parse_split("0.7,0.2,0.1", 4) == Split(0.7, 0.2, 0.1, 4)
    assert parse_split("0.75,0.25") == Split(0.75, 0.25, 0)
    for wrong in ("1", "a,b", "0.1,0.2,0.3,0.4", "0.5,0.6", "nan,0.5,0.5", ""):
        with pytest.raises(ValueError, match=r"split is|must add up"):
            parse_split(wrong)


@pytest.mark.parametrize("form", ["voc"])
def test_a_16_bit_id_for_8_bits_is_refused_by_name(tmp_path, form):
    labels = np.full((2, 2), 300)
    data = [ExportItem("a", np.zeros((2, 2, 3), np.uint8), labels)]
    with pytest.raises(ValueError, match=r"'owl' has the id 300.*'voc'"):
        export_dataset(data, [LabelClass(300, "owl")], tmp_path / "o", [form])
    assert not list(tmp_path.iterdir())
