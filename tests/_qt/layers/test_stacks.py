"""Layers as napari has them, in a real window: places, planes, channels."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_ovam.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RNG = np.random.default_rng(0)
FILM = RNG.integers(0, 255, (5, 30, 40), np.uint8)
PLACE = {"scale": (2, 0.5, -0.5), "translate": (10, 3, 4), "units": ("s", "um", "um")}


def load(panel: Any, layer: Any, **chosen: Any) -> None:
    """Load a layer, with items of the form chosen by index."""
    panel.widget.sections["Image"].load_layer(layer)
    for name, index in chosen.items():
        panel.find(name).setCurrentIndex(index)
    panel.press("load_layer_button")
    panel.wait()


def slide(panel: Any, number: int) -> None:
    """Move napari's slider to a plane of the film, and wait for what is of it."""
    panel.viewer.dims.set_point(0, 10 + 2 * number)
    panel.bot.waitUntil(
        lambda: panel.session.current.name == f"film_t{number:03}", timeout=30_000
    )


@pytest.fixture
def film(panel: Any) -> Any:
    """Return the panel with a stack whose five planes are samples."""
    panel.film = panel.viewer.add_image(FILM, name="film", **PLACE)
    load(panel, panel.film, planes=1)
    panel.bot.waitUntil(lambda: panel.session.current is not None, timeout=30_000)
    return panel


def test_the_layers_of_a_sample_follow_whichever_is_moved(panel: Any) -> None:
    source = panel.viewer.add_image(FILM[0], name="cells", units=("um", "um"))
    panel.widget.sections["Image"].load_layer(source)
    panel.wait()
    for name in ("map", "labels"):
        panel.press(f"{name}_button")
    key, cat = panel.session.current.key, panel.number("cat")
    panel.session.layers.show_cover(
        panel.session.current, np.zeros((15, 20, 4), np.uint8), 2
    )
    moves = [
        (source, {"scale": (-0.5, 2)}),
        (source, {"rotate": 30, "units": ("nm", "nm")}),
        (panel.layer("image"), {"translate": (7, 8)}),
        (panel.labels(), {"affine": [[1, 0.5, 3], [0, 2, 1], [0, 0, 1]]}),
    ]
    for layer, how in moves:
        for name, value in how.items():
            setattr(layer, name, value)
        there = layer.data_to_world((7, 31))
        for role, number in (("image", 0), ("map", cat), ("labels", 0)):
            ours = panel.layer(role, number)
            np.testing.assert_allclose(ours.data_to_world((7, 31)), there)
            assert ours.units == layer.units
        cover = panel.session.layers.find(key, "cover")
        # the middle of the first of its pixels, which covers two by two
        np.testing.assert_allclose(
            cover.data_to_world((0, 0)), layer.data_to_world((0.5, 0.5))
        )
    project = panel.session.project
    panel.session.saving.flush()
    written = Project.open(project.path).sample(key).provenance["placement"]
    assert written["translate"] == [7, 8]
    assert written["units"] == ["nanometer", "nanometer"]


def test_a_stack_is_gone_through_with_the_slider(film: Any) -> None:
    session, viewer = film.session, film.viewer
    assert [s.name for s in session.project.samples] == [
        f"film_t{n:03}" for n in range(5)
    ]
    assert session.current.name == "film_t000"
    session.class_changes.add("cat")
    session.show(session.current)

    slide(film, 3)
    np.testing.assert_array_equal(
        session.current.image[..., 0], film_picture(film, 3)[..., 0]
    )
    stack = session.layers.find(session.current.key, "image")
    assert stack.data.shape == (5, 30, 40, 4)
    np.testing.assert_allclose(
        stack.data_to_world((3, 7, 9)), film.film.data_to_world((3, 7, 9))
    )
    np.testing.assert_array_equal(stack.data[3][..., :3], session.current.image)
    labels = session.layers.labels(session.current.key)
    np.testing.assert_allclose(
        labels.data_to_world((7, 9)), film.film.data_to_world((3, 7, 9))[1:]
    )
    place = film.film.data_to_world((3, 7, 9))
    with labels.block_history():
        labels.brush_size = 1
        labels.paint(labels.world_to_data(place), 1)
    assert labels.data[7, 9] == 1

    slide(film, 1)
    assert sum(isinstance(layer, Labels) for layer in viewer.layers) == 1
    assert not session.layers.labels(session.current.key).data.any()
    slide(film, 3)
    assert session.layers.labels(session.current.key).data[7, 9] == 1
    session.layers.labels(session.current.key).undo()
    assert not session.layers.labels(session.current.key).data.any()


