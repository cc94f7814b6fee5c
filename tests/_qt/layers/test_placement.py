"""What is made of a picture lies over it in the world, whatever layer it came from."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image, Labels

from napari_ovam._qt.image.layer_pictures import (
    NO_CHANNELS,
    Channels,
    Source,
    guess_channels,
    loadable,
)
from napari_ovam._qt.layers.placement import placed, placed_stack
from napari_ovam.images.arrays.stacks import Plane

HEIGHT, WIDTH, BLOCK = 32, 48, 4
AT = 2  # the plane or channel that has the marks

sides = st.floats(0.1, 10).flatmap(lambda x: st.sampled_from([x, -x]))
places = st.fixed_dictionaries(
    {},
    optional={
        "scale": st.tuples(sides, sides),
        "translate": st.tuples(*[st.floats(-100, 100)] * 2),
        "rotate": st.floats(-180, 180),
        "shear": st.tuples(st.floats(-2, 2)).map(list),
        "affine": st.tuples(*[st.floats(-5, 5)] * 2, st.floats(0.2, 2)).map(
            lambda x: np.array([[x[2], 0.3, x[0]], [-0.1, 1, x[1]], [0, 0, 1]])
        ),
        "units": st.just(("um", "um")),
        "axis_labels": st.just(("row", "column")),
    },
)


def marks() -> np.ndarray:
    """Return a grid of blocks, some of which are marked."""
    blocks = np.random.default_rng(1).random((HEIGHT // BLOCK, WIDTH // BLOCK)) < 0.2
    return np.kron(blocks, np.ones((BLOCK, BLOCK), bool)).astype(np.uint8) * 255


def spread(kind: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Return an array that holds the marks in a channel or plane."""
    if kind == "grey":
        return marks(), {}
    if kind == "colour":
        return np.stack([marks()] * 3, -1), {"rgb": True}
    array = np.zeros((4, HEIGHT, WIDTH), np.uint8)
    array[AT] = marks()
    if kind == "channels last":
        return np.moveaxis(array, 0, -1), {"rgb": False}
    return array, {}


def n_dimensional(place: dict[str, Any], ndim: int, rows: list[int]) -> dict[str, Any]:
    """Return a place in the plane as that of a layer with more axes."""
    more = ndim - 2
    if not more:
        return dict(place)
    whole = {}
    fill = {"scale": 2.0, "translate": 3.0, "units": "um", "axis_labels": "t"}
    for name in ("scale", "translate", "units", "axis_labels"):
        if name in place:
            values = [fill[name]] * ndim
            for axis, value in zip(rows, place[name], strict=True):
                values[axis] = value
            whole[name] = values
    flat = Image(np.zeros((2, 2)), **place)
    for name, matrix in (("rotate", flat.rotate), ("shear", None)):
        if name in place:
            made = np.eye(ndim)
            made[np.ix_(rows, rows)] = (
                matrix if matrix is not None else [[1, place["shear"][0]], [0, 1]]
            )
            whole[name] = made
    if "affine" in place:
        made = np.eye(ndim + 1)
        made[np.ix_([*rows, ndim], [*rows, ndim])] = place["affine"]
        whole["affine"] = made
    return whole


