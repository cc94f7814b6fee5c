"""OME-Zarr through a project: out, in, and labels back beside their pictures."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("zarr", minversion="3")
import zarr

from napari_ovam import ExportItem, LabelClass, export_dataset
from napari_ovam.cli import app
from napari_ovam.datasets.exporters import FolderExistsError, Split
from napari_ovam.datasets.importers import ImportSourceError, open_source
from napari_ovam.datasets.importers.ome_zarr import Choice, open_ome_zarr
from napari_ovam.images.ome_zarr import Axis, open_images
from napari_ovam.images.ome_zarr_write import (
    About,
    Frame,
    list_labels,
    write_pyramid,
)
from napari_ovam.project import Project
from napari_ovam.segmentation.instances import Instances
from napari_ovam.segmentation.instances.files import (
    instances_path,
    load_instances,
    save_instances,
)
from napari_ovam.workflows.importing import import_masks
from napari_ovam.workflows.stores import write_into_stores

CLASSES = [
    LabelClass(2, "cat", (1, 2, 3)),
    LabelClass(9, "dog", thing=False),
    LabelClass(300, 'say "a, b" 🐈', (4, 5, 6)),
]
RNG = np.random.default_rng(0)


def item(name: str, *, told: bool = False) -> ExportItem:
    labels = RNG.choice(np.array([0, 2, 9, 300, 255], "u2"), (23, 31))
    inside = (labels != 0) & (labels != 255)
    side = np.arange(31) // 16 if name != "one" else 0
    # numbers beyond 16 bits
    numbers = np.where(inside, labels.astype(np.int64) * 1000 + 70_000 + side, 0)
    image = RNG.integers(0, 255, (23, 31, 3), "u1")
    return ExportItem(name, image, labels, instances=numbers if told else None)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_export_comes_back(tmp_path: Path, version: str):
    items = [item("one"), item("ein Kätzchen 🐱", told=True)]
    form = "ome-zarr" if version == "0.5" else "ome-zarr-0.4"
    split = Split(0.5, 0.5, 0)
    out = export_dataset(items, CLASSES, tmp_path / "o", [form], split=split) / form
    dealt = [(out / "splits" / f"{n}.txt").read_text() for n in ("train", "val")]
    assert sorted(dealt) == sorted(f"{each.name}\n" for each in items)
    for each in items:
        (image,) = open_images(out / f"{each.name}.ome.zarr")
        assert image.version == version
    project = Project.create(tmp_path / "p")
    project.classes.add("dog")
    report = import_masks(project, open_source(out, "ome-zarr"))
    assert not report.failed
    assert not report.skipped
    ids = {entry.name: entry.id for entry in project.classes}
    assert ids == {"dog": 1, "cat": 2, 'say "a, b" 🐈': 300}
    assert project.classes[2].color == (1, 2, 3)
    assert not project.classes[1].thing or ids["dog"] == 1
    for each in items:
        name = next(s.name for s in project.samples if each.name[:3] in s.name)
        np.testing.assert_array_equal(project.load_image(name), each.image)
        wanted = np.where(each.labels == 9, 1, each.labels)
        found = project.load_labels(name)
        np.testing.assert_array_equal(found, wanted)
        objects = load_instances(project.path, name, found)
        assert (objects is not None) == (each.instances is not None)
        if objects is not None:
            pairs = np.stack([objects.ids, each.instances], -1).reshape(-1, 2)
            assert len(np.unique(pairs, axis=0)) == len(np.unique(each.instances))


def stack(folder: Path, version: str = "0.5", **labels: np.ndarray) -> Path:
    """A picture of two channels and three planes, with labels."""
    axes = (Axis("c", "channel"), Axis("z", "space", "micrometer"))
    axes += tuple(Axis(name, "space", "micrometer") for name in "yx")
    pixels = RNG.integers(0, 4000, (2, 3, 700, 40), "u2")
    frame = Frame.of(axes, pixels.shape, (1, 5, -0.5, 0.25), (0, 0, 100, 0))
    write_pyramid(folder, pixels, frame, About("cells"), version)
    if labels:
        list_labels(folder / "labels", list(labels), version)
    for name, values in labels.items():
        flat = Frame.of(axes[1:], values.shape, (5, -0.5, 0.25), (0, 100, 0))
        place = folder / "labels" / name
        write_pyramid(place, values, flat, About(name), version)
    return folder


def nuclei() -> np.ndarray:
    """More than 2^16 objects without names."""
    found = np.arange(3 * 700 * 40, dtype="u4").reshape(3, 700, 40)
    return np.where(found % 2, found, 0).astype("u4")


def test_a_stack_becomes_samples_that_lie_where_it_does(tmp_path: Path):
    store = stack(tmp_path / "a.ome.zarr", nuclei=nuclei())
    project = Project.create(tmp_path / "p")
    choice = Choice(planes={"z": range(1, 3)})
    report = import_masks(project, open_ome_zarr(store, choice))
    assert report.added == ("a-z1", "a-z2")
    assert [entry.name for entry in project.classes] == ["nuclei"]
    about = project.sample("a-z1").provenance
    assert about["placement"] == {
        "scale": [-0.5, 0.25],
        "translate": [100.0, 0.0],
        "units": ["micrometer", "micrometer"],
    }
    found = project.load_labels("a-z2")
    np.testing.assert_array_equal(found, nuclei()[2] > 0)
    objects = load_instances(project.path, "a-z2", found)
    assert len(np.unique(objects.ids)) == 700 * 40 // 2 + 1
    again = import_masks(project, open_ome_zarr(store, choice))
    assert set(again.kept) == {"a-z1", "a-z2"}
    assert not again.added


def test_of_a_picture_that_is_too_large_a_smaller_level_comes(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("napari_ovam.images.ome_zarr_pixels.MAX_PIXELS", 20_000)
    store = stack(tmp_path / "a.zarr", nuclei=nuclei())
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(store, "ome-zarr"))
    assert "level 1" in report.notes[0]
    assert project.image_size("a-z0") == (350, 20)
    found = project.load_labels("a-z0")
    np.testing.assert_array_equal(found, nuclei()[0, ::2, ::2] > 0)
    assert project.sample("a-z0").provenance["placement"]["scale"] == [-1.0, 0.5]


def test_a_picture_without_labels_is_new(tmp_path: Path):
    store = stack(tmp_path / "a.zarr")
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(store, "ome-zarr"))
    assert len(report.added) == 3
    assert not report.labelled
    assert {sample.status for sample in project.samples} == {"new"}
    assert not project.files.labels("a-z0").exists()


def test_values_without_a_name_among_named_ones_are_said(tmp_path: Path):
    store = stack(tmp_path / "a.zarr", kinds=nuclei() % 4)
    head = store / "labels" / "kinds" / "zarr.json"
    content = json.loads(head.read_text())
    content["attributes"]["ome"]["image-label"] = {
        "properties": [{"label-value": 1, "class": "odd"}],
        "colors": [{"label-value": 1, "rgba": [9, 8, 7, 255]}],
    }
    head.write_text(json.dumps(content))
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(store, "ome-zarr"))
    assert project.classes[1].name == "odd"
    assert project.classes[1].color == (9, 8, 7)
    assert "without a name, which are unsure" in str(report.skipped)
    wanted = np.array([0, 1, 0, 255])[(nuclei() % 4)[0]]
    np.testing.assert_array_equal(project.load_labels("a-z0"), wanted)


def test_one_broken_store_of_a_folder_is_named_and_the_others_come(tmp_path: Path):
    stack(tmp_path / "d" / "good.zarr")
    broken = stack(tmp_path / "d" / "sub" / "broken.zarr")
    (broken / "zarr.json").write_text("{")
    source = open_source(tmp_path / "d", "ome-zarr")
    assert len(source.pictures) == 3
    assert "cut off" in source.problems["sub/broken.zarr"][0]
    with pytest.raises(ImportSourceError, match="cut off"):
        open_source(broken, "ome-zarr")


# -- labels beside their pictures ----------------------------------------------------


@pytest.fixture(params=["0.4", "0.5"])
def filled(tmp_path: Path, request: pytest.FixtureRequest):
    """A store, and a project with labels of two of its planes."""
    store = stack(tmp_path / "a.zarr", request.param, foreign=nuclei())
    project = Project.create(tmp_path / "p")
    source = open_ome_zarr(store, Choice(labels=(), planes={"z": range(2)}))
    import_masks(project, source)
    project.classes.add("cell")
    for number, name in enumerate(("a-z0", "a-z1")):
        labels = np.zeros((700, 40), np.uint8)
        labels[number : 300 + number, 5:9], labels[600:] = 1, 255
        project.save_labels(name, labels)
    return store, project


def in_store(store: Path, name: str = "ovam") -> np.ndarray:
    (image,) = open_images(store)
    return image.label_image(name).array()[...]


def contents(store: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_labels_lie_beside_their_picture(filled):
    store, project = filled
    before = contents(store)
    report = write_into_stores(project, project.items())
    assert report.written == {str(store / "labels" / "ovam"): 2}
    (image,) = open_images(store)
    assert image.label_names() == ["foreign", "ovam"]
    labels = image.label_image("ovam")
    assert [axis.name for axis in labels.axes] == ["z", "y", "x"]
    assert labels.levels == tuple(
        type(each)(each.path, each.shape[1:], each.scale[1:], each.translation[1:])
        for each in image.levels
    )
    said = labels.about["image-label"]
    assert said["properties"][0]["name"] == "cell"
    assert said["version"] == image.version
    found = in_store(store)
    for number, name in enumerate(("a-z0", "a-z1")):
        np.testing.assert_array_equal(found[number], project.load_labels(name))
    assert not found[2].any()
    after = contents(store)
    same = {path for path in before if before[path] == after[path]}
    assert len(set(before) - same) <= 1  # the list of labels
    assert not [path for path in after if ".tmp" in path or ".old" in path]


def test_labels_are_replaced_only_if_they_are_ours(filled):
    store, project = filled
    write_into_stores(project, project.items())
    project.save_labels("a-z0", np.ones((700, 40), np.uint8))
    report = write_into_stores(project, project.items())
    assert "is there already" in str(report.failed)
    assert not in_store(store)[0].all()
    report = write_into_stores(project, project.items(), overwrite=True)
    assert not report.failed
    assert in_store(store)[0].all()
    for name, why in (("foreign", "not written by napari-ovam"),):
        report = write_into_stores(project, project.items(), name=name, overwrite=True)
        assert why in str(report.failed)
    labels = zarr.open_group(store / "labels" / "ovam", mode="r+")
    labels["0"][0, 0, 0] = 0
    before = contents(store)
    report = write_into_stores(project, project.items(), overwrite=True)
    assert "changed since napari-ovam wrote it" in str(report.failed)
    assert contents(store) == before


def test_objects_come_and_go(filled):
    store, project = filled
    labels = project.load_labels("a-z0")
    numbers = np.where(labels == 1, np.arange(40) % 8 + 1, 0).astype(np.int32)
    owners = dict.fromkeys(np.unique(numbers)[1:].tolist(), 1)
    save_instances(project.path, "a-z0", Instances(numbers, owners))
    report = write_into_stores(project, project.items())
    assert len(report.written) == 2
    found = in_store(store, "ovam-objects")[0]
    np.testing.assert_array_equal(found, numbers)
    (image,) = open_images(store)
    said = image.label_image("ovam-objects").about["image-label"]["properties"]
    assert {each["name"] for each in said} == {"cell"}
    instances_path(project.path, "a-z0").unlink()
    report = write_into_stores(project, project.items(), overwrite=True)
    assert len(report.written) == 1
    assert open_images(store)[0].label_names() == ["foreign", "ovam"]


def test_labels_of_several_levels_are_not_mixed(filled):
    store, project = filled
    import_masks(project, open_ome_zarr(store, Choice(1, planes={"z": range(2, 3)})))
    report = write_into_stores(project, project.items())
    assert not report.written
    assert "several levels" in str(report.failed)


def test_labels_of_a_coarser_level_fill_the_finer_ones(tmp_path: Path):
    store = stack(tmp_path / "a.zarr")
    project = Project.create(tmp_path / "p")
    import_masks(project, open_ome_zarr(store, Choice(1, planes={"z": range(1)})))
    project.classes.add("cell")
    labels = RNG.choice(np.array([0, 1], "u1"), (350, 20))
    project.save_labels("a-z0", labels)
    assert not write_into_stores(project, project.items()).failed
    assert in_store(store).shape == (3, 700, 40)
    (image,) = open_images(store)
    found = image.label_image("ovam").array(1)[0]
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("after", [0, 1, 3, 7])
def test_a_full_disk_leaves_the_store_as_it_was(filled, monkeypatch, after: int):
    store, project = filled
    before = contents(store)
    original, left = zarr.storage.LocalStore.set, [after]

    async def set(self, key, value, *rest, **more):  # noqa: A001
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await original(self, key, value, *rest, **more)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", set)
    with pytest.raises(OSError, match="No space left"):
        write_into_stores(project, project.items())
    monkeypatch.undo()
    assert contents(store) == before
    assert not write_into_stores(project, project.items()).failed


def test_a_kill_between_the_moves_loses_nothing(filled, monkeypatch):
    store, project = filled
    write_into_stores(project, project.items())
    kept = in_store(store)
    (store / "labels" / "ovam").rename(store / ".ovam.0123.old")
    project.save_labels("a-z0", np.ones((700, 40), np.uint8))
    report = write_into_stores(project, project.items())
    assert "is there already" in str(report.failed)
    np.testing.assert_array_equal(in_store(store), kept)


def test_a_place_that_can_only_be_read_is_said(filled, monkeypatch):
    store, project = filled
    original = Path.rename

    def rename(self: Path, target):
        if store in Path(target).parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        return original(self, target)

    before = contents(store)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        write_into_stores(project, project.items())
    assert contents(store) == before


def test_copies_of_the_metadata_know_the_new_labels(filled):
    store, project = filled
    zarr.consolidate_metadata(store)
    write_into_stores(project, project.items())
    group = zarr.open_consolidated(store)
    assert "labels/ovam/0" in group


def test_the_commands(filled, tmp_path: Path):
    store, project = filled
    runner = CliRunner()
    found = runner.invoke(app, ["store-labels", str(project.path), "--name", "mine"])
    assert found.exit_code == 0, found.output
    assert "mine (2 planes)" in found.output
    found = runner.invoke(app, ["store-labels", str(project.path), "--name", "mine"])
    assert found.exit_code == 2
    assert "is there already" in found.output
    command = ["import", str(tmp_path / "q"), str(store), "--format", "ome-zarr"]
    more = ["--planes", "z=2", "--channels", "1", "--level", "1"]
    found = runner.invoke(app, [*command, *more])
    assert found.exit_code == 0, found.output
    (sample,) = Project.open(tmp_path / "q").samples
    assert sample.name == "a-z2"
    found = runner.invoke(app, [*command, "--planes", "z=a"])
    assert found.exit_code == 1
    assert "z=10:20" in found.output


def test_an_existing_folder_of_others_is_no_export(tmp_path: Path):
    export_dataset([item("one")], CLASSES, tmp_path / "o", ["ome-zarr"])
    labels = zarr.open_group(
        tmp_path / "o" / "ome-zarr" / "one.ome.zarr" / "labels" / "classes", mode="r+"
    )
    labels["0"][0, 0] = 1
    with pytest.raises(FolderExistsError, match="changed since the export"):
        export_dataset(
            [item("one")], CLASSES, tmp_path / "o", ["ome-zarr"], overwrite=True
        )
