"""`napari-ovam import`: what is said, and with which exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_ovam.cli import app
from napari_ovam.project import Project


def run(*arguments: object):
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for folder, pixels in (
        ("images", np.zeros((4, 5, 3), np.uint8)),
        ("masks", np.eye(4, 5, dtype=np.uint8)),
    ):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for name in ("a", "b"):
            Image.fromarray(pixels).save(tmp_path / f"set/{folder}/{name}.png")
    return tmp_path / "set"


def test_all_is_read_and_a_second_time_it_is_there_already(tmp_path: Path, data: Path):
    done = run(tmp_path / "p", data, "--format", "indexed")
    assert done.exit_code == 0, done.output
    assert "2 labelled (2 new images)" in done.output
    again = run(tmp_path / "p", data, "--format", "indexed")
    assert again.exit_code == 0
    assert "a: it is there already; its labels are kept (edited)" in again.output
    assert len(Project.open(tmp_path / "p").samples) == 2


def test_one_broken_mask_among_good_ones(tmp_path: Path, data: Path):
    (data / "masks/b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run(tmp_path / "p", data, "--format", "indexed")
    assert done.exit_code == 2
    assert "images/b.png: b.png is broken" in done.output
    assert "1 labelled (1 new images), 0 left as they were, 1 failed" in done.output
    assert [s.name for s in Project.open(tmp_path / "p").samples] == ["a"]


def test_a_box_without_a_mask_is_said_and_the_rest_imported(tmp_path: Path, data: Path):
    square = [[0, 0, 2, 0, 2, 2, 0, 2]]
    about = {"image_id": 1, "category_id": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, **about, "segmentation": square},
            {"id": 2, **about, "bbox": [0, 0, 2, 2]},
        ],
    }
    (data / "labels.json").write_text(json.dumps(content))
    done = run(tmp_path / "p", data, "--format", "coco")
    assert done.exit_code == 2
    assert "images/a.png: annotation 2: no mask, only a box" in done.output
    assert "1 not understood in all" in done.output
    labels = Project.open(tmp_path / "p").load_labels("a")
    assert labels.sum() == 4


def test_what_is_no_data_set_makes_no_project(tmp_path: Path, data: Path):
    done = run(tmp_path / "p", data, "--format", "voc")
    assert done.exit_code == 1
    assert "no masks" in done.output
    assert not (tmp_path / "p").exists()


def test_a_data_set_goes_out_as_it_came(tmp_path: Path):
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "a.jpg")
    polygon = '<polygon label="cat" points="0,0;2,0;2,2;0,2" mine="1"></polygon>'
    box = '<box label="cat" xtl="0" ytl="0" xbr="2" ybr="2"></box>'
    (folder / "mine.xml").write_text(
        f'<annotations><image name="a.jpg" width="5" height="4">{polygon}{box}</image>'
        "</annotations>"
    )
    done = run(tmp_path / "p", folder, "--format", "cvat")
    assert done.exit_code == 2  # the box is named
    assert "1 boxes are no masks" in done.output
    export = ["export", tmp_path / "p", "--format", "as-imported,cvat", "--out"]
    done = CliRunner().invoke(app, [*map(str, export), str(tmp_path / "o")])
    assert done.exit_code == 0, done.output
    assert "cvat: unsure pixels belong to no mask" in done.output
    for name in ("a.jpg", "mine.xml"):
        found = (tmp_path / "o/as-imported" / name).read_bytes()
        assert found == (folder / name).read_bytes()
    verified = CliRunner().invoke(app, ["verify", str(tmp_path / "o")])
    assert verified.exit_code == 0, verified.output
