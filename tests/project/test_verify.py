"""What `verify` finds, one damage at a time, and that it changes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_ovam import export_dataset
from napari_ovam.cli import app
from napari_ovam.datasets.exporters import FORMATS
from napari_ovam.project import Project
from napari_ovam.project.verify import VerifyError, verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    project = Project.create(tmp_path / "p")
    project.classes.add("cat")
    for name in ("a", "b"):
        project.add_sample(np.full((6, 7, 3), 9, np.uint8), {"prompt": "x"}, name)
    ids = np.eye(6, 7, dtype=np.uint8)
    project.save_labels("a", ids, "accepted", painted=ids > 0)
    return project.path


def contents(path: Path) -> dict[str, bytes]:
    files = (p for p in path.rglob("*") if p.is_file())
    return {str(p): p.read_bytes() for p in files}


def test_a_whole_project_and_its_exports_are_fine(folder: Path, tmp_path: Path):
    before = contents(folder)
    report = verify(folder)
    assert report.problems == report.notes == ()
    assert report.checked >= 5
    assert contents(folder) == before
    project = Project.open(folder)
    out = export_dataset(
        project.items(), project.label_classes(), tmp_path / "o", list(FORMATS)
    )
    report = verify(out)
    assert report.problems == report.notes == ()
    assert verify(out / "voc").problems == ()
    assert report.checked > 3 * len(FORMATS)


def paint(value: int, shape: tuple[int, int] = (6, 7)) -> Callable[[Path], None]:
    pixels = np.full(shape, value, np.uint8)
    return lambda path: Image.fromarray(pixels).save(path)


def swap(path: Path) -> None:
    """Other pixels under the old text: its hash is no longer true."""
    with Image.open(path) as old:
        text = old.info["ovam"]
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("ovam", text)
    Image.fromarray(np.ones((6, 7), np.uint8)).save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("place", "damage", "named"),
    [
        ("images/a.png", Path.unlink, "images/a.png: is missing"),
        ("images/b.png", lambda p: p.write_bytes(b"x"), "images/b.png: cannot be"),
        ("images/b.png", paint(3), "images/b.png: was changed"),
        ("labels/a.png", Path.unlink, "labels/a.png: the labels are missing"),
        (
            "labels/a.png",
            lambda p: p.write_bytes(p.read_bytes()[:90]),
            "labels/a.png: cannot be read",
        ),
        ("labels/a.png", paint(7), "without a class: 7"),
        ("labels/a.png", paint(1, (3, 3)), "is (3, 3) pixels, the image (6, 7)"),
        ("labels/a.png", swap, "does not hold what was saved"),
        ("labels/z.png", paint(1), "labels/z.png: has no image"),
        ("edits/a.png", paint(1, (2, 2)), "edits/a.png: is (2, 2)"),
        ("instances/a.png", paint(1), "instances/a.png"),
        ("project.json", lambda p: p.write_text("{"), "project.json was damaged"),
        ("traces/a.safetensors", lambda p: p.write_text("?"), "traces/a.safetensors"),
    ],
)
def test_each_damage_is_named(
    folder: Path, place: str, damage: Callable[[Path], object], named: str
):
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    damage(path)
    before = contents(folder)
    report = verify(folder)
    assert any(named in problem for problem in report.problems), report
    assert contents(folder) == before


def test_two_damaged_indices_are_named(folder: Path):
    for name in ("project.json", "project.json.bak"):
        (folder / name).write_text("{")
    assert "so is its copy" in verify(folder).problems[0]


def test_labels_of_another_program_are_a_note(folder: Path):
    paint(1)(folder / "labels/a.png")
    (folder / "labels/.a.png.0.tmp").write_text("")
    report = verify(folder)
    assert not report.problems
    assert any("another program" in note for note in report.notes)
    assert any("stopped" in note for note in report.notes)


def test_a_missing_token_is_named(folder: Path):
    project = Project.open(folder)
    project.classes.change(1, token="1-cat.safetensors", source="token")
    project.save()
    assert verify(folder).problems == ("tokens/1-cat.safetensors: is missing",)


def test_an_export_that_was_changed(folder: Path, tmp_path: Path):
    project = Project.open(folder)
    out = export_dataset(
        project.items(), project.label_classes(), tmp_path / "o", ["indexed", "coco"]
    )
    content = json.loads((out / "indexed/ovam.json").read_text())
    (item,) = content["items"]
    assert item["provenance"]["image"]["prompt"] == "x"
    assert item["provenance"]["status"] == "accepted"
    paint(1)(out / "indexed/labels/a.png")
    (out / "indexed/images/a.png").unlink()
    (out / "coco/labels.cache").write_text("")
    report = verify(out)
    assert report.problems == (
        "indexed/images/a.png: is missing",
        "indexed/labels/a.png: was changed since the export",
    )
    assert report.notes == ("coco/labels.cache: was not there when it was exported",)

    content["files"] = {"../../p/project.json": {"sha256": "", "bytes": 1}}
    (out / "indexed/ovam.json").write_text(json.dumps(content))
    assert "outside" in verify(out / "indexed").problems[0]
    (out / "indexed/ovam.json").write_text("[]")
    assert "damaged" in verify(out / "indexed").problems[0]


def test_the_command_exits_with_1_and_a_list(folder: Path, tmp_path: Path):
    def run(path: Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["verify", str(path)])
        return result.exit_code, result.output

    code, output = run(folder)
    assert code == 0
    assert "no problems" in output
    (folder / "images/a.png").unlink()
    shutil.copy(folder / "images/b.png", folder / "labels/a.png")
    code, output = run(folder)
    assert code == 1
    assert "images/a.png: is missing" in output
    assert "labels/a.png: cannot be read" in output
    assert "2 problems" in output
    code, output = run(tmp_path)
    assert code == 1
    assert "neither a project" in output
    with pytest.raises(VerifyError):
        verify(tmp_path / "nowhere")