def film_picture(film: Any, number: int) -> np.ndarray:
    low, high = film.film.contrast_limits
    grey = ((FILM[number].astype(np.float32) - low) / (high - low)).clip(0, 1) * 255
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, -1)


def test_the_labels_of_all_planes_as_one_layer(film: Any) -> None:
    session = film.session
    session.class_changes.add("cat")
    for number in (0, 4):
        slide(film, number)
        session.show(session.current)
        labels = session.layers.labels(session.current.key)
        with labels.block_history():
            labels.paint((number, 9), 1)
    film.press("stack_labels_button")

    def copies() -> list[Any]:
        return [x for x in film.viewer.layers if x.name.endswith("all planes")]

    film.bot.waitUntil(lambda: bool(copies()), timeout=30_000)
    (whole,) = copies()
    assert whole.data.shape == FILM.shape
    assert [bool(plane.any()) for plane in whole.data] == [True, *[False] * 3, True]
    np.testing.assert_allclose(
        whole.data_to_world((3, 7, 9)), film.film.data_to_world((3, 7, 9))
    )


def test_ids_that_need_more_than_16_bits_are_refused(film: Any) -> None:
    film.session.show(film.session.current)
    labels = film.session.layers.labels(film.session.current.key)
    labels.data = np.full(labels.data.shape, 70_000, np.uint32)
    assert "70000" in film.status
    assert labels.data.dtype == np.uint16
    assert not labels.data.any()


def test_next_moves_the_slider(film: Any) -> None:
    film.session.step(1)
    film.bot.waitUntil(lambda: film.session.current.name == "film_t001", timeout=30_000)
    assert film.viewer.dims.point[0] == pytest.approx(12)


def test_a_project_with_a_stack_is_opened_again(film: Any, tmp_path: Path) -> None:
    session, path = film.session, tmp_path / "film"
    session.projects.save_as(path)
    film.wait()
    film.viewer.layers.remove(film.film)
    session.projects.leave()
    film.wait()
    session.projects.open(path)
    film.wait()
    film.bot.waitUntil(lambda: session.current is not None, timeout=30_000)
    slide(film, 2)
    stack = session.layers.find(session.current.key, "image")
    np.testing.assert_allclose(stack.data_to_world((2, 7, 9)), (14, 6.5, -0.5))
    assert [str(unit) for unit in stack.units] == ["second", *["micrometer"] * 2]
    np.testing.assert_array_equal(stack.data[2, ..., :3], session.current.image)


def test_parts_of_a_stack_are_what_numpy_would_give() -> None:
    from napari_ovam._qt.layers.stacks import StackPictures

    pictures = StackPictures((2, 3), (4, 5))
    pictures.held[1, 2] = RNG.integers(0, 255, (4, 5, 3), np.uint8)
    whole = np.asarray(pictures)
    assert whole.shape == (2, 3, 4, 5, 4)
    np.testing.assert_array_equal(whole[1, 2, ..., :3], pictures.held[1, 2])
    assert whole[1, 2, ..., 3].all()
    assert not whole[0].any()
    for index in [
        np.s_[1, 2],
        np.s_[1],
        np.s_[:, 2, 1:3, ::2],
        np.s_[1, 1:, 2, :, 0],
        np.s_[-1, -1, :, :],
        np.s_[1, ..., :3],
        np.s_[1, 2, 3, 4, 0],
    ]:
        np.testing.assert_array_equal(pictures[index], whole[index])


def test_between_planes_nothing_of_another_plane_is_shown(film: Any) -> None:
    session, load_image = film.session, Project.load_image
    gate = threading.Event()
    session.show(session.current)
    labels = session.layers.labels(session.current.key)
    slide(film, 1)
    slide(film, 0)
    assert labels.visible

    def slow(project: Project, name: str) -> Any:
        gate.wait(20)
        return load_image(project, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Project, "load_image", slow)
        film.viewer.dims.set_point(0, 18)  # the last plane, which is not in memory
        assert not labels.visible
        film.viewer.dims.set_point(0, 10)  # back
        assert labels.visible
        gate.set()
    slide(film, 4)
    assert labels.visible


