"""The command line's folder: names, ids and files that are whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from napari_ovam.png import read_png_settings
from napari_ovam.workfolder import WorkFolder, WorkFolderError

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_an_image_is_read_back_and_never_replaced(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "new", create=True)
    work.write_image("cat", IMAGE, prompt="a cat")
    np.testing.assert_array_equal(work.read_image("cat"), IMAGE)
    assert read_png_settings(tmp_path / "new/images/cat.png") == {"prompt": "a cat"}
    assert work.new_name("cat") == "cat-2"
    assert work.new_name("dog") == "dog"


@pytest.mark.parametrize("largest", [3, 255, 300])
def test_labels_keep_every_id(tmp_path: Path, largest: int) -> None:
    work = WorkFolder(tmp_path)
    labels = np.array([[0, 1], [2, largest]])
    work.write_labels("a", labels)
    np.testing.assert_array_equal(work.read_labels("a"), labels)


def test_ids_stay_when_classes_are_added(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    assert work.class_ids(["hat", "cat"]) == [1, 2]
    assert work.class_ids(["dog", "cat"]) == [3, 2]
    assert [(c.id, c.name) for c in WorkFolder(tmp_path).classes()] == [
        (1, "hat"),
        (2, "cat"),
        (3, "dog"),
    ]


def test_255_is_never_given_to_a_class(tmp_path: Path) -> None:
    table = [{"id": 254, "name": "last"}]
    (tmp_path / "classes.json").write_text(json.dumps(table))
    assert WorkFolder(tmp_path).class_ids(["next"]) == [256]


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', '[{"id": "x"}]'])
def test_a_broken_class_table_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(WorkFolderError, match=r"classes\.json"):
        WorkFolder(tmp_path).class_ids(["cat"])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkFolderError, match="nowhere"):
        WorkFolder(tmp_path / "nowhere")
    work = WorkFolder(tmp_path)
    with pytest.raises(WorkFolderError, match="holds no images"):
        work.names()
    work.write_image("cat", IMAGE)
    with pytest.raises(WorkFolderError, match="'dog'"):
        work.names(["dog"])
    with pytest.raises(WorkFolderError, match="no labels"):
        list(work.items())
    with pytest.raises(ValueError, match="a/b"):
        work.token("a/b")


def test_a_truncated_png_is_named(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    work.write_image(
        "cat", np.random.default_rng(0).integers(0, 255, (64, 64, 3), "u1")
    )
    path = tmp_path / "images" / "cat.png"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"cat\.png is broken"):
        work.read_image("cat")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = WorkFolder(tmp_path)
    work.write_labels("a", np.ones((2, 2), int))

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_ovam.atomic.os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        work.write_labels("a", np.zeros((2, 2), int))
    assert [p.name for p in (tmp_path / "labels").iterdir()] == ["a.png"]
    assert (work.read_labels("a") == 1).all()
