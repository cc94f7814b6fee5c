"""Copies of our layers, however they are made, are the person's own."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import napari.layers._layer_actions as actions
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from napari.layers import Layer
from project_window import SIZE, Window, make_project

from napari_ovam.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROLES = ["labels", "labels", "image", "map", "instances"]


@pytest.fixture
def window(dock: Callable[..., Any], tmp_path: Path) -> Window:
    """Return a window whose second image has labels, a map and instances."""
    made = dock("OVAM project", Window)
    made.open(make_project(tmp_path / "pets").path)
    session = made.session
    session.step(1)
    made.until_shown("picture 1")
    session.current.maps = {1: np.eye(SIZE, dtype=np.float32)}
    session.show(session.current)
    session.instances.show(True)
    find = session.layers.find
    made.bot.waitUntil(
        lambda: find("picture-1", "instances") is not None, timeout=30_000
    )
    return made


def duplicated(layers: Any, layer: Layer) -> Layer:
    layers.selection = {layer}
    actions._duplicate_layer(layers)
    return layers[layers.index(layer) + 1]


def created(layers: Any, layer: Layer) -> Layer:
    """As plugins do it, with all that napari says of a layer."""
    layers.append(Layer.create(*deepcopy(layer.as_layer_data_tuple())))
    return layers[-1]


def made_alike(layers: Any, layer: Layer) -> Layer:
    """A layer of the same name and metadata, as a reader or a script makes it."""
    more = {"rgb": True} if getattr(layer, "rgb", False) else {}
    copy = type(layer)(
        layer.data.copy(), name=layer.name, metadata=layer.metadata, **more
    )
    layers.append(copy)
    return layers[-1]


def converted(layers: Any, layer: Layer) -> Layer:
    """A copy that is turned into a layer of another kind."""
    copy = duplicated(layers, layer)
    if getattr(copy, "rgb", False):
        return copy
    at = layers.index(copy)
    kind = "labels" if type(copy).__name__ == "Image" else "image"
    layers.selection = {copy}
    actions._convert(layers, kind)
    return layers[at] if copy not in layers else copy


COPIES = [duplicated, created, made_alike, converted]
act = st.tuples(
    st.sampled_from(
        [
            *("copy", "copy", "paint copy", "delete copy", "rename copy", "hide copy"),
            *("move copy", "paint", "next", "previous", "delete ours", "class", "wait"),
        ]
    ),
    st.sampled_from(ROLES),
    st.sampled_from(COPIES),
    st.integers(0, 5),
)


def test_in_any_order_copies_stay_as_the_person_left_them(
    window: Window, tmp_path: Path
) -> None:
    session, layers = window.session, window.viewer.layers
    images = {
        s.name: session.project.load_image(s.name) for s in session.project.samples
    }
    left: dict[str, np.ndarray] = {}

    def step(by: int) -> None:
        left[session.current.key] = window.labels.data.copy()
        session.step(by)
        window.bot.waitUntil(lambda: not session.projects.wanted, timeout=9000)

    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # one window lives through all of them
    )
    @given(st.lists(act, min_size=4, max_size=14))
    def events(acts: list[Any]) -> None:
        own: dict[Layer, tuple[str, bool, np.ndarray]] = {}
        for kind, role, how, number in acts:
            copy = list(own)[number % len(own)] if own else None
            if kind == "copy":
                number = 1 if role == "map" else 0
                layer = session.layers.find(session.current.key, role, number)
                if layer is not None:
                    made = how(layers, layer)
                    own[made] = made.name, made.visible, made.data.copy()
            elif kind == "paint":
                window.paint(10 * number, 30, number % 3)
            elif kind in ("next", "previous"):
                step(1 if kind == "next" else -1)
            elif kind == "delete ours":
                there = window.labels.data.copy()
                layers.remove(window.labels)
                session.labels.labels_from_maps()
                np.testing.assert_array_equal(window.labels.data, there)
                # Its maps may say otherwise: what comes of them is in before we go on.
                window.bot.waitUntil(lambda: session.labels.job is None, timeout=9000)
            elif kind == "class":
                session.class_changes.change(1, color=(number, 9, 9))
            elif kind == "wait":
                window.bot.wait(5)
            elif copy is not None:
                name, visible, data = own.pop(copy)
                if kind == "delete copy":
                    layers.remove(copy)
                    continue
                if kind == "paint copy":
                    copy.data[number : number + 9, :7] = number % 2
                    copy.refresh()
                    data = copy.data.copy()
                elif kind == "rename copy":
                    copy.name = name = f"mine {number} {len(own)}"
                    name = copy.name
                elif kind == "hide copy":
                    copy.visible = visible = not visible
                elif kind == "move copy":
                    layers.move(layers.index(copy), 0)
                own[copy] = name, visible, data
            for mine, (name, visible, data) in own.items():
                assert mine in layers
                assert (mine.name, mine.visible) == (name, visible)
                np.testing.assert_array_equal(mine.data, data)
        left[session.current.key] = window.labels.data.copy()
        session.take_all()
        project = window.written()
        for name, labels in left.items():
            found = project.load_labels(name)
            there = np.zeros_like(labels) if found is None else found
            np.testing.assert_array_equal(there, labels)
        for mine in own:
            layers.remove(mine)
        for name, labels in left.items():  # and deleting them changes nothing
            found = window.written().load_labels(name)
            there = np.zeros_like(labels) if found is None else found
            np.testing.assert_array_equal(there, labels)

    events()
    for name, image in images.items():
        there = Project.open(session.project.path).load_image(name)
        np.testing.assert_array_equal(there, image)