def test_a_stack_that_is_moved_moves_whole(film: Any) -> None:
    film.film.scale = (4, 1, 1)
    film.film.translate = (0, 0, 0)
    film.viewer.dims.set_point(0, 12)
    film.bot.waitUntil(lambda: film.session.current.name == "film_t003", timeout=30_000)
    stack = film.session.layers.find(film.session.current.key, "image")
    np.testing.assert_allclose(stack.data_to_world((3, 7, 9)), (12, 7, 9))
    labels = film.session.layers.labels(film.session.current.key)
    np.testing.assert_allclose(labels.data_to_world((7, 9)), (7, 9))


def test_one_plane_of_a_stack_of_channels(panel: Any) -> None:
    shape = (4, 3, 30, 40)
    layer = panel.viewer.add_image(
        RNG.integers(0, 255, shape, np.uint8), name="cells", contrast_limits=(0, 255)
    )
    panel.viewer.dims.set_point(0, 2)
    section = panel.widget.sections["Image"]
    section.load_layer(layer)
    assert panel.find("channel_axis").currentData() == 1
    panel.find("red").setCurrentIndex(panel.find("red").findData(2))
    panel.find("green").setCurrentIndex(panel.find("green").findData(-1))
    panel.press("load_layer_button")
    panel.wait()
    sample = panel.session.current
    assert sample.name == "cells_t002"
    np.testing.assert_array_equal(sample.image[..., 0], layer.data[2, 2])
    assert not sample.image[..., 1].any()
    layer.scale = (5, 7, 2, 2)  # of time, channels, rows and columns
    np.testing.assert_allclose(
        panel.layer("image").data_to_world((2, 6, 9)), (10, 12, 18)
    )
    np.testing.assert_array_equal(sample.image[..., 2], layer.data[2, 2])

    section.load_layer(layer)  # what was chosen is remembered
    chosen = [panel.find(name).currentData() for name in ("red", "green", "blue")]
    assert chosen == [2, -1, 2]


