"""Instances: ids that stay, cuts and merges that stay, files that come back."""

import numpy as np
import pytest
from PIL import Image

from napari_ovam.images.files import ImageFileError
from napari_ovam.segmentation.instances import (
    InstanceError,
    Instances,
    merge,
    split_by_line,
    split_by_seeds,
)
from napari_ovam.segmentation.instances.files import load_instances, save_instances
from napari_ovam.segmentation.instances.relabel import find_instances, follow_labels


def drawing(*boxes, shape=(40, 60)):
    """Labels with boxes of (class, rows, columns)."""
    labels = np.zeros(shape, np.uint8)
    for number, rows, columns in boxes:
        labels[slice(*rows), slice(*columns)] = number
    return labels


def check(instances, labels):
    """Every pixel of a class is in one instance of that class, and no other is."""
    expected = np.where(labels == 255, 0, labels)
    np.testing.assert_array_equal(instances.labels(), expected)
    assert instances.ids.dtype == np.int32


def test_connected_parts_are_instances():
    labels = drawing((1, (2, 8), (2, 10)), (1, (2, 8), (20, 30))).astype(np.uint16)
    labels[9:12, 2:9] = 300
    labels[20, 20] = labels[21, 21] = 1  # corners connect
    labels[30:32] = 255
    found = find_instances(labels)
    check(found, labels)
    assert found.classes == {1: 1, 2: 1, 3: 300, 4: 1}
    assert found.of_class(1) == [1, 2, 4]
    assert find_instances(np.zeros((3, 4), np.uint8)).classes == {}
    for wrong in (np.zeros((2, 2, 2), int), np.zeros((3, 3))):
        with pytest.raises(InstanceError):
            find_instances(wrong)


def test_ids_stay_when_labels_are_edited():
    boxes = [(1, (2, 8), (2, 10)), (1, (2, 8), (20, 30)), (2, (20, 30), (5, 15))]
    before = find_instances(drawing(*boxes))
    edited = drawing(*boxes, (1, (3, 7), (10, 13)), (2, (32, 34), (40, 44)))
    edited[2:8, 20:24] = 0
    after = follow_labels(before, edited)
    check(after, edited)
    assert after.ids[5, 11] == before.ids[5, 5]  # grown
    assert after.ids[5, 28] == before.ids[5, 28]  # shrunk
    assert after.ids[33, 42] == 4  # new
    without = edited.copy()
    without[2:8, 2:13] = 0
    gone = follow_labels(after, without)
    back = follow_labels(gone, edited)
    assert set(gone.classes) == {2, 3, 4}
    assert back.ids[5, 5] == 5  # an id is given once


def test_erasing_cuts_and_the_larger_part_keeps_the_id():
    labels = drawing((1, (5, 10), (5, 30)))
    before = find_instances(labels)
    labels[:, 12:14] = 0
    after = follow_labels(before, labels)
    check(after, labels)
    assert after.ids[7, 20] == 1
    assert after.ids[7, 7] == 2


def test_a_stroke_that_connects_two_makes_them_one():
    labels = drawing((1, (5, 10), (5, 20)), (1, (5, 10), (30, 40)))
    before = find_instances(labels)
    labels[6:8, 15:35] = 1
    after = follow_labels(before, labels)
    check(after, labels)
    assert after.classes == {1: 1}


def test_what_was_split_stays_split_and_what_was_merged_stays_merged():
    labels = drawing(
        (1, (5, 10), (5, 30)), (2, (20, 25), (5, 10)), (2, (20, 25), (30, 40))
    )
    instances = split_by_line(find_instances(labels), 1, [(0, 20), (15, 20)])
    instances = merge(instances, [3, 2])
    assert set(instances.classes) == {1, 3, 4}
    edited = labels.copy()
    edited[5:10, 30:34] = 1
    edited[3:5, 5:34] = 1
    edited[20:25, 5] = 0
    after = follow_labels(instances, edited)
    check(after, edited)
    assert set(after.classes) == {1, 3, 4}
    assert after.ids[7, 32] == instances.ids[7, 28]
    assert after.ids[4, 8] == instances.ids[7, 8]
    assert after.ids[22, 8] == after.ids[22, 35] == 3


def test_a_class_that_is_painted_over_another():
    labels = drawing((1, (5, 15), (5, 15)), (2, (5, 15), (15, 30)))
    before = find_instances(labels)
    labels[5:15, 13:16] = 2  # a piece of the cat becomes dog
    after = follow_labels(before, labels)
    check(after, labels)
    assert after.classes == {1: 1, 2: 2}
    labels[5:15, 5:13] = 2  # the rest as well: it was dog all along
    assert follow_labels(after, labels).classes == {2: 2}
    alone = drawing((1, (5, 15), (5, 15)))
    instances = find_instances(alone)
    assert follow_labels(instances, alone * 7).classes == {1: 7}


