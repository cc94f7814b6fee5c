"""What an export may replace: only what an export wrote, and as it wrote it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam import ExportItem, LabelClass, export_dataset
from napari_ovam.datasets.exporters import FORMATS, FolderExistsError, Split
from napari_ovam.datasets.exporters.report import INDEX
from napari_ovam.datasets.exporters.staging import OLD, STAGING

CLASSES = [LabelClass(1, "cat")]


def items(names: str = "abc") -> list[ExportItem]:
    labels = np.zeros((12, 12), np.uint8)
    labels[2:8, 3:9] = 1
    blank = np.zeros((12, 12, 3), np.uint8)
    return [ExportItem(name, blank, labels) for name in names]


def content(folder: Path) -> dict[str, bytes | str]:
    return {
        path.relative_to(folder).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes()
        )
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_that_no_export_made_stays(tmp_path: Path, form: str):
    mine = tmp_path / "o" / form / "images" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = content(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(FolderExistsError, match=r"not empty|by an export"):
            export_dataset(
                items(), CLASSES, tmp_path / "o", [form], overwrite=overwrite
            )
        assert content(tmp_path) == before


def test_one_folder_of_others_stops_all_formats(tmp_path: Path):
    out = export_dataset(items(), CLASSES, tmp_path / "o", ["coco"])
    (out / "voc").mkdir()
    (out / "voc/notes.txt").write_text("mine")
    before = content(out)
    with pytest.raises(FolderExistsError, match="voc"):
        export_dataset(items("x"), CLASSES, out, ["coco", "voc"], overwrite=True)
    assert content(out) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {}}', '{"program": 3}'])
def test_a_manifest_of_others_is_none(tmp_path: Path, text: str):
    folder = tmp_path / "o" / "coco"
    folder.mkdir(parents=True)
    (folder / INDEX).write_text(text)
    with pytest.raises(FolderExistsError, match="by an export"):
        export_dataset(items(), CLASSES, tmp_path / "o", ["coco"], overwrite=True)
    assert (folder / INDEX).read_text() == text


def test_links_and_files_in_place_of_a_folder_stay(tmp_path: Path):
    elsewhere = export_dataset(items(), CLASSES, tmp_path / "elsewhere") / "indexed"
    out = tmp_path / "o"
    out.mkdir()
    (out / "indexed").symlink_to(elsewhere, target_is_directory=True)
    (out / "coco").write_text("mine")
    before = content(tmp_path)
    for form in ("indexed", "coco"):
        with pytest.raises(FolderExistsError, match="stays"):
            export_dataset(items("x"), CLASSES, out, [form], overwrite=True)
    assert content(tmp_path) == before


def test_a_file_that_was_changed_since_is_not_replaced(tmp_path: Path):
    out = export_dataset(items(), CLASSES, tmp_path / "o", ["yolo-seg"])
    place = out / "yolo-seg" / "data.yaml"
    place.write_text(place.read_text() + "path: /data\n")
    before = content(out)
    with pytest.raises(FolderExistsError, match=r"data\.yaml.*changed"):
        export_dataset(items("x"), CLASSES, out, ["yolo-seg"], overwrite=True)
    assert content(out) == before


def test_a_new_file_does_not_take_the_place_of_another(tmp_path: Path):
    out = export_dataset(items("a"), CLASSES, tmp_path / "o")
    mine = out / "indexed" / "images" / "B.png"
    mine.write_text("mine")
    before = content(out)
    with pytest.raises(FolderExistsError, match=r"B\.png"):
        export_dataset(items("ab"), CLASSES, out, overwrite=True)
    assert content(out) == before


FOLDERS = ("", "images/", "labels/", "mine/", "images/deep/er/")


@settings(
    max_examples=12,
    deadline=None,
)
@given(
    forms=st.lists(st.sampled_from(list(FORMATS)), min_size=1, max_size=2, unique=True),
    split=st.sampled_from([None, Split(0.5, 0.3, 0.2)]),
    mine=st.dictionaries(
        st.tuples(
            st.sampled_from(FOLDERS),
            st.text("xyzÄ .", min_size=1, max_size=5).filter(
                lambda name: name.strip(". ")
            ),
        ),
        st.binary(max_size=5),
        min_size=1,
        max_size=4,
    ),
)
def test_whatever_else_is_there_stays(
    tmp_path_factory: pytest.TempPathFactory, forms, split, mine
):
    out = tmp_path_factory.mktemp("o")
    export_dataset(items("abcd"), CLASSES, out, forms, split=split)
    written = content(out)
    others = {f"{folder}mine-{name}": data for (folder, name), data in mine.items()}
    for form in forms:
        for place, data in others.items():
            path = out / form / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (out / form / "a-link").symlink_to("nowhere")
        (out / form / "an empty one").mkdir()
    export_dataset(items("ac"), CLASSES, out, forms, overwrite=True)
    export_dataset(items("abcd"), CLASSES, out, forms, split=split, overwrite=True)
    after = content(out)
    for form in forms:
        assert (out / form / "an empty one").is_dir()
        assert after.pop(f"{form}/a-link") == "nowhere"
        for place, data in others.items():
            assert after.pop(f"{form}/{place}") == data
    assert set(after) == set(written)


def test_a_kill_while_folders_change_places_loses_nothing(tmp_path: Path):
    """The moment between the old folder's leaving and the new one's coming."""
    out = export_dataset(items(), CLASSES, tmp_path / "o")
    (out / "indexed" / "mine.txt").write_text("mine")
    script = f"""
import os, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_export_over_folders import *
rename = pathlib.Path.rename
def killed(self, target):
    done = rename(self, target)
    if {OLD!r} in str(target):
        os._exit(9)
    return done
pathlib.Path.rename = killed
export_dataset(items("x"), CLASSES, {str(out)!r}, overwrite=True)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == 9
    assert not (out / "indexed").exists()
    assert (out / STAGING / f"{OLD}indexed" / "mine.txt").is_file()
    export_dataset(items("y"), CLASSES, out, ["coco"], overwrite=True)
    assert (out / "indexed" / "mine.txt").read_text() == "mine"
    assert {p.name for p in (out / "indexed/images").iterdir()} == {
        "a.png",
        "b.png",
        "c.png",
    }
    shutil.rmtree(out)
