"""Pictures out of lazy arrays: as little as possible is read, faults are named."""

from __future__ import annotations

import threading
import time
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

from napari_ovam.base.progress import Cancelled
from napari_ovam.images.arrays.planes import Pictures, Shown, to_rgb
from napari_ovam.images.arrays.stacks import Plane


class Lazy:
    """An array that knows what was read of it."""

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
        self.shape, self.chunks, self.dtype = shape, chunks, np.dtype(np.uint8)
        self.read: list[Any] = []

    def __getitem__(self, index: Any) -> np.ndarray:
        self.read.append(index)
        where = index if isinstance(index, tuple) else (index,)
        return np.full(self.shape, 7, np.uint8)[where]


def test_only_the_plane_and_the_level_that_are_wanted_are_read() -> None:
    levels = [Lazy((5, 400, 600), (1, 100, 100)), Lazy((5, 100, 150), (1, 100, 100))]
    pictures = Pictures.of(Shown("cells", levels), largest=200)
    assert (pictures.level, pictures.size, pictures.planes) == (1, (100, 150), (5,))
    assert pictures.pixel == (4, 4)
    seen: list[tuple[int, int]] = []
    picture = pictures.read((3,), lambda *each: seen.append(each))
    assert picture.shape == (100, 150, 3)
    assert not levels[0].read
    assert [index[0] for index in levels[1].read] == [3]
    assert seen[-1] == (100, 100)


def test_a_depth_that_is_coarser_at_a_level_is_followed() -> None:
    fine = np.zeros((6, 64, 64), np.uint8)
    coarse = np.zeros((3, 32, 32), np.uint8)
    coarse[2] = 200
    pictures = Pictures.of(Shown("cells", [fine, coarse]), largest=32)
    assert pictures.planes == (6,)
    assert pictures.read((5,)).max() == 200
    assert pictures.read((3,)).max() == 0


def test_whole_blocks_are_read_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_ovam.images.arrays.planes._BAND", 6000)
    array = Lazy((250, 60), (40, 60))
    picture = Pictures.of(Shown("cells", [array])).read()
    rows = [index[0] for index in array.read]
    assert [(band.start, band.stop) for band in rows] == [
        (0, 80),
        (80, 160),
        (160, 240),
        (240, 250),
    ]
    assert (picture == 7).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_bands_of_a_lazy_array_are_the_picture_of_the_whole(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_ovam.images.arrays.planes._BAND", 500)
    values = (np.random.default_rng(0).random((30, 20)) * 200).astype(dtype)
    limits = (0.0, 1.0) if dtype is bool else (10.0, 150.0)
    lazy = da.from_array(values, chunks=(7, 5))
    found = Pictures.of(Shown("cells", [lazy], limits=limits)).read()
    whole = to_rgb(values, "cells", rgb=False, limits=limits)
    np.testing.assert_array_equal(found, whole)


def test_a_block_that_fails_is_named() -> None:
    def fail(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and block_info[0]["chunk-location"][0] == 2:
            raise OSError("the disk is gone")
        return block

    lazy = da.zeros((40, 10), chunks=(10, 10), dtype=np.uint8).map_blocks(
        fail, dtype=np.uint8
    )
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(ValueError, match=r"'cells' cannot be read.*the disk is gone"),
    ):
        Pictures.of(Shown("cells", [lazy])).read()


def test_a_block_that_does_not_come_is_left_behind_by_a_cancel() -> None:
    gate = threading.Event()

    class Stuck(Lazy):
        def __getitem__(self, index: Any) -> np.ndarray:
            gate.wait(30)
            return super().__getitem__(index)

    end = time.monotonic() + 0.3

    def progress(_done: int, _total: int) -> None:
        if time.monotonic() > end:
            raise Cancelled

    start = time.monotonic()
    with pytest.raises(Cancelled):
        Pictures.of(Shown("cells", [Stuck((10, 10), (10, 10))])).read((), progress)
    assert time.monotonic() - start < 10
    gate.set()


@pytest.mark.parametrize(
    ("shown", "match"),
    [
        (Shown("line", [np.zeros(4)]), "rows and columns"),
        (Shown("none", [np.zeros((0, 4))]), "no pixels"),
        (Shown("five", [np.zeros((4, 4, 5))], rgb=True), "5 colours"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(shown: Shown, match: str) -> None:
    with pytest.raises(ValueError, match=f"'{shown.name}'.*{match}"):
        Pictures.of(shown)


def test_layers_of_different_sizes_are_no_one_picture() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        Pictures.of(Shown("a", [np.zeros((4, 4))]), Shown("b", [np.zeros((4, 5))]))


def test_nan_is_refused_by_name() -> None:
    values = np.zeros((4, 4))
    values[2, 2] = np.nan
    with pytest.raises(ValueError, match="'holes' holds NaN"):
        Pictures.of(Shown("holes", [values])).read()


def plane(**changed: Any) -> Plane:
    fields: dict[str, Any] = {
        "id": "a",
        "name": "cells",
        "at": (3, 12),
        "shape": (50, 1200),
        "axes": ("t", "z"),
        "scale": (2.0, -0.5),
        "translate": (10.0, 0.0),
        "units": ("second", "micrometer"),
    }
    return Plane(**{**fields, **changed})


def test_a_plane_is_told_by_its_name_and_place() -> None:
    assert plane().ending == "_t003_z0012"
    assert plane().place == (16.0, -6.0)
    assert plane().nearest((16.4, -5.9)) == (3, 12)
    assert Plane.of({"stack": plane().as_json()}) == plane()


@pytest.mark.parametrize(
    "changed",
    [{"at": (3,)}, {"at": (50, 0)}, {"scale": (0.0, 1.0)}, {"scale": "no"}, {"at": ()}],
)
def test_a_stack_that_somebody_wrote_wrongly_is_none(changed: dict[str, Any]) -> None:
    about = {**plane().as_json(), **changed}
    assert Plane.of({"stack": about}) is None
    assert Plane.of({"stack": [1]}) is None
    assert Plane.of({}) is None
