"""Labels are proposed and tokens improved in a project that is open in the panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from project_window import Window
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialogButtonBox

from napari_ovam import OptimizationSettings, Token, iou
from napari_ovam._qt.project.proposing_row import ImprovedTokens
from napari_ovam._qt.session.worker import Job
from napari_ovam.project import Project
from napari_ovam.project.token_library import TokenLibrary
from napari_ovam.scenes import load_scenes
from napari_ovam.workflows import refitting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CAT = 1


@pytest.fixture
def make_window(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Project | None], Window]]:
    import diffusers  # noqa: F401 (before the window)
    import torch

    torch.set_num_threads(1)
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("NAPARI_OVAM_TOKENS", str(tmp_path / "library"))
    windows = []

    def make(project: Project | None) -> Window:
        viewer = make_napari_viewer(show=True)
        viewer.window._qt_window.resize(1100, 700)
        _, widget = viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM project")
        window = Window(viewer, qtbot, widget)
        windows.append(window)
        qtbot.waitExposed(viewer.window._qt_window)
        if project is not None:
            window.open(project.path)
        return window

    yield make
    for window in windows:
        window.session.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The embedded model's scenes with a cat; their exact masks are at hand."""
    project = Project.create(tmp_path / "cats")
    project.classes.add("cat")
    for scene in cats():
        project.add_sample(scene.image, name=scene.name)
    project.save()
    return project


def cats() -> list[Any]:
    """Three scenes with a cat, and one without."""
    scenes = list(load_scenes())
    scenes.sort(key=lambda scene: "cat" not in scene.classes.values())
    return scenes[:4]


