"""OME-Zarr: the format's own models, ome-zarr, and plain napari with its reader."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zarr", minversion="3")
import zarr

pytest.importorskip("ome_zarr")
pytest.importorskip("ome_zarr_models")
import ome_zarr_models as models
from ome_zarr.format import FormatV04, FormatV05
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr.writer import write_image, write_labels

from napari_ovam.datasets.exporters import ExportItem, export_dataset
from napari_ovam.datasets.exporters.ome_zarr.label_groups import write_label_group
from napari_ovam.datasets.exporters.ome_zarr.meaning import describe_classes
from napari_ovam.datasets.importers.ome_zarr import open_ome_zarr
from napari_ovam.images.ome_zarr import open_images

from .hard_masks import CLASSES, IDS, NAMES, Export, Masks

FORMS = {"ome-zarr": "0.5", "ome-zarr-0.4": "0.4"}
FORMATS = {"0.5": FormatV05(), "0.4": FormatV04()}


def stores(folder: Path) -> dict[str, Path]:
    return {p.name.removesuffix(".ome.zarr"): p for p in folder.glob("*.ome.zarr")}


def check_valid(store: Path, version: str, *names: str) -> None:
    """Validate an image and its labels by the models of the specification."""
    kinds = models.v05 if version == "0.5" else models.v04
    group = zarr.open_group(store, mode="r")
    image = kinds.image.Image.from_zarr(group)
    assert image.labels is not None
    labels = kinds.labels.Labels.from_zarr(group["labels"])
    found = (
        labels.attributes.ome.labels if version == "0.5" else labels.attributes.labels
    )
    assert set(names) <= set(found)
    for name in names:
        kinds.image_label.ImageLabel.from_zarr(group["labels"][name])


@pytest.mark.parametrize("form", FORMS)
def test_the_models_of_the_specification_find_nothing(export: Export, form: str):
    found = stores(export(form))
    assert len(found) == 8
    for store in found.values():
        check_valid(store, FORMS[form], "classes")


@pytest.mark.parametrize("form", FORMS)
def test_ome_zarr_reads_pictures_and_masks(
    export: Export, masks: Masks, images: Masks, form: str
):
    found = stores(export(form))
    assert found.keys() == masks.keys()
    for name, store in found.items():
        picture, _, labels = list(Reader(parse_url(store))())
        pixels = np.moveaxis(np.asarray(picture.data[0]), 0, -1)
        np.testing.assert_array_equal(pixels, images[name])
        np.testing.assert_array_equal(np.asarray(labels.data[0]), masks[name])
        said = labels.metadata["properties"]
        assert [said[i]["name"] for i in IDS] == NAMES
        assert picture.metadata["contrast_limits"] == [[0, 255]] * 3


@pytest.mark.parametrize("form", FORMS)
def test_plain_napari_shows_pictures_and_masks(
    export: Export, masks: Masks, images: Masks, form: str
):
    for name, store in stores(export(form)).items():
        viewer = plain_viewer()
        viewer.open(str(store), plugin="napari-ome-zarr")
        *channels, labels = viewer.layers
        rgb = [np.asarray(_first(layer)) for layer in channels]
        np.testing.assert_array_equal(np.stack(rgb, -1), images[name])
        np.testing.assert_array_equal(np.asarray(_first(labels)), masks[name])
        features = labels.features.set_index("index")["name"]
        assert [features[i] for i in IDS] == NAMES
        for entry in CLASSES:
            if entry.color is not None:
                color = labels.get_color(entry.id)[:3]
                np.testing.assert_allclose(
                    color, np.array(entry.color) / 255, atol=0.01
                )


def plain_viewer():
    """Return napari's viewer without a window; skip where napari is not installed."""
    components = pytest.importorskip("napari.components")
    pytest.importorskip("napari_ome_zarr")
    from npe2 import PluginManager

    PluginManager.instance().discover()
    return components.ViewerModel()


def _first(layer):
    return layer.data[0] if layer.multiscale else layer.data


def test_napari_lays_labels_over_their_picture(tmp_path: Path):
    labels = np.zeros((600, 900), np.uint8)
    labels[10:50, 20:70] = IDS[0]
    placement = {"scale": [-0.5, 2.0], "translate": [30.0, -4.0]}
    placement["units"] = ["micrometer", "micrometer"]
    item = ExportItem(
        "a",
        np.zeros((600, 900, 3), np.uint8),
        labels,
        provenance={"placement": placement},
    )
    out = export_dataset([item], CLASSES, tmp_path / "o", ["ome-zarr"]) / "ome-zarr"
    viewer = plain_viewer()
    viewer.open(str(out / "a.ome.zarr"), plugin="napari-ome-zarr")
    picture, *_, over = viewer.layers
    for point in ((0, 0), (10, 20), (599, 899)):
        world = over.data_to_world(point)  # napari-ome-zarr reads scales alone
        np.testing.assert_allclose(world, picture.data_to_world(point))
        np.testing.assert_allclose(world, (point[0] * -0.5, point[1] * 2.0), atol=1e-9)
    assert [str(unit) for unit in over.units] == ["micrometer", "micrometer"]


@pytest.mark.parametrize("version", FORMATS)
def test_what_ome_zarr_writes_is_read(tmp_path: Path, version: str):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 4000, (3, 2, 300, 200), "u2")
    values = random.integers(0, 70_000, (2, 300, 200), "u4")
    store = tmp_path / "theirs.zarr"
    group = zarr.open_group(store, mode="w", zarr_format=FORMATS[version].zarr_format)
    size = {"z": 3, "y": 0.5, "x": 0.5}
    how = {"fmt": FORMATS[version], "scale_factors": [2], "scale": size}
    write_image(pixels, group, axes="czyx", **how)
    write_labels(values, group, "cells", axes="zyx", scaler=None, **how)
    (image,) = open_images(store)
    assert image.version == version
    assert image.levels[1].scale == (1, 3, 1, 1)
    np.testing.assert_array_equal(image.array()[...], pixels)
    source = open_ome_zarr(store)
    assert [entry.name for entry in source.classes] == ["cells"]
    for plane, picture in enumerate(source.pictures):
        assert picture.about["placement"] == {"scale": [0.5, 0.5]}
        masks = picture.read_masks()
        np.testing.assert_array_equal(masks.places > 0, values[plane] > 0)
        pairs = np.stack([masks.objects, values[plane]], -1).reshape(-1, 2)
        assert len(np.unique(pairs, axis=0)) == len(np.unique(values[plane]))

    # ours beside theirs
    ours = random.choice(np.array([0, *IDS], "u1"), (2, 300, 200))
    meaning = describe_classes(CLASSES, version)
    write_label_group(image, "ours", ours, meaning)
    check_valid(store, version, "ours")
    group = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(group["labels/ours"][image.levels[0].path][...], ours)
    theirs = image.label_image("cells").array()[...]
    np.testing.assert_array_equal(theirs, values)
    read = [str(node.zarr) for node in Reader(parse_url(store))()]
    assert sum("ours" in each for each in read) == 1
