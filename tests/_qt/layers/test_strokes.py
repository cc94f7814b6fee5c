"""What is on the labels counts, whoever put it there and whatever napari says of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import napari.layers._layer_actions as actions
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from napari.layers import Image
from project_window import SIZE, Window, make_project
from qtpy.QtCore import QPoint, Qt

from napari_ovam._qt.layers.placement import PLACEMENT, placement_of
from napari_ovam._qt.session.edits import Edits, Snapshot
from napari_ovam.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def window(dock: Callable[..., Any], tmp_path: Path) -> Window:
    """Return a window with a project of four images open; the second has labels."""
    made = dock("OVAM project", Window)
    made.open(make_project(tmp_path / "pets").path)
    made.session.step(1)
    made.until_shown("picture 1")
    return made


def step(window: Window, by: int) -> None:
    before = window.shown
    window.session.step(by)
    window.bot.waitUntil(lambda: window.shown != before, timeout=10_000)


def copy_of(window: Window, layer: Any) -> Any:
    """Return the copy that napari's own command makes."""
    layers = window.viewer.layers
    layers.selection = {layer}
    actions._duplicate_layer(layers)
    return layers[layers.index(layer) + 1]


def saved(window: Window, name: str = "picture-1") -> np.ndarray:
    found = window.written().load_labels(name)
    assert found is not None
    return found


SQUARE = [(40, 10), (40, 30), (55, 30), (55, 10)]


def polygon(layer: Any) -> None:
    layer.paint_polygon(SQUARE, 2)


def fill(layer: Any) -> None:
    layer.fill((10, 10), 2)


def undone(layer: Any) -> None:
    layer.paint((30, 30), 2)
    layer.fill((10, 10), 2)
    layer.undo()


def redone(layer: Any) -> None:
    undone(layer)
    layer.redo()


def given_by_a_plugin(layer: Any) -> None:
    other = layer.data.astype(np.int64)
    other[5:50, 5] = 2
    layer.data = other


def in_place(layer: Any) -> None:
    layer.data[5:50, 5] = 2
    layer.refresh()


def in_silence(layer: Any) -> None:
    layer.data[5:50, 5] = 2


@pytest.mark.parametrize(
    "change",
    [polygon, fill, undone, redone, given_by_a_plugin, in_place, in_silence],
)
def test_every_way_to_change_labels_is_noticed_and_saved(
    window: Window, change: Callable[[Any], None]
) -> None:
    before = window.labels.data.copy()
    change(window.labels)
    there = window.labels.data.copy()
    assert (there != before).any()
    now = window.session.current.edits
    window.bot.waitUntil(lambda: np.array_equal(now.labels, there), timeout=5000)
    assert window.session.current.status == "edited"
    np.testing.assert_array_equal(saved(window), there)
    np.testing.assert_array_equal(window.labels.data, there)


def test_what_was_not_noticed_yet_is_taken_when_the_image_is_left(
    window: Window,
) -> None:
    in_silence(window.labels)
    there = window.labels.data.copy()
    step(window, 1)
    np.testing.assert_array_equal(saved(window), there)
    in_silence(window.labels)
    window.session.close()  # as the window does
    np.testing.assert_array_equal(
        Project.open(window.session.project.path).load_labels("picture-2") == 2,
        window.labels.data == 2,
    )


def right_click(window: Window) -> None:
    """Begin to encircle something with napari's brush, and never end it."""
    layer = window.labels
    window.viewer.layers.selection.active = layer
    layer.mode, layer.selected_label, layer.brush_size = "paint", 2, 8
    canvas = window.viewer.window._qt_viewer.canvas.native
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    window.bot.mouseMove(canvas, middle)
    window.bot.mouseClick(canvas, Qt.MouseButton.RightButton, pos=middle)
    assert layer._block_history
    assert (layer.data == 2).any()


@pytest.mark.parametrize("button", ["next_button", "accept_button"])
def test_an_outline_that_stays_open_keeps_nothing_waiting(
    window: Window, button: str
) -> None:
    right_click(window)
    there = window.labels.data.copy()
    window.click(button)
    window.until_shown("picture 2")
    assert not window.labels._block_history
    np.testing.assert_array_equal(saved(window), there)
    before = window.labels.data.copy()
    canvas = window.viewer.window._qt_viewer.canvas.native
    window.bot.mouseMove(canvas, QPoint(30, 30))  # nothing is drawn on here
    np.testing.assert_array_equal(window.labels.data, before)