KINDS = ["grey", "colour", "channels first", "channels last", "stack"]


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(place=places)
def test_a_marked_grid_comes_back_at_the_same_place(
    kind: str, level: int, place: dict[str, Any]
) -> None:
    array, known = spread(kind)
    rows = [0, 1] if kind == "channels last" else list(range(array.ndim))[-2:]
    if kind == "colour":
        rows = [0, 1]
    ndim = array.ndim - (kind == "colour")
    steps = [
        tuple(slice(None, None, 2**n if a in rows else 1) for a in range(array.ndim))
        for n in range(3)
    ]
    levels = [da.from_array(array[step]) for step in steps]
    layer = Image(
        levels if level else array,
        multiscale=bool(level),
        **known,
        **n_dimensional(place, ndim, rows),
    )
    axis = {"channels first": 0, "channels last": 2}.get(kind)
    channels = NO_CHANNELS if axis is None else Channels(axis, (-1, AT, 0))
    source = Source.of([layer], channels, largest=WIDTH // 2**level)
    at = (AT,) if kind == "stack" else ()
    picture = source.pictures.read(at)
    about = json.loads(json.dumps(source.about(at)))
    sample: Any = SimpleNamespace(about=about)

    labels = Labels((picture[..., 1] > 0).astype(np.uint8), **placed(sample))

    pixel = 2**level
    assert labels.data.shape == (HEIGHT // pixel, WIDTH // pixel)
    found = np.argwhere(labels.data)
    assert len(found) == np.count_nonzero(marks()) / pixel**2
    for row, column in found:
        # the middle of the pixels of the largest level that it stands for
        middle = [pixel * x + (pixel - 1) / 2 for x in (row, column)]
        inside = tuple(int(x) for x in np.floor(middle))
        assert marks()[inside]
        whole = np.full(ndim, float(AT))
        whole[rows] = middle
        there = np.asarray(layer.data_to_world(whole))[rows]
        np.testing.assert_allclose(
            labels.data_to_world((row, column)), there, atol=1e-6, rtol=1e-9
        )
    assert labels.units == tuple(layer.units[axis] for axis in rows)
    if "axis_labels" in place:
        assert labels.axis_labels == ("row", "column")
    if kind == "stack":
        plane = Plane.of(about)
        assert plane is not None
        stack = Image(
            np.zeros((4, HEIGHT // pixel, WIDTH // pixel)),
            **placed_stack(sample, plane),
        )
        row, column = found[0]
        middle = [pixel * x + (pixel - 1) / 2 for x in (row, column)]
        np.testing.assert_allclose(
            stack.data_to_world((AT, row, column)),
            layer.data_to_world((AT, *middle)),
            atol=1e-6,
        )
        assert plane.nearest([stack.data_to_world((AT, 0, 0))[0]]) == (AT,)


def test_a_layer_that_is_turned_out_of_its_plane_is_refused() -> None:
    layer = Image(np.zeros((4, 8, 8)), name="tilted", rotate=(0, 30, 0))
    with pytest.raises(ValueError, match="'tilted' is turned out of the plane"):
        Source.of([layer])


@pytest.mark.parametrize(
    ("shape", "how", "axis"),
    [
        ((3, 40, 50), {}, 0),
        ((40, 50, 4), {"rgb": False}, 2),
        ((20, 40, 50), {}, None),
        ((20, 40, 50), {"axis_labels": ("C", "y", "x")}, 0),
        ((3, 40, 50), {"axis_labels": ("z", "y", "x")}, None),
        ((9, 3, 40, 50), {}, 1),
        ((9, 40, 50, 3), {"rgb": True}, None),
    ],
)
def test_which_axis_is_likely_to_be_one_of_channels(
    shape: tuple[int, ...], how: dict[str, Any], axis: int | None
) -> None:
    assert guess_channels(Image(np.zeros(shape, np.uint8), **how)).axis == axis


def test_channels_that_are_blended_make_the_picture_that_is_shown() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 200, (2, 8, 9), np.uint8)
    how = {"blending": "additive", "contrast_limits": (0, 255)}
    red = Image(first, name="red", colormap="red", **how)
    magenta = Image(second, name="magenta", colormap="magenta", **how)
    hidden = Image(first, name="other", colormap="blue", visible=False, **how)
    offered = loadable([red, magenta, hidden])
    assert list(offered)[-1] == "Layers red, magenta as shown"
    picture = Source.of(offered["Layers red, magenta as shown"]).pictures.read()
    both = np.minimum(first.astype(int) + second, 255)
    np.testing.assert_array_equal(picture[..., 0], both)
    np.testing.assert_array_equal(picture[..., 1], 0)
    np.testing.assert_array_equal(picture[..., 2], second)