def test_a_pyramid_is_painted_at_the_level_that_is_not_too_large(
    panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask.array as da

    monkeypatch.setattr(
        "napari_ovam._qt.image.layer_form.preferences",
        lambda: type("P", (), {"largest_picture": 64}),
    )
    fine = RNG.integers(0, 255, (200, 160, 3), np.uint8)
    levels = [da.from_array(fine[::n, ::n], chunks=50) for n in (1, 4, 8)]
    layer = panel.viewer.add_image(levels, rgb=True, multiscale=True, scale=(3, 3))
    panel.widget.sections["Image"].load_layer(layer)
    panel.wait()
    np.testing.assert_array_equal(panel.session.current.image, fine[::4, ::4])
    panel.session.show(panel.session.current)
    image = panel.layer("image")
    np.testing.assert_allclose(
        image.data_to_world((5, 6)), layer.data_to_world((21.5, 25.5))
    )


def test_a_layer_whose_blocks_do_not_come_can_be_cancelled(panel: Any) -> None:
    import dask.array as da

    gate = threading.Event()

    def stuck(block: np.ndarray, block_id: Any = None) -> np.ndarray:
        if block_id:
            armed.is_set() and gate.wait(30)
        return block

    armed = threading.Event()
    lazy = da.zeros((32, 32), np.uint8, chunks=16).map_blocks(stuck, dtype=np.uint8)
    layer = panel.viewer.add_image(lazy, name="far away", contrast_limits=(0, 255))
    armed.set()
    panel.widget.sections["Image"].load_layer(layer)
    panel.bot.wait(300)
    panel.session.cancel()
    panel.wait()
    assert "Cancelled" in panel.status
    assert not panel.session.samples
    gate.set()


def test_a_layer_whose_blocks_fail_is_named(panel: Any) -> None:
    import dask.array as da

    armed = threading.Event()

    def fail(block: np.ndarray) -> np.ndarray:
        if armed.is_set():
            raise OSError("the share is gone")
        return block

    lazy = da.zeros((32, 32), np.uint8, chunks=16).map_blocks(fail, dtype=np.uint8)
    layer = panel.viewer.add_image(lazy, name="far away", contrast_limits=(0, 255))
    layer.visible = False  # napari itself would read it again
    armed.set()
    panel.widget.sections["Image"].load_layer(layer)
    panel.wait()
    assert "far away" in panel.status
    assert "the share is gone" in panel.status
    assert not panel.session.samples


@pytest.fixture
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small random model that makes videos."""
    from small_transformers import wan

    folder = tmp_path_factory.mktemp("video")
    wan().save_pretrained(folder)
    (folder / "ovam_defaults.json").write_text('{"steps": 2}')
    return folder


def test_a_video_is_a_stack(panel: Any, video_folder: Callable[..., Any]) -> None:
    panel.find("model").setCurrentText(str(video_folder))
    panel.find("frames").setValue(5)
    panel.find("prompt").setText("a cat")
    for name in ("width", "height"):
        panel.find(name).setValue(32)
    panel.press("generate_button")
    session = panel.session
    names = [s.provenance["title"] for s in session.project.samples]
    assert names == [f"a cat_t{n:03}" for n in range(5)]
    stack = session.layers.find(session.current.key, "image")
    assert stack.data.shape == (5, 32, 32, 4)
    assert [session.current.maps != {}, session.current.edits is not None] == [True] * 2
    panel.viewer.dims.set_point(0, 1)
    panel.bot.waitUntil(lambda: session.current.name == "a cat_t001", timeout=30_000)
    assert session.current.trace is not None or session.current.edits is not None


@pytest.fixture
def colors(tmp_path: Path) -> Any:
    """Return a film of colour pictures, (T, Y, X, 3), that lies on the disk in zarr."""
    import zarr

    film = RNG.integers(0, 255, (5, 30, 40, 3), np.uint8)
    stored = zarr.create_array(
        tmp_path / "film.zarr", shape=film.shape, chunks=(1, 16, 16, 3), dtype="u1"
    )
    stored[:] = film
    return zarr.open_array(tmp_path / "film.zarr", mode="r")


def test_a_film_in_zarr_is_gone_through_and_shown_again(
    panel: Any, colors: Any, tmp_path: Path
) -> None:
    panel.film = panel.viewer.add_image(colors, name="film", rgb=True, **PLACE)
    load(panel, panel.film, planes=1)
    session = panel.session
    panel.bot.waitUntil(lambda: session.current is not None, timeout=30_000)
    for number in (3, 1, 3):
        slide(panel, number)
        np.testing.assert_array_equal(session.current.image, colors[number])
    session.class_changes.add("cat")
    session.show(session.current)
    labels = session.layers.labels(session.current.key)
    with labels.block_history():
        labels.paint((7, 9), 1)
    place = panel.film.data_to_world((3, 7, 9))
    np.testing.assert_allclose(labels.data_to_world((7, 9)), place[1:])
    stack = session.layers.find(session.current.key, "image")
    np.testing.assert_allclose(stack.data_to_world((3, 7, 9)), place)
    path = tmp_path / "saved"
    session.projects.save_as(path)
    panel.wait()
    project = Project.open(path)
    name = next(s.name for s in project.samples if s.name.endswith("t003"))
    np.testing.assert_array_equal(project.load_image(name), colors[3])
    assert project.load_labels(name)[7, 9] == 1


def test_levels_in_zarr_are_a_pyramid(panel: Any, tmp_path: Path) -> None:
    import zarr

    fine = RNG.integers(0, 255, (64, 48, 3), np.uint8)
    group = zarr.open_group(tmp_path / "levels.zarr")
    for number, step in enumerate((1, 2, 4)):
        group.create_array(str(number), data=fine[::step, ::step], chunks=(16, 16, 3))
    levels = [group[str(number)] for number in range(3)]
    layer = panel.viewer.add_image(levels, rgb=True, multiscale=True, name="levels")
    panel.widget.sections["Image"].load_layer(layer)
    panel.wait()
    np.testing.assert_array_equal(panel.session.current.image, fine)


def test_a_zarr_that_lost_its_disk_is_named(panel: Any, tmp_path: Path) -> None:
    import zarr

    stored = zarr.create_array(tmp_path / "a.zarr", data=FILM, chunks=(1, 16, 16))
    layer = panel.viewer.add_image(stored, name="cells", contrast_limits=(0, 255))
    chunk = next(p for p in (tmp_path / "a.zarr").rglob("c/4/*/*") if p.is_file())
    chunk.write_bytes(b"cut")
    load(panel, layer, planes=1)
    assert "'cells' cannot be read" in panel.status
    assert "The planes before it are samples" in panel.status
    assert len(panel.session.project.samples) == 4
