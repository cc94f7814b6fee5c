"""Merging and deleting classes: the labels follow, and no other class changes."""

import json
from pathlib import Path

import numpy as np
import pytest

from napari_ovam.base.progress import Cancelled
from napari_ovam.datasets.exporters import FORMATS, export_dataset
from napari_ovam.datasets.project_class import ClassError
from napari_ovam.project import Project
from napari_ovam.project.files import read_about_labels
from napari_ovam.project.verify import verify
from napari_ovam.segmentation.instances import Instances
from napari_ovam.segmentation.instances.files import load_instances, save_instances

LABELS = np.array([[0, 1, 1], [2, 300, 255]], np.uint16)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.create(tmp_path / "p")
    for name, number in (("cat", 1), ("dog", 2), ("owl", 300)):
        project.classes.add(name, number)
    for name in ("a", "b", "c"):
        project.add_sample(np.zeros((2, 3, 3), np.uint8), name=name)
    project.save_labels("a", LABELS, "accepted", painted=LABELS > 0)
    project.save_labels("b", np.full((2, 3), 2), "edited")
    return project


def stored(project: Project, name: str) -> np.ndarray:
    """Labels as another program reads them, without the class table."""
    from PIL import Image

    with Image.open(project.path / "labels" / f"{name}.png") as picture:
        return np.array(picture)


def test_merging_rewrites_the_labels_of_all_images(project: Project):
    entries = {e.id: e for e in project.classes}
    assert project.merge_classes(2, 300) == ["a", "b"]
    expected = np.where(LABELS == 2, 300, LABELS)
    np.testing.assert_array_equal(stored(project, "a"), expected)
    np.testing.assert_array_equal(stored(project, "b"), np.full((2, 3), 300))
    opened = Project.open(project.path)
    assert {e.id: e for e in opened.classes} == {1: entries[1], 300: entries[300]}
    assert [s.status for s in opened.samples] == ["accepted", "edited", "new"]
    np.testing.assert_array_equal(opened.load_painted("a"), LABELS > 0)
    assert not verify(project.path).problems
    # the id stays retired
    with pytest.raises(ClassError, match="removed"):
        opened.classes.add("new", 2)
    assert opened.classes.add("new").id == 301
    with pytest.raises(ClassError, match="itself"):
        opened.merge_classes(1, 1)
    with pytest.raises(ClassError, match="no class has the id 2"):
        opened.merge_classes(2, 1)


def test_a_window_that_still_paints_with_a_merged_class_loses_nothing(
    project: Project,
):
    project.merge_classes(2, 1)
    project.merge_classes(1, 300)  # what was 2 before follows
    project.save_labels("a", LABELS, "edited")
    expected = np.where(np.isin(LABELS, [1, 2]), 300, LABELS)
    np.testing.assert_array_equal(stored(project, "a"), expected)


@pytest.mark.parametrize("keep", [False, True])
def test_deleting(project: Project, keep: bool):
    changed = project.delete_class(1, keep_pixels=keep)
    assert changed == ([] if keep else ["a"])
    expected = LABELS if keep else np.where(LABELS == 1, 0, LABELS)
    np.testing.assert_array_equal(stored(project, "a"), expected)
    opened = Project.open(project.path)
    np.testing.assert_array_equal(opened.load_labels("a"), expected)
    assert [e.id for e in opened.classes] == [2, 300]
    problems = verify(project.path).problems
    if keep:
        assert problems == ("labels/a.png: holds ids without a class: 1",)
        with pytest.raises(ValueError, match="without a class: 1"):
            export_dataset(
                opened.items(), opened.label_classes(), project.path.parent / "o"
            )
    else:
        assert not problems


def test_absence_is_what_is_true_of_both(project: Project):
    project.change_sample("a", absent=[1, 2, 300])
    project.change_sample("b", absent=[300])
    project.change_sample("c", absent=[1, 2])
    project.merge_classes(1, 300)
    absent = [s.absent for s in Project.open(project.path).samples]
    assert absent == [(2, 300), (), (2,)]


