"""Objects of a class are told apart, cut, split and merged, and kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from project_window import Window, make_project
from qtpy.QtCore import QPoint, Qt

from napari_ovam import export_dataset
from napari_ovam.segmentation.instances.files import load_instances

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Objects(Window):
    """The annotator in a project whose first image holds two objects of a class."""

    @property
    def layer(self) -> Any:
        return self.session.layers.find(self.session.current.key, "instances")

    def settle(self) -> None:
        """Wait until the instances have followed."""
        edits = self.session.instances
        self.bot.waitUntil(lambda: not edits.busy, timeout=10_000)

    def ids(self) -> set[int]:
        """Return the objects that are shown."""
        return set(np.unique(self.layer.data).tolist()) - {0}

    def at(self, row: int, column: int) -> int:
        return int(self.layer.data[row, column])

    def drag(self, *places: tuple[int, int]) -> None:
        """Drag the mouse over pixels of the image; one place is a click."""
        canvas = self.viewer.window._qt_viewer.canvas
        native = canvas.native
        camera = self.viewer.scene.camera
        size, left = native.size(), Qt.MouseButton.LeftButton

        def point(place: tuple[int, int]) -> QPoint:
            _, row, column = camera.center
            x = size.width() / 2 + (place[1] - column) * camera.zoom
            y = size.height() / 2 + (place[0] - row) * camera.zoom
            return QPoint(round(x), round(y))

        self.bot.mouseMove(native, point(places[0]))
        self.bot.mousePress(native, left, pos=point(places[0]))
        for place in places[1:]:
            self.bot.mouseMove(native, point(place))
            self.bot.wait(20)
        self.bot.mouseRelease(native, left, pos=point(places[-1]))
        self.bot.wait(50)
        self.settle()

    def kept(self, name: str = "picture-0") -> Any:
        """Return the instances of an image as they are on the disk."""
        project = self.written()
        return load_instances(project.path, name, project.load_labels(name))


@pytest.fixture
def window(dock: Callable[..., Any], tmp_path: Path) -> Objects:
    project = make_project(tmp_path / "pets", 2)
    labels = np.zeros((64, 64), np.uint8)
    labels[8:24, 8:24] = labels[8:24, 36:60] = 1
    labels[40:60, :] = 2
    project.save_labels("picture-0", labels, "edited")
    project.classes.change(2, thing=False)
    project.save()
    made = dock("OVAM annotator", Objects, "instances")
    made.open(project.path)
    made.click("show_instances")
    made.settle()
    return made


def test_parts_of_things_are_objects(window: Objects) -> None:
    assert len(window.ids()) == 2
    assert window.layer.data.dtype == np.uint16
    assert window.at(50, 50) == 0  # a hat is no thing here
    assert window.find("instances_text").text() == "cat: 2"
    features = dict(
        zip(window.layer.features["index"], window.layer.features["name"], strict=True)
    )
    assert features[window.at(10, 10)] == f"cat {window.at(10, 10)}"
    assert window.kept().of_class(1) == sorted(window.ids())
    window.session.class_changes.change(2, thing=True)
    assert window.find("instances_text").text() == "cat: 2, hat: 1"
    window.click("show_instances")
    assert window.layer is None


def test_a_line_cuts_and_two_clicks_merge(window: Objects) -> None:
    window.click("cut_button")
    left, right = window.at(10, 10), window.at(10, 40)
    window.drag((4, 48), (16, 48), (28, 48))
    assert len(window.ids()) == 3
    assert window.at(10, 40) != window.at(10, 56)
    assert window.at(10, 10) == left
    assert len(window.kept().of_class(1)) == 3
    window.click("merge_button")
    window.drag((12, 40))
    assert "click another object" in window.said
    window.drag((12, 56))
    assert window.at(10, 40) == window.at(10, 56)
    window.click("undo_instances_button")
    window.settle()
    assert window.at(10, 40) != window.at(10, 56)
    window.click("cut_button")
    window.drag((30, 2), (32, 60))
    assert "crosses no object" in window.said
    assert {left, right} <= window.ids()
    assert len(window.ids()) == 3  # and the line is gone


def test_two_clicks_split(window: Objects) -> None:
    window.click("split_button")
    window.drag((16, 38))
    window.drag((16, 57))
    assert window.at(16, 38) != window.at(16, 57)
    assert len(window.ids()) == 3


def test_objects_follow_the_brush_and_stay_split(window: Objects) -> None:
    window.click("cut_button")
    window.drag((4, 48), (28, 48))
    window.click("cut_button")
    first, other = window.at(10, 40), window.at(10, 56)
    window.paint(26, 40, number=1)
    window.bot.waitUntil(lambda: window.at(26, 40) == first, timeout=10_000)
    assert window.at(10, 56) == other
    np.testing.assert_array_equal(window.kept().ids > 0, window.labels.data > 0)


def test_they_are_there_after_opening_and_are_exported(
    window: Objects, tmp_path: Path
) -> None:
    window.click("cut_button")
    window.drag((4, 48), (28, 48))
    before = window.layer.data.copy()
    project = window.written()
    items, classes = project.items(["picture-0"]), project.label_classes()
    out = export_dataset(items, classes, tmp_path / "out", ["coco-panoptic"])
    found = [
        json.loads(path.read_text()).get("annotations", ())
        for path in out.rglob("*.json")
    ]
    segments = [s for each in found for a in each for s in a["segments_info"]]
    assert sorted(s["category_id"] for s in segments) == [1, 1, 1, 2]
    window.session.step(1)
    window.until_shown("picture 1")
    window.settle()
    assert len(window.ids()) == 1
    window.session.projects.leave()
    window.wait()
    window.open(project.path)
    window.settle()
    np.testing.assert_array_equal(window.layer.data, before)


def test_a_merged_class_keeps_its_objects_apart(window: Objects) -> None:
    window.click("cut_button")
    window.drag((4, 48), (28, 48))
    parts = {window.at(10, 40), window.at(10, 56)}
    asked: list[Any] = []
    changes = window.session.class_changes
    changes.asked.connect(asked.append)
    changes.ask_merge(1, 2)
    window.wait()
    changes.remove(asked[0])
    window.wait()
    window.settle()
    kept = window.kept()
    assert parts <= set(kept.classes)
    assert set(kept.classes.values()) == {2}
