"""Images of a project are accepted and rejected, by buttons and by keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from project_window import Window, make_project
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication

from napari_ovam._qt.layers.keys import ACTIONS, keys
from napari_ovam.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def window(dock: Callable[..., Any], tmp_path: Path) -> Window:
    made = dock("OVAM project", Window)
    made.open(make_project(tmp_path / "pets").path)
    return made


def test_accept_and_reject_go_on_to_the_next(window: Window) -> None:
    window.click("accept_button")
    window.until_shown("picture 1")
    window.click("reject_button")
    window.until_shown("picture 2")
    assert [status for _, status in window.rows()] == [
        "accepted",
        "rejected",
        "new",
        "proposed",
    ]
    project = window.written()
    assert project.sample("picture-0").status == "accepted"
    assert project.sample("picture-1").status == "rejected"
    assert not np.any(project.load_labels("picture-0"))  # nothing is in it
    window.click("next_open_button")
    window.until_shown("picture 3")
    window.click("next_open_button")  # begins again where the list ends
    window.until_shown("picture 2")


def test_keys_review_and_choose_classes(window: Window) -> None:
    window.press(Qt.Key.Key_N)
    window.until_shown("picture 1")
    window.labels.selected_label = 1
    window.press(Qt.Key.Key_C)
    assert window.labels.selected_label == 2
    window.press(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert window.labels.selected_label == 1
    window.press(Qt.Key.Key_A)
    window.until_shown("picture 2")
    window.press(Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    window.until_shown("picture 1")
    assert window.rows()[1][1] == "accepted"
    window.widget.view.setFocus()
    window.bot.keyClick(window.widget.view, Qt.Key.Key_J)
    window.until_shown("picture 2")


def test_accepted_labels_stay_until_they_are_painted_on(window: Window) -> None:
    session = window.session
    window.click_row(1)
    window.until_shown("picture 1")
    sample = session.current
    sample.maps = {1: np.ones(sample.shape, np.float32)}
    before = window.labels.data.copy()
    window.click("accept_button")
    window.until_shown("picture 2")
    window.click_row(1)
    window.until_shown("picture 1")
    session.class_changes.set_threshold(1, 0.1)
    session.labels.labels_from_maps()
    assert session.labels.job is None
    assert "accepted" in window.said
    np.testing.assert_array_equal(window.labels.data, before)
    window.paint(50, 50)
    assert window.rows()[1][1] == "edited"
    assert "was accepted" in window.said
    assert window.written().sample("picture-1").status == "edited"


def test_a_stroke_outlasts_new_proposals_after_opening_again(window: Window) -> None:
    """What was edited elsewhere, such as imported masks, is a person's everywhere."""
    session = window.session
    project = session.projects.opened.project
    labels = np.full(session.current.shape, 2, np.uint8)
    project.save_labels("picture-2", labels, "edited")
    window.click_row(2)
    window.until_shown("picture 2")
    sample = session.current
    sample.maps = {1: np.ones(sample.shape, np.float32)}
    session.labels.propose(sample)
    window.bot.waitUntil(lambda: session.labels.job is None, timeout=60_000)
    assert (window.labels.data == 2).all()


def test_a_stroke_that_is_undone_leaves_an_image_new(window: Window) -> None:
    """No maps were made: its empty labels are nobody's proposal."""
    window.paint(40, 40)
    assert window.written().sample("picture-0").status == "edited"
    window.labels.undo()
    assert window.written().sample("picture-0").status == "new"
    assert window.session.current.unlabelled
    window.click_row(1)
    window.until_shown("picture 1")
    window.paint(40, 40)
    assert window.written().sample("picture-1").status == "edited"
    window.labels.undo()
    assert window.written().sample("picture-1").status == "proposed"
    assert not window.session.current.unlabelled


def test_after_maps_without_labels_those_are_what_comes_next(window: Window) -> None:
    sample = window.session.current
    sample.maps = {1: np.ones(sample.shape, np.float32)}
    window.session.hint()
    assert window.said.startswith("Press Labels from maps")
    window.click_row(1)
    window.until_shown("picture 1")
    window.session.current.maps = sample.maps
    for shown, does in ((False, "shows"), (True, "hides")):
        window.session.view(1).shown = window.session.view(2).shown = shown
        window.session.hint()
        assert window.said.startswith(f"Found: cat (H {does} the maps)")


def test_an_image_that_cannot_be_read_is_passed_by(window: Window) -> None:
    projects = window.session.projects
    # reading ahead, which may end at any moment, is over, and as if it had not been
    window.bot.waitUntil(lambda: "picture-1" in projects._ready, timeout=10_000)
    (window.session.project.path / "images" / "picture-1.png").unlink()
    projects._ready.clear()
    window.click("next_button")
    window.bot.waitUntil(lambda: "picture-1" in window.said, timeout=10_000)
    assert window.shown == "picture 0"
    window.click("next_button")
    window.until_shown("picture 2")
    window.click("previous_button")
    window.bot.waitUntil(lambda: "picture-1" in window.said, timeout=10_000)
    window.click("previous_button")
    window.until_shown("picture 0")