def test_new_labels_come_in_spite_of_an_outline_that_stays_open(
    window: Window,
) -> None:
    session = window.session
    right_click(window)
    outline = window.labels.data == 2
    session.current.maps = {1: np.linspace(0, 1, SIZE * SIZE, dtype=np.float32)}
    session.current.maps[1] = session.current.maps[1].reshape(SIZE, SIZE)
    session.labels.labels_from_maps()
    window.bot.waitUntil(lambda: session.labels.job is None, timeout=120_000)
    window.bot.waitUntil(lambda: window.labels.data[-1, -1] == 1, timeout=5000)
    assert (window.labels.data[outline] == 2).all()


def test_a_copy_is_the_persons_own(window: Window) -> None:
    copy = copy_of(window, window.labels)
    copy.name = "backup"
    before = copy.data.copy()
    picture = copy_of(window, window.image)
    pixels = picture.data.copy()
    window.paint(40, 40)
    copy.data[0, 0] = 9
    there = window.labels.data.copy()
    np.testing.assert_array_equal(saved(window), there)
    step(window, 1)
    step(window, -1)
    assert copy.name == "backup"
    before[0, 0] = 9
    np.testing.assert_array_equal(copy.data, before)
    np.testing.assert_array_equal(picture.data, pixels)
    window.viewer.layers.remove(copy)
    window.bot.wait(100)
    np.testing.assert_array_equal(saved(window), there)
    np.testing.assert_array_equal(window.labels.data, there)


def test_labels_that_became_an_image_or_went_come_back(window: Window) -> None:
    window.paint(40, 40)
    there = window.labels.data.copy()
    layers = window.viewer.layers
    layers.selection = {window.labels}
    actions._convert(layers, "image")
    assert window.labels is None
    assert "kept" in window.said
    for _ in range(2):
        window.session.labels.labels_from_maps()
        np.testing.assert_array_equal(window.labels.data, there)
        assert window.image is not None
        assert "again" in window.said
        layers.select_all()
        layers.remove_selected()
        assert not layers


def test_a_layer_that_comes_back_by_hand_is_painted_on_as_before(
    window: Window,
) -> None:
    layers, layer = window.viewer.layers, window.labels
    layers.insert(0, layers.pop(layers.index(layer)))
    window.paint(40, 40)
    np.testing.assert_array_equal(saved(window), layer.data)
    assert window.labels is layer


@pytest.mark.parametrize("wrong", [65538, -1, 2**40])
def test_an_id_that_cannot_be_is_refused_by_name(window: Window, wrong: int) -> None:
    window.paint(40, 40)
    before = window.labels.data.copy()
    other = before.astype(np.int64)
    other[0, 0] = wrong
    window.labels.data = other
    assert str(wrong) in window.said
    np.testing.assert_array_equal(window.labels.data, before)
    window.labels.data = np.zeros((3, 4), np.uint8)
    assert "(3, 4)" in window.said
    np.testing.assert_array_equal(window.labels.data, before)
    np.testing.assert_array_equal(saved(window), before)


def test_ids_of_two_bytes_can_be_painted_after_a_mask_of_true_and_false(
    window: Window,
) -> None:
    window.labels.data = np.eye(SIZE, dtype=bool)
    window.paint(40, 10, 300)
    there = saved(window)
    assert there[0, 0] == 1
    assert there[40, 10] == 300