def test_one_half_of_a_merged_instance_gets_another_class():
    labels = drawing((1, (5, 15), (5, 15)), (1, (5, 15), (30, 35)))
    instances = merge(find_instances(labels), [1, 2])
    labels[:, 30:][labels[:, 30:] == 1] = 2
    after = follow_labels(instances, labels)
    check(after, labels)
    assert after.classes == {1: 1, 3: 2}


def test_random_edits_always_leave_whole_instances():
    random = np.random.default_rng(5)
    labels = np.zeros((40, 60), np.uint8)
    instances = find_instances(labels)
    given = 0
    for step in range(150):
        row, column = random.integers(0, (36, 56))
        height, width = random.integers(1, 12, 2)
        number = random.choice([0, 0, 1, 2, 3, 255])
        labels[row : row + height, column : column + width] = number
        instances = follow_labels(instances, labels)
        check(instances, labels)
        assert instances.last >= given
        given = instances.last
        if instances.classes and step % 3 == 0:
            each = int(random.choice(list(instances.classes)))
            rows, columns = np.nonzero(instances.ids == each)
            if len(rows) > 1:
                picks = random.choice(len(rows), 2, replace=False)
                seeds = [(int(rows[i]), int(columns[i])) for i in picks]
                instances = split_by_seeds(instances, each, seeds)
                check(instances, labels)
                a, b = (int(instances.ids[seed]) for seed in seeds)
                assert a != b
        again = follow_labels(instances, labels)
        np.testing.assert_array_equal(again.ids, instances.ids)


def test_a_line_cuts():
    labels = drawing((1, (5, 15), (5, 25)), (2, (20, 30), (5, 25)))
    instances = find_instances(labels)
    cut = split_by_line(instances, 1, [(-5, -3), (20, 22)])  # from outside, askew
    check(cut, labels)
    assert cut.classes == {1: 1, 2: 2, 3: 1}
    assert cut.ids[6, 24] == 1  # the larger part
    assert cut.ids[14, 6] == 3
    bent = split_by_line(instances, 1, [(0, 10), (10, 10), (10, 30)])
    assert {bent.ids[7, 20], bent.ids[14, 7]} == {1, 3}
    for points in ([(7, 7), (9, 9)], [(0, 0), (0, 50)], [(5, 5)], [(1, 2, 3)]):
        with pytest.raises(InstanceError, match="line"):
            split_by_line(instances, 1, points)
    with pytest.raises(InstanceError, match="no instance 9"):
        split_by_line(instances, 9, [(0, 0), (9, 9)])
    # parts elsewhere that were merged by hand stay where they are
    both = drawing((1, (5, 15), (5, 25)), (1, (20, 30), (40, 45)))
    merged = merge(find_instances(both), [1, 2])
    cut = split_by_line(merged, 1, [(0, 12), (40, 12)])
    assert cut.ids[25, 42] == cut.ids[10, 20] == 1
    assert cut.ids[10, 8] == 3


def test_seeds_divide_where_the_object_is_narrow():
    rows, columns = np.mgrid[:40, :60]
    labels = np.zeros((40, 60), np.uint8)
    labels[(rows - 20) ** 2 + (columns - 18) ** 2 < 150] = 1
    labels[(rows - 20) ** 2 + (columns - 38) ** 2 < 150] = 1
    instances = find_instances(labels)
    assert instances.classes == {1: 1}
    found = split_by_seeds(instances, 1, [(20, 12), (20, 45)])
    check(found, labels)
    border = np.nonzero(np.diff(found.ids[20, 8:50]))[0] + 8
    assert border.tolist() == pytest.approx([27.5], abs=1)
    three = split_by_seeds(instances, 1, [(20, 12), (20, 38), (12, 38)])
    assert len(three.classes) == 3
    for seeds, text in (
        ([(0, 0), (20, 12)], "not in"),
        ([(20, 12), (20, 12)], "twice"),
        ([(20, 12)], "at least two"),
        ([(99, 12), (20, 12)], "not in"),
    ):
        with pytest.raises(InstanceError, match=text):
            split_by_seeds(instances, 1, seeds)


def test_only_instances_of_a_class_merge():
    labels = drawing((1, (2, 5), (2, 5)), (1, (8, 12), (8, 12)), (2, (20, 22), (2, 9)))
    instances = find_instances(labels)
    merged = merge(instances, [2, 1])
    check(merged, labels)
    assert merged.classes == {2: 1, 3: 2}
    for numbers, text in (([1, 3], "one class"), ([1], "two"), ([1, 8], "instance 8")):
        with pytest.raises(InstanceError, match=text):
            merge(instances, numbers)


