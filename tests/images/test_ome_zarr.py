"""OME-Zarr: what is written comes back, and what is wrong is named."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("zarr", minversion="3")
import zarr

from napari_ovam.base.progress import Cancelled
from napari_ovam.base.waiting import wait_for
from napari_ovam.images.ome_zarr import VERSIONS, Axis, open_images
from napari_ovam.images.ome_zarr_pixels import (
    finest_level,
    planes_of,
    read_plane,
    read_rgb,
)
from napari_ovam.images.ome_zarr_write import (
    About,
    Frame,
    resample,
    write_pyramid,
)
from napari_ovam.images.zarr_stores import StoreError

KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
NUMBERS = st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6)


def axes_of(names: str) -> tuple[Axis, ...]:
    units = {"space": "micrometer", "time": "second"}
    return tuple(Axis(n, KINDS[n], units.get(KINDS[n], "")) for n in names)


def write(folder: Path, pixels: np.ndarray, names: str, version: str = "0.5", **how):
    omero = how.pop("omero", None)
    frame = Frame.of(axes_of(names), pixels.shape, **how)
    about = About("cells", {} if omero is None else {"omero": omero})
    write_pyramid(folder, pixels, frame, about, version)
    return folder


@st.composite
def pictures(draw):
    names = "".join(name for name in "tcz" if draw(st.booleans(), label=f"axis {name}"))
    shape = tuple(draw(st.integers(1, 4)) for _ in names)
    shape += (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    kind = draw(st.sampled_from(["u1", "u2", "u4", "u8", ">u2"]))
    pixels = draw(arrays(np.dtype(kind), shape))
    scale = [draw(NUMBERS) for _ in shape]
    shift = [draw(NUMBERS | st.just(0.0)) for _ in shape]
    return pixels, f"{names}yx", scale, shift


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(made=pictures())
def test_any_array_of_any_axes_and_scale_comes_back(
    tmp_path_factory, version: str, made
):
    pixels, names, scale, shift = made
    folder = tmp_path_factory.mktemp("zarr") / "a.zarr"
    write(folder, pixels, names, version, scale=scale, translation=shift)
    (image,) = open_images(folder)
    assert image.version == version
    assert image.name == "cells"
    assert image.axes == axes_of(names)
    assert image.levels[0].scale == tuple(scale)
    assert image.levels[0].translation == tuple(shift)
    found = image.array()[...]
    assert found.dtype == pixels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, pixels)
    channel = image.axis("channel")
    for plane in planes_of(image):
        at = list(plane)
        if channel is not None:
            at.insert(channel, pixels.shape[channel] - 1)
        last = len(image.channels) - 1
        found = read_plane(image, plane, channel=last)
        np.testing.assert_array_equal(found, pixels[tuple(at)])


@pytest.mark.parametrize("version", VERSIONS)
def test_levels_lie_over_one_another(tmp_path: Path, version: str):
    rows, columns = np.indices((1100, 1300))
    pixels = (rows * 7 + columns * 13).astype(np.uint32)
    how = {"scale": (-0.5, 0.25), "translation": (10, -3)}
    (image,) = open_images(write(tmp_path / "a.zarr", pixels, "yx", version, **how))
    assert len(image.levels) == 3
    for number, level in enumerate(image.levels):
        found = image.array(number)[...]
        for y, x in ((0, 0), (5, 9), (found.shape[0] - 1, found.shape[1] - 1)):
            world = level.scale[0] * y + 10, level.scale[1] * x - 3
            assert (
                found[y, x]
                == pixels[round((world[0] - 10) / -0.5), round((world[1] + 3) / 0.25)]
            )
    up = resample(image.array(2)[...], image.levels[2], image.levels[0])
    down = resample(up, image.levels[0], image.levels[2])
    np.testing.assert_array_equal(down, image.array(2)[...])


def test_channels_are_added_in_their_colours(tmp_path: Path):
    pixels = np.zeros((3, 4, 5), np.uint16)
    pixels[0, 0], pixels[1, 1], pixels[2, 2] = 1000, 500, 9
    window = {"min": 0, "max": 65535, "start": 0, "end": 1000}
    omero = {
        "channels": [
            {"label": "DAPI", "color": "0000FF", "window": window, "active": True},
            {"label": "GFP", "color": "00FF00", "window": window},
            {"label": "off", "color": "FF0000", "active": False},
        ]
    }
    (image,) = open_images(write(tmp_path / "a.zarr", pixels, "cyx", omero=omero))
    assert [channel.name for channel in image.channels] == ["DAPI", "GFP", "off"]
    rgb = read_rgb(image)
    assert rgb[0, 0].tolist() == [0, 0, 255]
    assert rgb[1, 0].tolist() == [0, 128, 0]
    assert rgb[2, 0].tolist() == [0, 0, 0]
    grey = read_rgb(image, channels=[2])
    assert grey[2, 0].tolist() == [255, 255, 255]
    with pytest.raises(StoreError, match=r"channels 0 to 2, and 3"):
        read_rgb(image, channels=[3])


def test_rgb_of_eight_bits_stays_as_it_is(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 20), "u1")
    (image,) = open_images(write(tmp_path / "a.zarr", pixels, "cyx"))
    np.testing.assert_array_equal(read_rgb(image), np.moveaxis(pixels, 0, -1))


def test_planes_are_chosen_by_the_names_of_axes(tmp_path: Path):
    pixels = np.arange(2 * 3 * 5 * 4 * 4, dtype="u4").reshape(2, 3, 5, 4, 4)
    (image,) = open_images(write(tmp_path / "a.zarr", pixels, "tczyx"))
    chosen = list(planes_of(image, {"z": range(1, 3)}))
    assert chosen == [(0, 1), (0, 2), (1, 1), (1, 2)]
    with pytest.raises(StoreError, match="5 planes along 'z'"):
        list(planes_of(image, {"z": range(4, 6)}))
    with pytest.raises(StoreError, match=r"no planes along 'q'.*'t', 'z'"):
        list(planes_of(image, {"q": range(1)}))


def test_a_series_and_what_lies_above_it(tmp_path: Path):
    root = tmp_path / "series.zarr"
    group = zarr.create_group(root, zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for number in range(2):
        write(root / str(number), np.full((4, 4), number, "u1"), "yx")
    assert [image.path for image in open_images(root)] == ["0", "1"]
    assert [image.path for image in open_images(root / "1")] == [""]


# -- what is wrong -------------------------------------------------------------------


def change(store: Path, **changes) -> None:
    head = store / "zarr.json"
    content = json.loads(head.read_text())
    content["attributes"]["ome"] |= changes
    head.write_text(json.dumps(content))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    pixels = np.arange(700 * 900, dtype="u4").reshape(700, 900)
    return write(tmp_path / "cells.zarr", pixels, "yx")


@pytest.mark.parametrize("version", ["0.6.dev4", "0.3", 7, None])
def test_other_versions_are_named(store: Path, version):
    change(store, version=version)
    if version is None:  # may be left out where the transformations are there
        assert open_images(store)[0].version == "0.4"
        return
    with pytest.raises(StoreError, match=rf"version {version!r}.*0.4 and 0.5 are read"):
        open_images(store)


def test_what_is_no_image_is_named(tmp_path: Path, store: Path):
    with pytest.raises(StoreError, match="there is no"):
        open_images(tmp_path / "nothing.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no Zarr store"):
        open_images(tmp_path / "empty")
    with pytest.raises(StoreError, match="array without OME metadata"):
        open_images(store / "0")
    zarr.create_group(tmp_path / "plain.zarr")
    with pytest.raises(StoreError, match="without OME metadata"):
        open_images(tmp_path / "plain.zarr")
    plate = zarr.create_group(tmp_path / "plate.zarr")
    plate.attrs["ome"] = {"version": "0.5", "plate": {}}
    with pytest.raises(StoreError, match=r"plate.*A/1/0"):
        open_images(tmp_path / "plate.zarr")


def test_a_store_that_was_cut_off_is_named(store: Path):
    block = next(p for p in (store / "0" / "c").rglob("1") if p.is_file())
    block.write_bytes(block.read_bytes()[:20])
    (image,) = open_images(store)
    with pytest.raises(StoreError, match=r"cells.zarr is broken, cut off"):
        read_rgb(image)
    shutil.rmtree(store / "1")
    with pytest.raises(StoreError, match="level '1' is missing: the store is cut off"):
        open_images(store)
    (store / "zarr.json").write_text('{"zarr_format": 3, "node_')
    with pytest.raises(StoreError, match=r"cells.zarr is broken, cut off"):
        open_images(store)


@pytest.mark.parametrize(
    "moves",
    [
        [{"type": "scale", "scale": [1]}],
        [{"type": "scale", "scale": [0, 1]}],
        [{"type": "scale", "scale": [float("inf"), 1]}],
        [{"type": "affine", "affine": [[1, 0], [0, 1]]}],
        [{"type": "scale", "path": "elsewhere"}],
    ],
)
def test_places_that_are_none_are_named(store: Path, moves):
    scales = json.loads((store / "zarr.json").read_text())["attributes"]["ome"]
    scales["multiscales"][0]["datasets"][0]["coordinateTransformations"] = moves
    change(store, **scales)
    with pytest.raises(StoreError, match="transformation"):
        open_images(store)


def test_channels_that_are_said_wrongly_are_left_out(store: Path):
    wrong = [{"color": "no", "window": {"start": 5, "end": 5}, "label": None}]
    for said in ({"channels": wrong}, {"channels": "no"}, "no", {}):
        change(store, omero=said)
        (image,) = open_images(store)
        assert image.channels[0].color is None
        assert read_rgb(image).shape == (700, 900, 3)


def test_a_level_that_is_too_large_names_one_that_fits(store: Path, monkeypatch):
    monkeypatch.setattr("napari_ovam.images.ome_zarr_pixels.MAX_PIXELS", 200_000)
    (image,) = open_images(store)
    with pytest.raises(StoreError, match="take level 1"):
        read_rgb(image)
    assert read_rgb(image, level=1).shape == (350, 450, 3)
    assert finest_level(image) == 1


def test_without_zarr_it_is_said_how_to_get_it(store: Path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(StoreError, match=r"pip install 'napari-ovam\[zarr\]'"):
        open_images(store)


# -- remote stores -------------------------------------------------------------------


def test_what_does_not_answer_is_given_up():
    held = threading.Event()
    with pytest.raises(TimeoutError, match=r"there did not answer within 0.2 seconds"):
        wait_for(held.wait, "there", seconds=0.2)

    def cancel(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        wait_for(held.wait, "there", seconds=60, progress=cancel)
    held.set()
    assert wait_for(lambda: 7, "there", seconds=1) == 7
    with pytest.raises(KeyError):
        wait_for(lambda: {}["no"], "there", seconds=1)


@pytest.fixture
def server(tmp_path: Path):
    """A server of a folder; it holds back whatever has "slow" in its name."""
    pytest.importorskip("aiohttp")
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    held = threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "slow" in self.path:
                held.wait(60)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))
    )
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    held.set()
    made.shutdown()
    made.server_close()


def test_a_remote_store_is_read_and_one_that_is_silent_given_up(
    store: Path, server: str
):
    (image,) = open_images(f"{server}/cells.zarr")
    np.testing.assert_array_equal(
        read_plane(image), np.arange(700 * 900).reshape(700, 900)
    )
    with pytest.raises(TimeoutError, match="did not answer"):
        open_images(f"{server}/slow.zarr", seconds=0.5)
    with pytest.raises(StoreError, match=r"nothing\.zarr"):
        open_images(f"{server}/nothing.zarr")