def test_a_stroke_on_a_large_image_costs_what_it_touched(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, joined = window.session, Snapshot._joined
    image = np.zeros((2000, 2000, 3), np.uint8)
    sample = session.projects.add(
        image, "large", choice=session.choice, edits=Edits(np.zeros((2000, 2000), int))
    )
    window.bot.wait(100)

    def only_beside(self: Snapshot, *arguments: Any) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return joined(self, *arguments)

    monkeypatch.setattr(Snapshot, "_joined", only_beside)
    before = sample.edits.now
    window.paint(700, 900)
    pairs = zip(before.tiles, sample.edits.now.tiles, strict=True)
    assert sum(a is not b for a, b in pairs) == 1
    assert sample.edits.count == (window.labels.data == 2).sum() > 0
    assert (window.written().load_labels(sample.key) == 2).sum() == sample.edits.count


PLACES = [
    {"scale": (0.5, 0.25), "translate": (10, -20), "units": ("um", "um")},
    {"rotate": 30, "scale": (2, 3)},
    {"affine": [[1, 0.2, 5], [0.1, 2, 6], [0, 0, 1]], "shear": [0.3]},
]


@pytest.mark.parametrize("place", PLACES)
def test_all_layers_lie_where_the_image_does(window: Window, place: Any) -> None:
    session, rng = window.session, np.random.default_rng(0)
    source = Image(rng.integers(0, 255, (30, 50, 3), np.uint8), rgb=True, **place)
    plain = window.image
    made = session.projects.add(
        source.data,
        "placed",
        about={PLACEMENT: placement_of(source)},
        choice=session.choice,
        maps={1: rng.random((30, 50), np.float32)},
        edits=Edits(np.ones((30, 50), int)),
    )
    session.layers.show_extra(made, "uncertainty", {"where": made.maps[1]})
    session.instances.show(True)
    find = session.layers.find
    window.bot.waitUntil(lambda: find(made.key, "instances") is not None, timeout=30000)
    pixel = (7, 31)
    there = source.data_to_world(pixel)
    roles = [
        ("image", 0),
        ("map", 1),
        ("labels", 0),
        ("instances", 0),
        ("uncertainty", 1),
    ]
    for role, number in roles:
        layer = find(made.key, role, number)
        np.testing.assert_allclose(layer.data_to_world(pixel), there)
        assert layer.units == source.units
    window.labels.brush_size = 1
    window.labels.paint(window.labels.world_to_data(there), 2)
    assert window.labels.data[pixel] == 2
    step(window, -1)  # and others lie where they did
    np.testing.assert_allclose(window.image.data_to_world(pixel), pixel)
    assert plain.data_to_world(pixel) == pytest.approx(pixel)
    step(window, 1)
    np.testing.assert_allclose(window.labels.data_to_world(pixel), there)
    assert Project.open(session.project.path)  # its index is whole


def stroke(layer: Any, row: int, column: int, value: int) -> None:
    with layer.block_history():
        layer.paint((row, column), value)


CHANGES: dict[str, Callable[[Any, int, int, int], None]] = {
    "stroke": stroke,
    "fill": lambda layer, row, column, value: layer.fill((row, column), value),
    "polygon": lambda layer, row, column, value: layer.paint_polygon(
        [(row, column), (row + 9, column), (row + 9, column + 9)], value
    ),
    "undo": lambda layer, *_: layer.undo(),
    "redo": lambda layer, *_: layer.redo(),
    "data": lambda layer, row, column, value: setattr(
        layer, "data", np.roll(layer.data, (row, column), (0, 1)).astype(np.int32)
    ),
    "in place": lambda layer, row, column, value: layer.data.__setitem__(
        (slice(row, row + 5), slice(column, None)), value
    ),
    "refresh": lambda layer, *_: layer.refresh(),
}
change = st.tuples(
    st.sampled_from([*CHANGES, "duplicate", "delete", "next", "previous", "wait"]),
    st.integers(0, SIZE - 10),
    st.integers(0, SIZE - 10),
    st.integers(0, 2),
)


def test_in_any_order_of_events_what_was_left_is_what_is_saved(window: Window) -> None:
    left: dict[str, np.ndarray] = {}

    def leave(by: int) -> None:
        left[window.shown] = window.labels.data.copy()
        window.session.step(by)
        window.bot.waitUntil(lambda: not window.session.projects.wanted, timeout=9000)

    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # one window lives through all of them
    )
    @given(st.lists(change, min_size=3, max_size=14))
    def events(each: list[tuple[str, int, int, int]]) -> None:
        for kind, row, column, value in each:
            layer = window.labels
            if kind in CHANGES:
                CHANGES[kind](layer, row, column, value)
            elif kind == "duplicate":
                stroke(copy_of(window, layer), row, column, value)
            elif kind == "delete":
                there = layer.data.copy()
                window.viewer.layers.remove(layer)
                window.session.labels.labels_from_maps()
                np.testing.assert_array_equal(window.labels.data, there)
            elif kind == "wait":
                window.bot.wait(5)
            else:
                leave(1 if kind == "next" else -1)
            if window.shown in left and kind in ("next", "previous"):
                np.testing.assert_array_equal(window.labels.data, left[window.shown])
        for copy in [la for la in window.viewer.layers if "copy" in la.name]:
            window.viewer.layers.remove(copy)
        left[window.shown] = window.labels.data.copy()
        window.session.take_all()
        project = window.written()
        for name, labels in left.items():
            found = project.load_labels(name.replace(" ", "-"))
            np.testing.assert_array_equal(
                np.zeros_like(labels) if found is None else found, labels
            )

    events()
