"""Data sets as they lie on real disks: nothing is lost, mixed up or silent."""

import json
import os
import sys
import unicodedata
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_ovam.datasets.class_lists import ListedClass
from napari_ovam.datasets.exporters.palette import voc_palette
from napari_ovam.datasets.importers import ImportSourceError, open_source
from napari_ovam.project import Project
from napari_ovam.workflows.importing import import_masks, sample_names

SIZE = (6, 8)
few = settings(max_examples=15, deadline=None)


def picture(seed: int) -> np.ndarray:
    """A picture that says itself which mask is its own: where red is over 127."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def own_mask(image: np.ndarray) -> np.ndarray:
    return (image[..., 0] > 127).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)
    return path


def code_of(mask: np.ndarray) -> dict:
    flat = mask.T.ravel()
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    counts = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def coco_of(names: dict[str, np.ndarray], **more: object) -> dict:
    """A COCO JSON of one mask of class 1 for each picture."""
    return {
        "images": [
            {"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for i, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "red"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": code_of(mask)}
            for i, mask in enumerate(names.values())
        ],
        **more,
    }


def write_json(path: Path, content: dict, *, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    return path


def check_own_masks(project: Project, seeds: set[int]) -> None:
    """Each picture is there once, with its own mask."""
    wanted = {picture(seed).tobytes() for seed in seeds}
    assert {project.load_image(s.name).tobytes() for s in project.samples} == wanted
    assert len(project.samples) == len(wanted)
    red = next(iter(project.classes)).id
    for sample in project.samples:
        image = project.load_image(sample.name)
        np.testing.assert_array_equal(
            project.load_labels(sample.name) == red, own_mask(image) == 1
        )


# -- names -------------------------------------------------------------------------

stems = st.sampled_from(
    [
        "a",
        "A",
        "con",
        "Aux",
        "a-1",
        "a (1)",
        "a_1",
        "Käfer",
        "Ka\u0308fer",
        "ß",
        "ss",
        "x" * 90,
    ]
)
folders = st.sampled_from(["", "cam1/", "cam2/", "Cam1/", "cam1/deep/", "data/"])
paths = st.builds(
    "{}{}{}".format, folders, stems, st.sampled_from([".png", ".PNG", ".bmp"])
)


anything = st.text(st.characters(exclude_characters="/\0"), min_size=1)


@few
@example(["d/\udd00", "d/\udc80"])
@given(st.lists(anything.map("d/{}".format) | paths, min_size=1, unique=True))
def test_names_are_unique_and_do_not_depend_on_the_order(names):
    found = sample_names(names)
    keys = {unicodedata.normalize("NFC", name).casefold() for name in found.values()}
    assert len(keys) == len(names)
    assert sample_names(names[::-1]) == found


@few
@given(st.lists(paths, min_size=1, max_size=7, unique=True))
def test_each_picture_of_coco_keeps_its_own_mask(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("set")
    masks = {}
    for seed, name in enumerate(names):
        save(root / "images" / name, picture(seed))
        masks[name] = own_mask(picture(seed))
    write_json(root / "annotations" / "all.json", coco_of(masks))
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "coco"))
    assert not report.failed
    seeds = set(range(len(names)))
    check_own_masks(project, seeds)
    again = import_masks(project, open_source(root, "coco"))
    assert not again.labelled
    assert len(again.kept) == len(seeds)
    assert all("already" in why for why in again.kept.values())
    assert len(Project.open(project.path).samples) == len(seeds)


@few
@given(st.lists(paths, min_size=1, max_size=7, unique=True), st.booleans())
def test_each_indexed_mask_ends_on_its_own_picture_or_is_named(
    tmp_path_factory, names, suffix
):
    root = tmp_path_factory.mktemp("set")
    for seed, name in enumerate(names):
        save(root / "images" / name, picture(seed))
        mask = f"{name}.png" if suffix else str(Path(name).with_suffix(".png"))
        save(root / "masks" / mask, own_mask(picture(seed)))
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "indexed"))
    red = next(iter(project.classes)).id
    for sample in project.samples:
        image = project.load_image(sample.name)
        labels = project.load_labels(sample.name)
        np.testing.assert_array_equal(labels == red, own_mask(image) == 1)
    masks = len(list((root / "masks").rglob("*.png")))
    assert len(report.labelled) + len(report.failed) == masks
    if suffix:  # each mask says the whole name of its picture
        assert not report.failed


def test_the_same_name_elsewhere_is_another_picture(tmp_path):
    project = Project.create(tmp_path / "p")
    project.add_sample(picture(9), name="a")
    for number, folder in enumerate(("one", "two")):
        save(tmp_path / folder / "images/a.png", picture(number))
        save(tmp_path / folder / "masks/a.png", own_mask(picture(number)))
        report = import_masks(project, open_source(tmp_path / folder, "indexed"))
        assert len(report.added) == 1
        assert "'a' is another image" in report.notes[-1]
    assert project.load_labels("a") is None
    assert [sample.name for sample in project.samples] == ["a", "a-2", "a-3"]


def test_a_part_of_a_data_set_is_known_again(tmp_path):
    root = tmp_path / "set"
    for number, split in enumerate(("train", "valid")):
        save(root / split / "a.jpg.png", picture(number))
        mask = {"a.jpg.png": own_mask(picture(number))}
        write_json(root / split / "_annotations.coco.json", coco_of(mask))
    project = Project.create(tmp_path / "p")
    assert len(import_masks(project, open_source(root, "coco")).added) == 2
    for given_ in (root, root / "train", root / "valid/_annotations.coco.json"):
        assert not import_masks(project, open_source(given_, "coco")).added
    check_own_masks(project, {0, 1})


def test_masks_without_pictures_go_to_samples_of_their_name(tmp_path):
    project = Project.create(tmp_path / "p")
    for number, name in enumerate(("a", "b")):
        project.add_sample(picture(number), name=name)
        save(tmp_path / "masks" / f"{name}.png", own_mask(picture(number)))
    save(tmp_path / "masks/c/b.png", own_mask(picture(2)))
    report = import_masks(project, open_source(tmp_path / "masks", "indexed"))
    assert report.labelled == ("a",)
    assert set(report.failed) == {"b.png", "c/b.png"}
    assert "too" in report.failed["b.png"]


# -- layouts -----------------------------------------------------------------------

words = st.sampled_from(["images", "train2017", "default", "Bilder", "data", "upload"])
places = st.lists(words, max_size=3).map("/".join)


@few
@given(
    where=places,
    file=st.tuples(
        st.sampled_from(["", "annotations/", "json/x/"]),
        st.sampled_from(["instances_default.json", "labels.json", "result.JSON"]),
    ).map("".join),
    style=st.sampled_from(
        ["bare", "folders", "absolute", "windows", "back", "url", "store", "file"]
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    form=st.sampled_from(["NFC", "NFD"]),
)
def test_pictures_are_found_wherever_they_lie(
    tmp_path_factory, where, file, style, encoding, form
):
    root = tmp_path_factory.mktemp("set")
    names = {}
    for seed, name in enumerate(("ä b.PNG", "cam1/1.png", "cam2/1.png")):
        path = f"{where}/{name}".strip("/")
        save(root / path, picture(seed))
        said = unicodedata.normalize(form, name)
        said = {
            "bare": said,
            "folders": f"{where}/{said}".strip("/"),
            "absolute": f"/home/somebody/other/{said}",
            "windows": f"C:\\data\\{said}".replace("/", "\\"),
            "back": said.replace("/", "\\"),
            "url": f"https://example.org/x/{said}?token=1",
            "store": f"s3://bucket/{quote(said)}",
            "file": f"file:///C:/data/{said}",
        }[style]
        names[said] = own_mask(picture(seed))
    (root / "images").mkdir(exist_ok=True)
    (root / "images/._b.png").write_bytes(b"\0\5\x16\7")
    write_json(root / file, coco_of(names), encoding=encoding)
    for given_ in (root, root / file):
        project = Project.create(tmp_path_factory.mktemp("p"))
        if given_ != root and file.count("/") > 1:
            continue  # pictures are looked for one folder up, and no further
        report = import_masks(project, open_source(given_, "coco"))
        assert not report.failed
        check_own_masks(project, {0, 1, 2})


def test_what_is_not_clear_is_named(tmp_path):
    for number, folder in enumerate(("one", "two")):
        save(tmp_path / folder / "a.png", picture(number))
    write_json(tmp_path / "labels.json", coco_of({"a.png": own_mask(picture(0))}))
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "coco"))
    assert "one/a.png or two/a.png" in report.failed["a.png"]


def test_a_picture_that_is_missing_does_not_get_anothers_mask(tmp_path):
    save(tmp_path / "images/cam2/a.png", picture(2))
    masks = {f"cam{i}/a.png": own_mask(picture(i)) for i in (1, 2, 3)}
    write_json(tmp_path / "labels.json", coco_of(masks))
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "coco"))
    assert set(report.failed) == {"cam1/a.png", "cam3/a.png"}
    check_own_masks(project, {2})


@few
@given(
    st.sampled_from(["files", "folder", "both"]),
    st.sampled_from(["coco", "indexed", "voc"]),
    st.sampled_from(["store", "set/store", "."]),
)
def test_links_inside_a_data_set_are_followed(tmp_path_factory, links, form, where):
    base = tmp_path_factory.mktemp("set")
    root, store = base / "set", base / where
    masks = {}
    images = root / ("JPEGImages" if form == "voc" else "images")
    folder = root / {"voc": "SegmentationClass"}.get(form, "masks")
    for seed, name in enumerate(("a.png", "b.png")):
        masks[name] = own_mask(picture(seed))
        for kind, place, pixels in (
            ("pictures", images, picture(seed)),
            ("ids", folder, masks[name]),
        ):
            blob = save(store / f"blobs {kind}" / f"{seed}.bin", pixels, format="PNG")
            if links != "folder":
                place.mkdir(parents=True, exist_ok=True)
                (place / name).symlink_to(blob)
            else:
                blob.rename(blob.with_name(name))
    if links == "folder":
        root.mkdir(exist_ok=True)
        images.symlink_to(store / "blobs pictures", target_is_directory=True)
        folder.symlink_to(store / "blobs ids", target_is_directory=True)
    if links == "both":
        (root / "round").symlink_to(root, target_is_directory=True)
        (root / "gone.png").symlink_to(root / "nowhere")
    if form == "coco":
        write_json(root / "x.json", coco_of(masks))
    project = Project.create(tmp_path_factory.mktemp("p"))
    classes = [ListedClass("red")] if form == "indexed" else None
    report = import_masks(project, open_source(root, form, classes))
    assert len(report.labelled) == 2
    for sample in project.samples:
        labels = project.load_labels(sample.name)
        mask = own_mask(project.load_image(sample.name))
        np.testing.assert_array_equal(labels, mask)


@few
@given(st.lists(st.integers(0, 200), max_size=4), st.integers(0, 255), st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_array_is_a_mask_or_named(tmp_path_factory, places, value, cut):
    root = tmp_path_factory.mktemp("set")
    for seed, name in enumerate(("a", "b")):
        save(root / f"images/{name}.png", picture(seed))
    (root / "masks").mkdir()
    np.save(root / "masks/a.npy", own_mask(picture(0)).astype(np.int64))
    save(root / "masks/b.png", own_mask(picture(1)))
    content = bytearray((root / "masks/a.npy").read_bytes())
    for place in places:
        content[place] = value
    (root / "masks/a.npy").write_bytes(content[: -20 if cut else None])
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "indexed"))
    assert "b" in report.labelled
    if "a" not in report.labelled:
        assert [why for path, why in report.failed.items() if "a" in path]


PARTS = st.sampled_from(["train", "valid", "test2017", "task 1", "task 2"])
LAYOUTS = st.sampled_from(
    [
        ("{}/_annotations.coco.json", "{}"),
        ("{}/annotations/instances_default.json", "{}/images/default"),
        ("{}/labels.json", "{}/data"),
        ("annotations/instances_{}.json", "images/{}"),
        ("annotations/{}.json", "{}"),
        ("{}.json", "pictures/{}"),
    ]
)


@few
@given(
    st.lists(PARTS, min_size=2, max_size=4, unique=True),
    LAYOUTS,
    st.sets(st.integers(0, 7), max_size=3),
    st.booleans(),
)
def test_jsons_of_parts_speak_of_their_own_pictures(
    tmp_path_factory, parts, layout, gone, unnamed
):
    """All parts call their pictures alike, and of some the picture is not there."""
    root = tmp_path_factory.mktemp("set")
    there, seed = set(), 0
    for part in parts:
        masks = {}
        for name in ("1.png", "2.png"):
            if not (unnamed and seed == 1):  # a picture of which no JSON speaks
                masks[name] = own_mask(picture(seed))
                there |= {seed} - gone
            if seed not in gone:
                save(root / layout[1].format(part) / name, picture(seed))
            seed += 1
        write_json(root / layout[0].format(part), coco_of(masks))
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "coco"))
    if there:
        check_own_masks(project, there)
    assert len(report.labelled) == len(there)
    assert len(report.failed) == 2 * len(parts) - unnamed - len(there)


def test_the_size_and_quoted_names_tell_pictures_apart(tmp_path):
    save(tmp_path / "images/a b.png", picture(0))
    save(tmp_path / "images/ c .png", picture(1))
    save(tmp_path / "small/a b.png", picture(0)[::2, ::2])
    masks = {"a%20b.png": own_mask(picture(0)), " c .png": own_mask(picture(1))}
    write_json(tmp_path / "x.json", coco_of(masks))
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(tmp_path, "coco"))
    check_own_masks(project, {0, 1})
    save(tmp_path / "small/a b.png", picture(2))  # of the same size
    other = Project.create(tmp_path / "other")
    report = import_masks(other, open_source(tmp_path, "coco"))
    assert "not clear which" in report.failed["a%20b.png"]


def test_folders_that_a_json_says_count(tmp_path):
    """Also where all its names begin with them."""
    save(tmp_path / "images/a.png", picture(0))
    save(tmp_path / "previews/a.png", picture(1))
    write_json(tmp_path / "x.json", coco_of({"images/a.png": own_mask(picture(0))}))
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(tmp_path, "coco"))
    check_own_masks(project, {0})


def test_several_jsons(tmp_path):
    save(tmp_path / "images/a.png", picture(0))
    save(tmp_path / "images/b.png", picture(1))
    for number, name in enumerate(("instances_train", "instances_val")):
        mask = {f"{'ab'[number]}.png": own_mask(picture(number))}
        write_json(tmp_path / f"annotations/{name}.json", coco_of(mask))
    keypoints = {"a.png": own_mask(picture(0))}
    write_json(tmp_path / "annotations/person_keypoints.json", coco_of(keypoints))
    (tmp_path / "annotations/broken.json").write_text("{")
    (tmp_path / "annotations/captions.json").write_text('{"images": []}')
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "coco"))
    check_own_masks(project, {0, 1})
    assert set(report.skipped) == {"annotations/broken.json"}
    write_json(tmp_path / "annotations/instances_all.json", coco_of(keypoints))
    with pytest.raises(ImportSourceError, match=r"both speak of images/a\.png"):
        open_source(tmp_path, "coco")


# -- annotations -------------------------------------------------------------------

GOOD = [[1, 1, 4, 1, 4, 4, 1, 4]]
broken = st.sampled_from(
    [
        {"segmentation": []},
        {"segmentation": None, "bbox": [1, 1, 2, 2]},
        {"keypoints": [1, 1, 2]},
        {"segmentation": [[1, 1, 3, 3]]},
        {"segmentation": [[1, 1, 3, 3, float("nan"), 2]]},
        {"segmentation": [[1, 1, 1, 1, 1, 1]]},
        {"segmentation": [[90, 90, 95, 90, 95, 95]]},
        {"segmentation": "text"},
        {"segmentation": [[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]]},
        {"segmentation": {"size": [3, 3], "counts": [9]}},
        {"segmentation": {"size": list(SIZE), "counts": [-1, 49]}},
        {"segmentation": {"size": list(SIZE), "counts": "zzz"}},
        {"segmentation": {"size": list(SIZE)}},
        {"segmentation": GOOD, "category_id": 77},
        {"segmentation": GOOD, "category_id": None},
        {"segmentation": GOOD, "category_id": [1]},
        {"segmentation": GOOD, "image_id": "elsewhere"},
        {"segmentation": GOOD, "image_id": None},
    ]
)
good = st.sampled_from(
    [
        {"segmentation": [[4, 2, 7, 2, 7, 5, 4, 5]]},
        {"segmentation": [4, 2, 7, 2, 7, 5, 4, 5]},
        {"segmentation": [[[4, 2], [7, 2], [7, 5], [4, 5]]]},
        {"segmentation": [[4, 2, 7, 2, 7, 5, 4, 5]], "category_id": "1"},
        {"segmentation": [[4, 2, 7, 2, 7, 5, 4, 5]], "category_id": 1.0},
        {"segmentation": [[4, 2, 7, 2, 7, 5, 4, 5]], "image_id": "7"},
        {"segmentation": [[4, 2, 7, 2, 7, 5, 4, 5]], "image_id": 7.0},
    ]
)


@pytest.mark.parametrize(
    ("ids", "of"),
    [((7, 7), (7,)), ((1, 2), ("a.png", "b.png")), ((1, 2), (0, True, None))],
)
def test_pictures_whose_annotations_are_not_known_do_not_become_background(
    tmp_path, ids, of
):
    masks = {name: own_mask(picture(i)) for i, name in enumerate(("a.png", "b.png"))}
    content = coco_of(masks)
    for i, name in enumerate(masks):
        save(tmp_path / name, picture(i))
        content["images"][i]["id"] = ids[i]
    one = content["annotations"][0]
    content["annotations"] = [{**one, "id": i, "image_id": v} for i, v in enumerate(of)]
    write_json(tmp_path / "labels.json", content)
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "coco"))
    assert not report.labelled
    assert set(report.failed) == set(masks)
    assert str(of[0]) in report.skipped["labels.json"][0]


@few
@given(st.lists(broken, max_size=5), st.lists(good, max_size=2), st.randoms())
def test_what_of_coco_is_not_understood_is_named_and_the_rest_imported(
    tmp_path_factory, bad, fine, random
):
    root = tmp_path_factory.mktemp("set")
    save(root / "a.png", picture(0))
    whole = [*((b, False) for b in bad), *((g, True) for g in fine)]
    random.shuffle(whole)
    annotations = [
        {"id": 100 + i, "image_id": 7, "category_id": 1, **about}
        for i, (about, _) in enumerate(whole)
    ]
    image = {"id": 7, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
    content = coco_of({}, images=[image], annotations=annotations)
    write_json(root / "a.json", content)
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "coco"))
    said = " ".join(
        [
            *report.failed.values(),
            *(t for each in report.skipped.values() for t in each),
        ]
    )
    for about, (_, ok) in zip(annotations, whole, strict=True):
        if not ok:
            by_image = about["image_id"] != 7
            assert str(about["image_id" if by_image else "id"]) in said
    if fine:
        red = next(iter(project.classes)).id
        wanted = np.zeros(SIZE, bool)
        wanted[2:5, 4:7] = True
        labels = project.load_labels("a")
        np.testing.assert_array_equal((labels == red) & wanted, wanted)
        assert not ((labels == red) & ~wanted).any()
    elif bad and not all("image_id" in each for each in bad):
        assert not report.labelled


def test_an_object_that_others_cover_is_named(tmp_path):
    save(tmp_path / "a.png", picture(0))
    annotations = [
        {"id": 5, "image_id": 0, "category_id": 1, "segmentation": GOOD},
        {"id": 6, "image_id": 0, "category_id": 2, "segmentation": GOOD},
    ]
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "hat"}]
    content = coco_of({"a.png": own_mask(picture(0))}, categories=categories)
    write_json(tmp_path / "a.json", content | {"annotations": annotations})
    report = import_masks(Project.create(tmp_path / "p"), open_source(tmp_path, "coco"))
    assert report.labelled == ("a",)
    assert report.skipped["a.png"] == ("annotation 5: wholly covered by others (red)",)


def test_ids_that_only_look_alike_stay_apart(tmp_path):
    images = [
        {"id": i, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]}
        for n, i in enumerate(("1", "01", 1))
    ]
    annotations = [
        {"id": n, "image_id": i, "category_id": 1}
        | {"segmentation": code_of(own_mask(picture(n)))}
        for n, i in enumerate(("1", "01", 1))
    ]
    for n in range(3):
        save(tmp_path / f"{n}.png", picture(n))
    content = coco_of({}, images=images, annotations=annotations)
    lost = {**annotations[0], "image_id": 1.0}
    write_json(tmp_path / "a.json", {**content, "annotations": [*annotations, lost]})
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "coco"))
    check_own_masks(project, {0, 1, 2})
    assert "several images" in report.skipped["a.json"][0]


# -- ids of masks ------------------------------------------------------------------

numbers = st.sampled_from([0, 1, 2, 7, 254, 255, 256, 65535, 65538, 70000, -1, -9])


@few
@given(
    st.lists(numbers, min_size=1, max_size=6),
    st.sampled_from(["npy", "npy-float", "tif"]),
)
def test_an_id_never_becomes_another(tmp_path_factory, ids, kind):
    root = tmp_path_factory.mktemp("set")
    pixels = np.array((ids * 48)[:48], np.int64).reshape(SIZE)
    save(root / "images/a.png", picture(0))
    (root / "masks").mkdir()
    if kind == "tif":
        save(root / "masks/a.tif", pixels.astype(np.int32))
    else:
        values = pixels.astype(np.float64) if kind == "npy-float" else pixels
        np.save(root / "masks/a.npy", values)
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "indexed"))
    assert report.labelled == ("a",), report.failed
    labels = project.load_labels("a")
    names = {entry.id: entry.name for entry in project.classes}
    there = set(ids) - {0}
    for value in set(ids):
        found = set(labels[pixels == value].tolist())
        if value == 0:
            assert found == {0}
        elif there == {255}:
            assert {names[i] for i in found} == {"foreground"}
        elif value == 255:
            assert found == {255}
        else:
            assert {names[i] for i in found} == {f"class {value}"}
    if there & {65538, 70000, -1, -9}:
        assert any("cannot hold" in note for note in report.notes)


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        (np.full(SIZE, 0.5), "0.5"),
        (np.full(SIZE, np.nan), "nan"),
        (np.full(SIZE, np.inf), "inf"),
        (np.full(SIZE, 2.0**60), "2^53"),
        (np.full(SIZE, 2**64 - 1, np.uint64), "18446744073709551615"),
        (np.full(SIZE, 1j), "complex"),
        (np.zeros((2, *SIZE), np.uint8), "(2, 6, 8)"),
        (np.zeros((0, 8), np.uint8), "(0, 8)"),
    ],
)
def test_values_that_are_no_ids_are_refused(tmp_path, pixels, named):
    save(tmp_path / "images/a.png", picture(0))
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/a.npy", pixels)
    report = import_masks(
        Project.create(tmp_path / "p"), open_source(tmp_path, "indexed")
    )
    assert named in report.failed["images/a.png"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("0.webp", {"quality": 60}),
        ("0.png", {"format": "JPEG"}),
        ("0.jpg", {}),
        ("0.tif", {"compression": "jpeg"}),
    ],
)
def test_masks_that_blur_ids_are_named(tmp_path, name, more):
    binary(tmp_path, 1)
    (tmp_path / "masks/0.png").unlink()
    save(tmp_path / "masks" / name, own_mask(picture(0)) * 90, **more)
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "indexed"))
    assert len(report.labelled) == 2
    said = str(dict(report.failed)) + str(report.skipped)
    assert "blurs ids" in said
    assert "broken" not in said


def test_a_mask_in_the_transparency_is_named(tmp_path):
    save(tmp_path / "images/a.png", picture(0))
    (tmp_path / "masks").mkdir()
    alpha = Image.fromarray(own_mask(picture(0)) * 255)
    Image.merge("LA", [alpha.point(lambda _: 0), alpha]).save(tmp_path / "masks/a.png")
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "indexed"))
    assert "transparency" in report.failed["images/a.png"]


@few
@given(
    st.sampled_from([1, 20, 255]),
    st.sampled_from(["L", "1", "I;16", "P", "RGB", "RGBA"]),
    st.booleans(),
)
def test_a_mask_of_voc_is_a_class_or_named(tmp_path_factory, value, mode, listed):
    root = tmp_path_factory.mktemp("set")
    save(root / "JPEGImages/a.png", picture(0))
    mask = own_mask(picture(0)) * value
    red, green, blue = voc_palette()[value].tolist()
    if mode in ("RGB", "RGBA"):
        mask = Image.fromarray(voc_palette()[mask]).convert(mode)
    elif mode == "1":
        value, (red, green, blue) = 1, voc_palette()[1].tolist()
        mask = Image.fromarray(mask > 0)
    else:
        mask = Image.fromarray(mask.astype(np.uint16) if mode == "I;16" else mask)
        if mode == "P":
            mask.putpalette(voc_palette().tobytes())
    (root / "SegmentationClass").mkdir()
    mask.save(root / "SegmentationClass/a.png")
    if listed:
        lines = f"Background : 0, 0, 0 ::\r\nboat : {red}, {green}, {blue}::\r\n"
        (root / "labelmap.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "voc"))
    assert report.labelled == ("a",)
    labels = project.load_labels("a")
    np.testing.assert_array_equal(labels > 0, own_mask(picture(0)) > 0)
    if listed:
        assert labels.max() == project.classes.by_name("boat").id
        assert len(project.classes) == 1
    elif value == 255:
        assert "which means unsure" in report.skipped["JPEGImages/a.png"][0]
    else:
        assert labels.max() == value


def test_a_folder_of_jpeg_masks_is_refused_by_that_name(tmp_path):
    save(tmp_path / "images/a.png", picture(0))
    save(tmp_path / "masks/a.jpg", own_mask(picture(0)))
    with pytest.raises(ImportSourceError, match="JPEG"):
        open_source(tmp_path, "indexed")


def test_a_mask_in_colour_is_said_to_be_that(tmp_path):
    save(tmp_path / "images/a.png", picture(0))
    save(tmp_path / "masks/a.png", picture(0))
    project = Project.create(tmp_path / "p")
    why = import_masks(project, open_source(tmp_path, "indexed")).failed["images/a.png"]
    assert "in colour" in why
    assert "broken" not in why


def test_soft_borders_of_a_mask_are_said(tmp_path):
    soft = np.full(SIZE, 255, np.uint8)
    soft[0] = 90
    soft[4:] = 0
    save(tmp_path / "images/a.png", picture(0))
    save(tmp_path / "masks/a.png", soft)
    project = Project.create(tmp_path / "p")
    notes = import_masks(project, open_source(tmp_path, "indexed")).notes
    assert any("soft borders" in note for note in notes)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_kept(tmp_path):
    """As an archive of another system leaves it."""
    name = os.fsdecode(b"K\xe4fer.png")
    save(tmp_path / "images" / name, picture(0))
    save(tmp_path / "masks" / name, own_mask(picture(0)))
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "indexed"))
    assert not report.failed
    again = Project.open(project.path)
    check_own_masks(again, {0})
    assert str(again.samples[0].provenance["imported"]).encode()  # it can be exported
    report = import_masks(again, open_source(tmp_path, "indexed"))
    assert (report.labelled, len(report.kept)) == ((), 1)


@few
@given(st.integers(1, 65_535), st.booleans(), st.lists(st.integers(0, 65_535)))
def test_a_pgm_says_its_largest_value_and_keeps_its_ids(
    tmp_path_factory, largest, plain, ids
):
    root = tmp_path_factory.mktemp("set")
    values = np.array(([1, *(i % (largest + 1) for i in ids)] * 48)[:48]).reshape(SIZE)
    save(root / "images/a.png", picture(0))
    (root / "masks").mkdir()
    body = values.astype(">u2" if largest > 255 else "u1").tobytes()
    if plain:
        body = " ".join(map(str, values.ravel())).encode()
    head = f"P{2 if plain else 5} {SIZE[1]} {SIZE[0]} {largest}\n".encode()
    (root / "masks/a.pgm").write_bytes(head + body)
    source = open_source(root, "indexed")
    places = source.pictures[0].read_masks().places
    pairs = set(zip(values.ravel().tolist(), places.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(values)) == len(np.unique(places))
    for value, place in pairs - {(0, 0), (255, -1)}:
        assert source.classes[place - 1].name in (f"class {value}", "foreground")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_stretched(tmp_path, bits):
    import struct
    import zlib

    values = np.arange(48).reshape(SIZE) % (1 << bits)
    rows = b""
    for row in values.tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    head = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body
        data += struct.pack(">I", zlib.crc32(name + body))
    save(tmp_path / "images/a.png", picture(0))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(data)
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(tmp_path, "indexed"))
    np.testing.assert_array_equal(project.load_labels("a"), values)


def binary(root: Path, value: int, mode: str = "L") -> np.ndarray:
    for seed in range(3):
        save(root / f"images/{seed}.png", picture(seed))
        mask = Image.fromarray(own_mask(picture(seed)) * value).convert(mode)
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / f"masks/{seed}.png")


@few
@given(
    st.sampled_from([1, 2, 254, 255]),
    st.sampled_from(["L", "RGB", "RGBA", "LA", "1"]),
    st.booleans(),
)
def test_masks_of_one_value_are_a_class(tmp_path_factory, value, mode, listed):
    root = tmp_path_factory.mktemp("set")
    binary(root, value if mode != "1" else 255, mode)
    classes = [ListedClass("boat")] if listed else None
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "indexed", classes))
    assert not report.failed
    check_own_masks(project, {0, 1, 2})
    assert len(project.classes) == 1
    if listed:
        assert project.classes.by_name("boat")


def test_inverted_masks_are_said_and_read_as_told(tmp_path):
    for seed in range(2):
        save(tmp_path / f"images/{seed}.png", picture(seed))
        mask = np.full(SIZE, 255, np.uint8)
        mask[2:4, 2:5] = 0
        save(tmp_path / f"masks/{seed}.png", mask)
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "indexed"))
    assert any("--background 255" in note for note in report.notes)
    again = open_source(tmp_path, "indexed", background=255)
    import_masks(project, again, overwrite=True)
    assert (project.load_labels("0") > 0).sum() == 6


def test_255_is_unsure_beside_classes_and_said_where_it_is_alone(tmp_path):
    binary(tmp_path, 255)
    mask = own_mask(picture(0))
    mask[0, 0] = 255
    save(tmp_path / "masks/0.png", mask)
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "indexed"))
    assert project.load_labels("0")[0, 0] == 255
    assert set(report.skipped) == {"images/1.png", "images/2.png"}
    assert "which means unsure" in report.skipped["images/1.png"][0]


# -- pictures that EXIF turns --------------------------------------------------------


@few
@given(st.integers(1, 8), st.sampled_from([(6, 8), (8, 8)]), st.booleans())
def test_masks_lie_on_pictures_that_exif_turns(
    tmp_path_factory, orientation, size, stored
):
    root = tmp_path_factory.mktemp("set")
    exif = Image.Exif()
    exif[0x0112] = orientation
    # one whose size tells how masks lie here
    for name, shape, turn in (("a", size, orientation), ("tells", (6, 8), 6)):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        exif[0x0112] = turn
        save(root / f"images/{name}.png", image, exif=exif)
        if not stored:
            with Image.open(root / f"images/{name}.png") as opened:
                from PIL import ImageOps

                image = np.array(ImageOps.exif_transpose(opened))
        save(root / f"masks/{name}.png", own_mask(image))
    project = Project.create(tmp_path_factory.mktemp("p"))
    report = import_masks(project, open_source(root, "indexed"))
    assert not report.failed
    assert not report.skipped
    for sample in project.samples:
        image = project.load_image(sample.name)
        labels = project.load_labels(sample.name)
        np.testing.assert_array_equal(labels, own_mask(image))


def test_a_turn_that_no_size_tells_is_said(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    save(tmp_path / "images/a.png", picture(0), exif=exif)
    save(tmp_path / "masks/a.png", own_mask(picture(0)))
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "indexed"))
    assert report.labelled == ("a",)
    assert "EXIF" in report.skipped["images/a.png"][0]


def test_categories_of_one_id_and_of_one_name(tmp_path):
    save(tmp_path / "a.png", picture(0))
    categories = [
        {"id": 1, "name": "red"},
        {"id": 2, "name": "hat"},
        {"id": 2, "name": "cap"},
        {"id": 3, "name": "Ka\u0308fer"},
        {"id": 4, "name": "K\u00e4fer"},
        {"name": "no id"},
    ]
    square = {1: (0, 0), 2: (3, 0), 3: (0, 3), 4: (3, 3)}
    annotations = [
        {
            "id": 10 + i,
            "image_id": 0,
            "category_id": i,
            "segmentation": [[x, y, x + 2, y, x + 2, y + 2, x, y + 2]],
        }
        for i, (x, y) in square.items()
    ]
    content = coco_of({"a.png": own_mask(picture(0))}, categories=categories)
    write_json(tmp_path / "a.json", content | {"annotations": annotations})
    project = Project.create(tmp_path / "p")
    report = import_masks(project, open_source(tmp_path, "coco"))
    labels = project.load_labels("a")
    beetle = project.classes.by_name("Käfer").id
    assert labels[0, 0] == project.classes.by_name("red").id
    assert labels[0, 3] == 255
    assert labels[3, 0] == labels[3, 3] == beetle
    assert "12: the category 2 is several" in report.skipped["a.png"][0]
    assert len(report.skipped["a.json"]) == 2


def test_another_data_set_beside_is_not_searched(tmp_path):
    """Its pictures may be called the same."""
    save(tmp_path / "other/images/a.png", picture(1))
    save(tmp_path / "set/masks/a.png", own_mask(picture(0)))
    write_json(tmp_path / "set/labels.json", coco_of({"a.png": own_mask(picture(0))}))
    for form in ("indexed", "coco"):
        project = Project.create(tmp_path / form)
        report = import_masks(project, open_source(tmp_path / "set", form))
        assert not project.samples
        assert report.failed


def test_the_pictures_of_a_folder_of_masks_or_of_a_json_lie_beside_it(tmp_path):
    save(tmp_path / "images/a.png", picture(0))
    save(tmp_path / "masks/a.png", own_mask(picture(0)))
    mask = {"a": own_mask(picture(0))}  # without an ending, as some programs write
    path = write_json(tmp_path / "annotations/train/x.json", coco_of(mask))
    for given_, form in ((tmp_path / "masks", "indexed"), (path, "coco")):
        project = Project.create(tmp_path / f"p-{form}")
        import_masks(project, open_source(given_, form))
        check_own_masks(project, {0})


def test_a_list_with_the_background_and_one_class(tmp_path):
    binary(tmp_path, 255)
    listed = [ListedClass("background"), ListedClass("boat")]
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(tmp_path, "indexed", listed))
    check_own_masks(project, {0, 1, 2})
    assert [entry.name for entry in project.classes] == ["boat"]


def test_every_id_below_the_largest_can_still_be_given(tmp_path):
    save(tmp_path / "images/a.png", picture(0))
    pixels = np.zeros(SIZE, np.int32)
    pixels[0, :4] = (65535, 65538, -1, 1)
    save(tmp_path / "masks/a.tif", pixels)
    project = Project.create(tmp_path / "p")
    import_masks(project, open_source(tmp_path, "indexed"))
    names = [project.classes[i].name for i in project.load_labels("a")[0, :4].tolist()]
    assert names == ["class 65535", "class 65538", "class -1", "class 1"]


def test_one_file_said_of_two_pictures_that_tidying_makes_one(tmp_path):
    project = Project.create(tmp_path / "p")
    blank = np.full((*SIZE, 3), 9, np.uint8)
    project.add_sample(blank, name="scan-1", provenance={"title": "scan [1]"})
    save(tmp_path / "d/images/scan (1).png", blank)
    save(tmp_path / "d/masks/scan (1).png", own_mask(picture(0)))
    report = import_masks(project, open_source(tmp_path / "d", "indexed"))
    assert report.added == ("scan-1-2",)
    (tmp_path / "d/images/scan (1).png").unlink()
    report = import_masks(project, open_source(tmp_path / "d", "indexed"))
    assert not report.labelled
    assert project.load_labels("scan-1") is None