def accept(project: Project, count: int) -> None:
    for scene in cats()[:count]:
        number = next(i for i, name in scene.classes.items() if name == "cat")
        labels = (scene.labels == number).astype(np.uint8)
        project.save_labels(scene.name, labels, "accepted")


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimize in few steps."""
    whole = refitting.optimize_token

    def few(traces: Any, token: Any, targets: Any, _: Any, **more: Any) -> Any:
        settings = OptimizationSettings(iterations=12)
        return whole(traces, token, targets, settings, **more)

    monkeypatch.setattr(refitting, "optimize_token", few)


def choose(window: Window, text: str) -> None:
    """Choose from the menu of Propose labels."""
    menu = window.find("propose_button").menu()
    menu.aboutToShow.emit()
    (action,) = [a for a in menu.actions() if a.text().startswith(text)]
    assert action.isEnabled()
    action.trigger()


def statuses(window: Window) -> list[str]:
    return [status for _, status in window.rows()]


def test_all_are_proposed_and_own_work_is_not_touched(
    make_window: Any, project: Project
) -> None:
    names = [sample.name for sample in project.samples]
    accept(project, 1)
    own = np.zeros(cats()[1].labels.shape, np.uint8)
    own[:5] = CAT
    project.save_labels(names[1], own, "edited")
    window = make_window(project)
    window.click_row(2)
    window.until_shown(names[2])
    choose(window, "All images (4)")
    arrived: list[list[str]] = []
    window.session.sample_changed.connect(lambda _: arrived.append(statuses(window)))
    window.wait()
    window.bot.waitUntil(
        lambda: statuses(window) == ["accepted", "edited", "proposed", "proposed"],
        timeout=5000,
    )
    assert len(arrived) > 1, "the table showed nothing on the way"
    shown = window.labels.data
    assert window.shown == names[2]
    assert (shown == CAT).any(), "the open image does not show its proposal"
    again = Project.open(project.path)
    np.testing.assert_array_equal(again.load_labels(names[2]), shown)
    np.testing.assert_array_equal(again.load_labels(names[1]), own)
    assert "2 images got labels" in window.said
    assert "2 of your own were not touched" in window.said


def test_a_cancelled_run_is_gone_on_with(
    make_window: Any, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = make_window(project)
    post = Job.post

    def post_and_stop(job: Job, value: Any) -> None:
        post(job, value)
        job.quit()  # in its thread: with traces at hand it is done before a click

    with monkeypatch.context() as patch:
        patch.setattr(Job, "post", post_and_stop)
        choose(window, "All images (4)")
        window.wait()
    done = sum(s.status == "proposed" for s in Project.open(project.path).samples)
    assert 0 < done < 4
    assert "are kept" in window.said
    window.bot.waitUntil(lambda: statuses(window).count("proposed") == done)
    choose(window, "All images (4)")
    window.wait()
    assert f"{4 - done} image" in window.said
    window.bot.waitUntil(lambda: statuses(window) == ["proposed"] * 4)


def test_strokes_during_a_run_win(make_window: Any, project: Project) -> None:
    window = make_window(project)
    name = window.shown
    choose(window, "This image")
    window.paint(10, 10, number=CAT)
    window.wait()
    window.bot.wait(300)
    assert window.labels.data[10, 10] == CAT
    assert statuses(window)[0] == "edited"
    saved = window.written()
    assert saved.sample(name).status == "edited"
    assert saved.load_labels(name)[10, 10] == CAT


def test_selected_images_only(make_window: Any, project: Project) -> None:
    window = make_window(project)
    window.click_row(1)
    view = window.widget.view
    place = view.visualRect(window.widget.table.index(2, 0)).center()
    modifier = Qt.KeyboardModifier.ControlModifier
    window.bot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, modifier, place)
    window.bot.wait(100)
    choose(window, "Selected images (2)")
    window.wait()
    window.bot.waitUntil(
        lambda: statuses(window) == ["new", "proposed", "proposed", "new"], timeout=5000
    )


def test_more_like_what_is_shown_is_found(make_window: Any, project: Project) -> None:
    project.classes.change(CAT, phrase="thing")
    accept(project, 1)
    window = make_window(project)
    names = [scene.name for scene in cats()]
    window.until_shown(names[0])
    choose(window, "More like this cat")
    window.wait()
    assert "3 images got labels" in window.said
    window.bot.waitUntil(
        lambda: statuses(window) == ["accepted", *["proposed"] * 3], timeout=5000
    )
    again = Project.open(project.path)
    assert again.sample(names[1]).provenance["proposed_by"]["given"] == [CAT]
    assert again.classes[CAT].source == "phrase"
    window.click_row(1)
    window.until_shown(names[1])
    window.session.more_wanted.emit(CAT)  # as the menu of the class table does
    window.wait()
    assert "correct or accept them" in window.said, "nobody has said that it is right"


def test_objects_are_carried_on_to_the_images_that_follow(
    make_window: Any, tmp_path: Path
) -> None:
    project = Project.create(tmp_path / "film")
    project.classes.add("ball")
    noise = np.random.default_rng(0).integers(-8, 8, (64, 64, 3))
    rows, columns = np.mgrid[:64, :64]
    balls = [
        (rows - 14 - 5 * n) ** 2 + (columns - 16 - 4 * n) ** 2 < 64 for n in range(4)
    ]
    for number, ball in enumerate(balls):
        image = np.where(ball[..., None], (200, 60, 50), (90, 120, 80)) + noise
        project.add_sample(image.astype(np.uint8), name=f"t{number}")
    project.save_labels("t0", balls[0].astype(np.uint8), "accepted")
    own = np.zeros((64, 64), np.uint8)
    own[balls[2]] = 1
    project.save_labels("t2", own, "edited")
    window = make_window(project)
    window.click_row(1)
    window.until_shown("t1")
    menu = window.find("propose_button").menu()
    menu.aboutToShow.emit()
    offered = [action.text() for action in menu.actions()]
    assert not any(text.startswith("Carry on") for text in offered), "nothing to carry"
    window.click_row(0)
    window.until_shown("t0")
    choose(window, "Carry on to the images that follow")
    window.wait()
    window.bot.waitUntil(
        lambda: statuses(window) == ["accepted", "proposed", "edited", "proposed"],
        timeout=5000,
    )
    assert "2 images got labels" in window.said
    window.click_row(3)
    window.until_shown("t3")
    assert iou(window.labels.data == 1, balls[3].astype(np.uint8)) > 0.9
    np.testing.assert_array_equal(window.written().load_labels("t2"), own)


def test_new_tokens_are_used_where_they_are_chosen(
    make_window: Any, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    accept(project, 2)
    window = make_window(project)
    session = window.session
    window.click("improve_button")
    window.wait()
    (dialog,) = window.viewer.window._qt_window.findChildren(ImprovedTokens)
    table = dialog.table
    before, after = (float(table.item(0, column).text()) for column in (1, 2))
    assert 0.3 < before < 1, "the word alone finds a cat"
    assert 0.3 < after < 1
    assert table.item(0, 3).text() == "2 left out"
    ticked = table.item(0, 4).checkState() == Qt.CheckState.Checked
    (result,) = dialog._results
    assert ticked == result.better
    assert session.view(CAT).token is None, "changed before it was asked for"
    table.item(0, 4).setCheckState(Qt.CheckState.Checked)
    dialog.accept()
    window.wait()
    entry = session.classes[CAT]
    assert entry.source == "token"
    assert session.view(CAT).scores == (result.before, result.after)
    saved = window.written()
    learned = saved.load_token(CAT).info["learned_from"]
    assert learned == [scene.name for scene in cats()[:2]]
    assert TokenLibrary().entries() == [], "there was no token to keep"
    session.sources.give({CAT: Token("cat", "", result.token.embedding + 1)})
    window.wait()
    window.written()
    (kept,) = TokenLibrary().entries()  # the one that was replaced
    assert kept.images == 2


def test_nothing_changes_where_the_table_is_left(
    make_window: Any, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    accept(project, 1)
    window = make_window(project)
    window.click("improve_button")
    window.wait()
    (dialog,) = window.viewer.window._qt_window.findChildren(ImprovedTokens)
    assert dialog.table.item(0, 3).text() == "itself"
    assert "accept more" in window.said
    cancel = dialog.buttons.button(QDialogButtonBox.StandardButton.Cancel)
    window.bot.mouseClick(cancel, Qt.MouseButton.LeftButton)
    assert window.session.view(CAT).token is None
    assert Project.open(project.path).classes[CAT].token is None


def test_mistakes_are_said(make_window: Any, project: Project, tmp_path: Path) -> None:
    window = make_window(None)
    window.click("improve_button")
    assert "There is no class yet" in window.said
    window.session.proposing.propose([])
    assert "There is no image" in window.said
    window.open(project.path)
    window.click("improve_button")
    assert "No image is accepted yet" in window.said
    window.session.class_changes.look_for([CAT], on=False)
    choose(window, "This image")
    assert "No class is looked for" in window.said
    assert not window.session.busy