def test_instances_stay_apart(project: Project):
    ids = np.array([[0, 1, 2], [3, 4, 0]], np.int32)
    save_instances(project.path, "a", Instances(ids, {1: 1, 2: 1, 3: 2, 4: 300}))
    project.merge_classes(2, 300)
    labels = project.load_labels("a")
    found = load_instances(project.path, "a", labels)
    np.testing.assert_array_equal(found.ids, ids)
    assert dict(found.classes) == {1: 1, 2: 1, 3: 300, 4: 300}
    project.delete_class(1)
    found = load_instances(project.path, "a", project.load_labels("a"))
    np.testing.assert_array_equal(found.ids, np.where(ids > 2, ids, 0))


def test_a_run_that_was_stopped_goes_on_when_the_project_is_opened(project: Project):
    def stop(done: int, total: int) -> None:
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        project.merge_classes(2, 1, progress=stop)
    assert 2 in stored(project, "b")
    # read as merged at once, here and by whoever opens it
    assert 2 not in project.load_labels("b")
    assert not verify(project.path).problems
    opened = Project.open(project.path)
    np.testing.assert_array_equal(stored(opened, "b"), np.ones((2, 3)))
    assert not json.loads((project.path / "project.json").read_text())["pending"]
    assert read_about_labels(project.path / "labels/b.png")["status"] == "edited"


def test_a_full_disk_changes_nothing_or_is_gone_on_with(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_ovam.base.atomic.os.fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            project.merge_classes(2, 1)
    assert [e.id for e in project.classes] == [1, 2, 300]
    assert 2 in project.load_labels("b")
    project.merge_classes(2, 1)
    assert 2 not in stored(project, "b")


def test_broken_labels_do_not_keep_others_from_following(project: Project):
    (project.path / "labels/a.png").write_bytes(b"no PNG")
    assert project.merge_classes(2, 1) == ["b"]
    assert "a.png" in project.notes[0]


def test_provenance_says_who_did_what(project: Project):
    about = project.provenance("a")
    assert [each["status"] for each in about["history"]] == ["accepted"]
    project.save_labels("a", LABELS, "edited")
    project.save_labels("a", LABELS, "edited")
    project.change_sample("a", status="accepted")
    about = Project.open(project.path).provenance("a")
    history = [each["status"] for each in about["history"]]
    assert history == ["accepted", "edited", "accepted"]
    assert all(each["version"] and each["at"] for each in about["history"])
    assert read_about_labels(project.path / "labels/a.png")["version"]


def test_strange_names_are_fine_everywhere(tmp_path: Path):
    names = ["../../etc/passwd", 'say "cheese", please', "🐈", "x" * 300, "C:\\con"]
    project = Project.create(tmp_path / "p")
    for name in names:
        project.classes.add(name, phrase="cat")
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    project.add_sample(np.zeros((2, 3, 3), np.uint8), name="a")
    project.save_labels("a", ids, "accepted")
    opened = Project.open(project.path)
    assert [e.name for e in opened.classes] == names
    forms = [name for name in FORMATS if name != "voc"]  # refuses colons, by name
    out = export_dataset(opened.items(), opened.label_classes(), tmp_path / "o", forms)
    assert not verify(out).problems
    assert not verify(project.path).problems
    assert {p.name for p in tmp_path.iterdir()} == {"p", "o"}


def test_a_thousand_classes_and_16_bits(tmp_path: Path):
    project = Project.create(tmp_path / "p")
    for number in range(1000):
        project.classes.add(f"class {number}")
    last = project.classes.last_id
    assert last == 1001  # 255 is nobody's
    ids = np.full((2, 3), last, np.uint16)
    project.add_sample(np.zeros((2, 3, 3), np.uint8), name="a")
    project.save_labels("a", ids)
    project.merge_classes(last, 254)
    opened = Project.open(project.path)
    assert len(opened.classes) == 999
    np.testing.assert_array_equal(opened.load_labels("a"), np.full((2, 3), 254))
