"""Pictures that stay where they are: moved, changed and missing ones."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_ovam import export_dataset
from napari_ovam.cli import app
from napari_ovam.datasets.importers import open_source
from napari_ovam.project import Project
from napari_ovam.project.pictures import MissingPictureError
from napari_ovam.project.verify import verify
from napari_ovam.workflows.accepted import usable_images
from napari_ovam.workflows.adding import add_file, pictures_in
from napari_ovam.workflows.importing import import_masks
from napari_ovam.workflows.sample_trace import saved_trace

RNG = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    pixels = RNG.integers(0, 256, (*size, 3), "u1")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "b.bmp", "sub/a.png"):
        picture(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def project(tmp_path: Path, photos: Path) -> Project:
    project = Project.create(tmp_path / "work")
    project.classes.add("cat")
    for path in pictures_in(photos):
        name, new = add_file(project, path, left_in=photos)
        assert new
        project.save_labels(name, np.ones((20, 30), np.uint8))
    return project


def test_pictures_stay_where_they_are(project: Project, photos: Path):
    assert [sample.name for sample in project.samples] == ["a", "b", "a-2"]
    assert not list((project.path / "images").iterdir())
    assert project.image_file("a-2") == photos / "sub" / "a.png"
    pixels = np.asarray(Image.open(photos / "b.bmp"))
    opened = Project.open(project.path)
    assert not opened.notes
    np.testing.assert_array_equal(opened.load_image("b"), pixels)
    assert opened.image_size("b") == (20, 30)
    assert add_file(opened, photos / "b.bmp", left_in=photos) == ("b", False)
    assert verify(project.path).problems == ()
    out = export_dataset(
        opened.items(), opened.label_classes(), project.path.parent / "out"
    )
    found = np.asarray(Image.open(out / "indexed" / "images" / "b.png"))
    np.testing.assert_array_equal(found, pixels)


def test_project_and_folder_move_together(project: Project, tmp_path: Path):
    shutil.copytree(tmp_path / "photos", tmp_path / "new" / "photos")
    shutil.move(project.path, tmp_path / "new" / "work")
    shutil.rmtree(tmp_path / "photos")
    opened = Project.open(tmp_path / "new" / "work")
    assert not opened.notes  # also where a copy has other times
    assert opened.image_file("a") == tmp_path / "new" / "photos" / "a.png"


def test_a_folder_elsewhere_is_kept_as_it_is(tmp_path: Path, photos: Path):
    project = Project.create(tmp_path / "deep" / "er" / "work")
    add_file(project, photos / "a.png", left_in=photos)
    assert project.reference("a").folder == str(photos)
    assert project.load_image("a").shape == (20, 30, 3)


def test_a_moved_picture_is_found_by_its_content(project: Project, photos: Path):
    picture(photos / "other.png")
    (photos / "deep").mkdir()
    (photos / "a.png").rename(photos / "deep" / "renamed.png")
    opened = Project.open(project.path)
    assert "1 picture was moved, and found again: a" in opened.notes[0]
    assert opened.image_file("a") == photos / "deep" / "renamed.png"
    opened.save()
    assert not Project.open(project.path).notes


def test_a_missing_picture_is_said_and_its_labels_can_be_edited(
    project: Project, photos: Path
):
    (photos / "a.png").unlink()
    opened = Project.open(project.path)
    assert "1 picture is missing: a." in opened.notes[0]
    with pytest.raises(MissingPictureError, match=r"photos.*a.png.*labels are kept"):
        opened.load_image("a")
    assert opened.image_size("a") == (20, 30)
    assert opened.settings("a") is None
    np.testing.assert_array_equal(opened.load_labels("a"), np.ones((20, 30)))
    opened.save_labels("a", np.zeros((20, 30), np.uint8))
    assert opened.load_image("b").shape == (20, 30, 3)
    assert any("a.png: is missing" in each for each in verify(project.path).problems)
    with pytest.raises(ValueError, match="the picture of a is not at"):
        export_dataset(
            opened.items(), opened.label_classes(), project.path.parent / "out"
        )


def test_locating_the_folder_mends_all_at_once(
    project: Project, photos: Path, tmp_path: Path
):
    elsewhere = tmp_path / "else" / "where"
    elsewhere.parent.mkdir()
    photos.rename(elsewhere)
    (elsewhere / "b.bmp").rename(elsewhere / "renamed.bmp")
    picture(elsewhere / "sub" / "a.png")  # another, in its place
    opened = Project.open(project.path)
    assert "3 pictures are missing" in opened.notes[0]
    report = opened.locate_pictures(elsewhere)
    assert report.moved == ("a", "b", "a-2")
    assert report.changed == ("a-2",)
    assert not report.missing
    again = Project.open(project.path)
    assert again.image_file("b") == elsewhere / "renamed.bmp"
    assert "1 picture has changed since being added: a-2" in again.notes[0]
    with pytest.raises(ValueError, match="there is no folder"):
        opened.locate_pictures(tmp_path / "nowhere")


def test_a_changed_picture_is_noticed_even_where_its_size_and_name_stay(
    project: Project, photos: Path
):
    file = photos / "b.bmp"  # not compressed: of the same size
    size = file.stat().st_size
    project.files.trace("b").write_bytes(b"of the old picture")
    picture(file)
    os.utime(file, (1, 1))
    assert file.stat().st_size == size
    opened = Project.open(project.path)
    assert "1 picture has changed since being added: b" in opened.notes[0]
    assert opened.picture_changed("b")
    assert not opened.picture_changed("a")
    assert saved_trace(opened, "b") is None
    np.testing.assert_array_equal(opened.load_labels("b"), np.ones((20, 30)))
    assert any("changed since" in each for each in verify(project.path).problems)
    opened.take_pictures(["b"])
    assert not opened.files.trace("b").exists()
    again = Project.open(project.path)
    assert not again.notes
    assert verify(project.path).problems == ()


def test_nothing_is_learned_from_pictures_that_are_away_or_others(
    project: Project, photos: Path
):
    labels = np.eye(20, 30, dtype=np.uint8)
    for sample in project.samples:
        project.save_labels(sample.name, labels, "accepted")
    (photos / "a.png").unlink()
    picture(photos / "b.bmp")
    found, failed = usable_images(Project.open(project.path), [1], lambda: None)
    assert found == {1: ["a-2"]}
    assert failed.keys() == {"a", "b"}
    assert "missing" in failed["a"]
    assert "changed" in failed["b"]


def test_a_picture_of_another_size_is_not_taken(project: Project, photos: Path):
    picture(photos / "a.png", (9, 9))
    opened = Project.open(project.path)
    assert opened.image_size("a") == (9, 9)
    with pytest.raises(ValueError, match=r"\(9, 9\).*put the picture back"):
        opened.take_pictures(["a"])


def test_a_file_whose_time_alone_changed_is_hashed_once(
    project: Project, photos: Path, monkeypatch
):
    os.utime(photos / "a.png", (5, 5))
    hashed = []
    from napari_ovam.base.hashing import hash_file

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return hash_file(path)

    monkeypatch.setattr("napari_ovam.project.pictures.hash_file", counted)
    opened = Project.open(project.path)
    assert not opened.notes
    assert hashed == ["a.png"]
    opened.save()
    Project.open(project.path)
    assert hashed == ["a.png"]


def test_damaged_references_are_images_that_are_missing(project: Project):
    index = project.path / "project.json"
    index.write_text(index.read_text().replace('"file": "b.bmp"', '"file": 7'))
    opened = Project.open(project.path)
    assert "images are missing" in " ".join(opened.notes)
    assert opened.load_labels("b") is not None


def test_an_import_leaves_pictures_where_they_are(project: Project, tmp_path: Path):
    out = export_dataset(project.items(), project.label_classes(), tmp_path / "o")
    other = Project.create(tmp_path / "other")
    source = open_source(out / "indexed", "indexed")
    report = import_masks(other, source, by_reference=True)
    assert sorted(report.added) == ["a", "a-2", "b"]
    assert not list((other.path / "images").iterdir())
    assert other.image_file("b") == out / "indexed" / "images" / "b.png"
    assert other.reference("b").folder == "../o/indexed"
    np.testing.assert_array_equal(other.load_image("b"), project.load_image("b"))
    assert not import_masks(other, source, by_reference=True).added


def test_one_page_of_several(tmp_path: Path):
    pages = [Image.fromarray(RNG.integers(0, 256, (8, 9, 3), "u1")) for _ in range(3)]
    path = tmp_path / "t" / "pages.tif"
    path.parent.mkdir()
    pages[0].save(path, save_all=True, append_images=pages[1:])
    project = Project.create(tmp_path / "p")
    name, _ = add_file(project, path, page=2, left_in=path.parent)
    opened = Project.open(project.path)
    np.testing.assert_array_equal(opened.load_image(name), np.asarray(pages[2]))
    assert verify(project.path).problems == ()


def test_the_commands(tmp_path: Path, photos: Path):
    runner, work = CliRunner(), str(tmp_path / "work")
    (photos / "broken.png").write_bytes(b"\x89PNG no")
    found = runner.invoke(app, ["add", str(photos), "--out", work, "--by-reference"])
    assert found.exit_code == 2, found.output
    assert "broken.png" in found.output
    assert str(photos / "b.bmp") in found.output
    assert len(Project.open(tmp_path / "work").samples) == 3
    photos.rename(tmp_path / "moved")
    found = runner.invoke(app, ["pictures", work])
    assert found.exit_code == 2
    assert "b: missing" in found.output
    found = runner.invoke(app, ["pictures", work, "--locate", str(tmp_path / "moved")])
    assert found.exit_code == 0, found.output
    assert "3 pictures found" in found.output
    picture(tmp_path / "moved" / "b.bmp")
    os.utime(tmp_path / "moved" / "b.bmp", (1, 1))
    found = runner.invoke(app, ["pictures", work])
    assert "b: changed" in found.output
    found = runner.invoke(app, ["pictures", work, "--take-changed"])
    assert "b: taken as it is now" in found.output
    assert not Project.open(tmp_path / "work").notes
    found = runner.invoke(app, ["add", str(tmp_path / "moved"), "--out", work])
    assert found.output.count("is there already") == 3