def test_files_come_back_and_follow_labels_that_were_saved_later(tmp_path):
    labels = drawing((1, (5, 10), (5, 30)), (2, (20, 25), (5, 10)))
    instances = split_by_line(find_instances(labels), 1, [(0, 20), (15, 20)])
    assert load_instances(tmp_path, "a") is None
    path = save_instances(tmp_path, "a", instances)
    assert path == tmp_path / "instances" / "a.png"
    with Image.open(path) as picture:
        assert picture.mode == "I;16"
    again = load_instances(tmp_path, "a")
    np.testing.assert_array_equal(again.ids, instances.ids)
    assert (again.classes, again.last) == (instances.classes, instances.last)
    labels[20:25] = 0
    followed = load_instances(tmp_path, "a", labels)
    check(followed, labels)
    with pytest.raises(InstanceError, match=r"\(3, 3\)"):
        load_instances(tmp_path, "a", np.zeros((3, 3), int))
    Image.fromarray(np.ones((4, 4), np.uint8)).save(path)
    with pytest.raises(ImageFileError, match=r"a\.png"):
        load_instances(tmp_path, "a")
    path.write_bytes(b"half")
    with pytest.raises(ImageFileError, match=r"a\.png"):
        load_instances(tmp_path, "a")


def test_too_many_instances_are_refused():
    labels = np.zeros((1024, 514), np.uint8)
    labels[::2, ::4] = 1
    labels[1::2, 2::4] = 0
    assert len(find_instances(labels[:64, :64]).classes) == 32 * 16
    many = np.zeros((520, 520), np.uint8)
    many[::2, ::2] = 1
    with pytest.raises(InstanceError, match="65535"):
        find_instances(many)
    with pytest.raises(InstanceError, match="int32"):
        Instances(np.zeros((3, 3), np.int64), {})
    with pytest.raises(InstanceError, match="no class"):
        Instances(np.ones((3, 3), np.int32), {})


def test_instances_are_exported_one_by_one(tmp_path):
    from pycocotools.coco import COCO

    from napari_ovam.datasets.exporters import ExportItem, LabelClass, export_dataset
    from napari_ovam.project import Project

    labels = drawing(
        (1, (5, 10), (5, 30)), (2, (20, 25), (5, 9)), (2, (30, 35), (5, 9))
    )
    labels[38:] = 255
    instances = split_by_line(find_instances(labels), 1, [(0, 20), (15, 20)])
    instances = merge(instances, [2, 3])
    project = Project.create(tmp_path / "project")
    project.classes.add("cat")
    project.classes.add("hat")
    project.add_sample(np.zeros((*labels.shape, 3), np.uint8), name="a")
    project.save_labels("a", labels)
    save_instances(project.path, "a", instances)
    formats = ("coco", "coco-parts", "coco-panoptic")
    out = export_dataset(
        project.items(), project.label_classes(), tmp_path / "out", formats
    )
    coco = COCO(out / "coco-parts" / "annotations.json")
    found = {
        (a["category_id"], tuple(np.flatnonzero(coco.annToMask(a))))
        for a in coco.loadAnns(coco.getAnnIds())
    }
    assert found == {
        (number, tuple(np.flatnonzero(instances.ids == i)))
        for i, number in instances.classes.items()
    }
    assert len(COCO(out / "coco" / "annotations.json").getAnnIds()) == 2
    with Image.open(out / "coco-panoptic" / "panoptic" / "a.png") as picture:
        segments = np.asarray(picture).astype(int) @ [1, 256, 65536]
    assert len(np.unique(segments)) == 4
    pairs = {
        tuple(p) for p in zip(segments.flat, instances.ids.flat, strict=True) if p[0]
    }
    assert len(pairs) == 3
    # labels that were edited after the instances were saved
    labels[5:10, 5:12] = 0
    project.save_labels("a", labels)
    out = export_dataset(
        project.items(), project.label_classes(), tmp_path / "later", formats
    )
    assert len(COCO(out / "coco-parts" / "annotations.json").getAnnIds()) == 3
    image = np.zeros((*labels.shape, 3), np.uint8)
    classes = [LabelClass(1, "cat"), LabelClass(2, "hat")]
    for wrong in (labels[:5], np.zeros_like(labels), (labels > 0) & (labels != 255)):
        item = ExportItem("a", image, labels, instances=wrong.astype(int))
        with pytest.raises(ValueError, match="instance"):
            export_dataset([item], classes, tmp_path / "wrong")