def test_keys_with_shift_do_not_select_more_images(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.press(Qt.Key.Key_N)
    window.until_shown("picture 1")
    shift = Qt.KeyboardModifier.ShiftModifier
    monkeypatch.setattr(QGuiApplication, "keyboardModifiers", lambda: shift)
    key = window.viewer.window._qt_viewer.canvas.native
    window.bot.keyPress(key, Qt.Key.Key_Shift, shift)
    window.press(Qt.Key.Key_N, shift)
    window.until_shown("picture 0")
    window.bot.keyRelease(key, Qt.Key.Key_Shift)
    assert window.widget.selected() == ["picture-0"]


def test_nothing_is_decided_on_an_image_that_is_left(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that comes before the next image does not hit the one before it."""
    projects = window.session.projects
    read, slow = projects._loader.load, []
    monkeypatch.setattr(
        projects._loader, "load", lambda *args, **how: slow.append((args, how))
    )
    window.click_row(3)
    assert window.shown == "picture 0"
    window.click("reject_button")
    assert "picture 3 is being read" in window.said
    assert window.rows()[0][1] == "new"
    for args, how in slow:
        read(*args, **how)
    window.until_shown("picture 3")
    window.click("reject_button")
    assert window.rows()[3][1] == "rejected"


def test_the_filter_is_what_is_gone_through(window: Window) -> None:
    status = window.find("status_filter")
    status.setCurrentText("proposed")
    status.activated.emit(status.currentIndex())
    assert [title for title, _ in window.rows()] == ["picture 1", "picture 3"]
    assert window.find("project_count").text() == "2 of 4"
    window.click("next_button")
    window.until_shown("picture 1")
    window.click("accept_button")
    window.until_shown("picture 3")
    assert [title for title, _ in window.rows()] == ["picture 3"]
    window.click("next_button")
    assert "no image" in window.said
    status.setCurrentIndex(0)
    status.activated.emit(0)
    window.find("text_filter").setFocus()
    window.bot.keyClicks(window.find("text_filter"), "ure 2")
    window.bot.waitUntil(
        lambda: [title for title, _ in window.rows()] == ["picture 2"], timeout=3000
    )


def test_proposals_of_a_job_are_shown(window: Window) -> None:
    projects = window.session.projects
    labels = np.full((64, 64), 2, np.uint8)
    for name in ("picture-0", "picture-1"):
        projects.opened.project.save_labels(name, labels, "proposed")
    projects.refresh(["picture-0", "picture-1"])
    window.bot.waitUntil(lambda: bool((window.labels.data == 2).all()), timeout=5000)
    assert window.shown == "picture 0"
    assert window.rows()[0][1] == "proposed"
    window.session.step(1)
    window.until_shown("picture 1")
    assert (window.labels.data == 2).all()


def test_a_label_without_a_class_is_not_accepted(window: Window) -> None:
    window.paint(40, 40, number=7)
    window.click("accept_button")
    assert "Label 7 has no class" in window.said
    assert window.shown == "picture 0"
    assert window.written().sample("picture-0").status == "edited"


def test_pictures_come_into_the_table(window: Window) -> None:
    table = window.widget.table
    keys = window.session.projects.keys

    def there() -> bool:
        return all(table.thumbnails.get(key) is not None for key in keys)

    window.bot.waitUntil(there, timeout=5000)
    picture = table.thumbnails.get(keys[0])
    assert 20 <= picture.width() <= 64


def test_keys_are_chosen_in_preferences(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari.settings import get_plugin_settings

    chosen = get_plugin_settings("napari-ovam").keys
    assert dict(chosen) == {action.name: action.key for action in ACTIONS}
    monkeypatch.setattr(chosen, "accept", "Shift-Y")
    monkeypatch.setattr(chosen, "reject", "no key")
    monkeypatch.setattr(chosen, "next", "A")
    found = keys()
    assert found["accept"] == "Shift-Y"
    assert found["reject"] == "R"
    assert found["next"] == "A"
    monkeypatch.setattr(chosen, "accept", "A")  # taken
    assert keys()["accept"] == ""
    assert len(Project.open(window.session.projects.opened.path).samples) == 4


def test_the_least_sure_come_first(window: Window) -> None:
    project = window.session.project
    labels = np.ones((64, 64), np.uint8)
    for name, unsure in (("picture-1", 0.1), ("picture-3", 0.7)):
        about = {"proposed_by": {"unsure": unsure}}
        project.save_labels(name, labels, "proposed", provenance=about)
    window.click("unsure_first")
    titles = ["picture 3", "picture 1", "picture 0", "picture 2"]
    assert [title for title, _ in window.rows()] == titles
    window.click("next_open_button")  # from picture 0: the next in this order
    window.until_shown("picture 2")
    window.click("next_open_button")
    window.until_shown("picture 3")
    window.click("accept_button")
    window.until_shown("picture 1")
    titles = ["picture 1", "picture 0", "picture 2", "picture 3"]
    assert [title for title, _ in window.rows()] == titles
    window.click("unsure_first")
    assert [title[-1] for title, _ in window.rows()] == list("0123")
