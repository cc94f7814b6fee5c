"""Objects are clicked in a real window, accepted as one stroke, and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from project_window import Window
from qtpy.QtCore import QPoint, Qt

from napari_ovam.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
SHIFT = Qt.KeyboardModifier.ShiftModifier


class Clicks(Window):
    """The annotator with the tool for clicks, on two discs on grey."""

    @property
    def tool(self) -> Any:
        return self.session.clicks

    @property
    def preview(self) -> Any:
        return self.viewer.layers["clicks"].data

    def settle(self) -> None:
        self.bot.waitUntil(lambda: not self.tool.busy, timeout=20_000)

    def point(self, row: float, column: float) -> tuple[Any, QPoint]:
        native = self.viewer.window._qt_viewer.canvas.native
        camera, size = self.viewer.scene.camera, native.size()
        _, y, x = camera.center
        return native, QPoint(
            round(size.width() / 2 + (column - x) * camera.zoom),
            round(size.height() / 2 + (row - y) * camera.zoom),
        )

    def tap(self, row: float, column: float, button: Any = LEFT) -> None:
        native, at = self.point(row, column)
        self.bot.mouseMove(native, at)
        self.bot.mouseClick(native, button, pos=at)
        self.bot.wait(30)
        self.settle()

    def box(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        native, at = self.point(*start)
        self.bot.mousePress(native, LEFT, SHIFT, at)
        _, at = self.point(*end)
        self.bot.mouseMove(native, at)
        self.bot.wait(30)
        self.bot.mouseRelease(native, LEFT, SHIFT, at)
        self.bot.wait(30)
        self.settle()

    def key(self, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
        self.press(key, modifier)
        self.bot.wait(30)
        self.settle()

    def count(self, number: int) -> int:
        return int((self.labels.data == number).sum())


@pytest.fixture
def window(dock: Callable[..., Any], tmp_path: Path) -> Clicks:
    # In a session the imports belong before the window; see the launcher.
    import diffusers  # noqa: F401

    import napari_ovam.segmentation.clicks
    import napari_ovam.workflows.sample_trace  # noqa: F401

    rows, columns = np.mgrid[:64, :64]
    image = np.full((64, 64, 3), 90, np.uint8)
    image[(rows - 18) ** 2 + (columns - 18) ** 2 < 100] = (220, 60, 40)
    image[(rows - 44) ** 2 + (columns - 44) ** 2 < 144] = (40, 90, 220)
    project = Project.create(tmp_path / "pets")
    for name in ("cat", "hat"):
        project.classes.add(name)
    for number in range(2):
        project.add_sample(image, name=f"picture-{number}")
    project.save()
    made = dock("OVAM annotator", Clicks, "clicks")
    made.open(project.path)
    made.click("click_button")
    made.settle()
    return made


def test_clicks_are_seen_accepted_as_one_stroke_and_undone(window: Clicks) -> None:
    assert "colours" not in window.said
    window.tap(18, 18)
    assert (window.preview > 0).any()
    assert not window.labels.data.any()  # not before it is accepted
    assert "Look at it" in window.said  # there is no trace
    window.key(Qt.Key.Key_Return)
    found = window.labels.data == 1
    assert found[18, 18]
    assert 200 < found.sum() < 450
    assert not found[44, 44]
    assert not (window.preview > 0).any()
    assert window.session.current.edits.count == found.sum()  # a person's
    # another class is clicked, and undone apart from the first
    window.labels.selected_label = 2
    window.tap(44, 44)
    window.key(Qt.Key.Key_Return)
    assert window.count(2) > 300
    window.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    window.session.take_all()
    assert window.count(2) == 0
    assert window.count(1) == found.sum()
    stored = window.written().load_labels("picture-0")
    assert np.array_equal(stored == 1, found)


def test_the_status_bar_says_what_set_the_pixel_below_the_mouse(
    window: Clicks,
) -> None:
    window.tap(18, 18)
    window.key(Qt.Key.Key_Return)
    window.written()

    def status(row: float, column: float) -> str:
        return window.labels.get_status((row, column), world=True)["coordinates"]

    assert "name: cat; by a click, " in status(18, 18)
    assert "click" not in status(60, 60)
    assert "click" not in status(-5, 60)
    window.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    window.session.take_all()
    window.written()
    assert "click" not in status(18, 18)
    window.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | SHIFT)
    window.session.take_all()
    window.written()
    assert "by a click, " in status(18, 18)
    labels = window.labels.data
    with window.labels.block_history():
        window.labels.paint((50, 10), 2)
    window.written()
    assert "by a stroke, " in status(50, 10)
    history = Project.open(window.session.project.path).load_history("picture-0")
    *_, (_, replayed) = history.replay(labels.shape)
    assert np.array_equal(replayed, labels)


def test_where_the_mouse_rests_is_looked_at_before_it_is_clicked(
    window: Clicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ovam.segmentation.click_evidence import Evidence

    looks, corrections = [], []
    look, weigh = Evidence.look, Evidence.weigh
    monkeypatch.setattr(Evidence, "look", lambda *of: (looks.append(1), look(*of))[1])
    monkeypatch.setattr(
        Evidence, "weigh", lambda *of: (corrections.append(1), weigh(*of))[1]
    )
    native, at = window.point(20, 20)
    window.bot.mouseMove(native, at)
    window.bot.waitUntil(lambda: len(looks) == 2, timeout=5000)  # coarse, then fine
    window.settle()
    assert not window.tool.clicks
    assert not window.preview.any()
    window.bot.mouseClick(native, LEFT, pos=at)
    window.settle()
    assert window.preview.any()
    assert len(looks) == 2  # nothing was left to do
    # the object is pointed at again: a right click takes of it
    native, at = window.point(24, 20)
    window.bot.mouseMove(native, at)
    window.bot.wait(200)
    window.settle()
    before = len(corrections)
    window.bot.mouseClick(native, Qt.MouseButton.RightButton, pos=at)
    window.settle()
    assert len(corrections) == before
    assert [click.positive for click in window.tool.clicks] == [True, False]


def test_clicks_are_taken_back_and_dropped(window: Clicks) -> None:
    window.tap(18, 18)
    window.tap(44, 44)
    both = (window.preview == 1).sum()
    window.tap(44, 44, RIGHT)
    assert (window.preview == 1).sum() < both
    window.key(Qt.Key.Key_Backspace)
    assert (window.preview == 1).sum() == both
    window.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert len(window.tool.clicks) == 1
    window.key(Qt.Key.Key_Escape)
    assert not window.tool.pending
    assert not (window.preview > 0).any()
    assert not window.labels.data.any()
    window.key(Qt.Key.Key_Return)
    assert "nothing to accept" in window.said


def test_a_box_and_a_correction_of_what_is_there(window: Clicks) -> None:
    window.box((5, 5), (31, 31))
    window.key(Qt.Key.Key_Return)
    before = window.labels.data.copy()
    assert before[18, 18] == 1
    window.tap(18, 18, RIGHT)  # of a person's mask: not the cat
    window.key(Qt.Key.Key_Return)
    assert window.labels.data[18, 18] == 0
    window.labels.selected_label = 2  # another class takes its pixels over
    window.tap(18, 18)
    window.key(Qt.Key.Key_Return)
    assert window.labels.data[18, 18] == 2


def test_bad_clicks_are_named_and_the_brush_takes_over(window: Clicks) -> None:
    window.tap(-6, 30)
    assert "outside" in window.said
    window.labels.selected_label = 0
    window.tap(18, 18)
    assert "choose a class" in window.said
    window.labels.selected_label = 1
    window.tap(18, 18)
    window.labels.mode = "paint"
    assert not window.tool.on
    assert "dropped" in window.said
    assert "clicks" not in window.viewer.layers
    window.paint(50, 10, 2)
    assert window.count(2)
    assert window.count(1) == 0


def test_strokes_between_clicks_and_accept_stay(window: Clicks) -> None:
    window.tap(18, 18)
    window.paint(50, 10, 2)  # such as by a script; the tool stays
    painted = window.count(2)
    window.settle()
    window.key(Qt.Key.Key_Return)
    window.settle()
    assert window.count(2) == painted
    assert window.labels.data[18, 18] == 1


def test_another_image_drops_what_was_not_accepted(window: Clicks) -> None:
    window.tap(18, 18)
    window.session.step(1)
    window.bot.waitUntil(lambda: window.session.current.key == "picture-1")
    assert not window.tool.pending
    window.bot.waitUntil(lambda: "dropped" in window.said, timeout=2000)
    window.settle()
    window.tap(44, 44)
    window.key(Qt.Key.Key_Return)
    assert window.labels.data[44, 44] == 1
    assert window.written().load_labels("picture-0") is None
