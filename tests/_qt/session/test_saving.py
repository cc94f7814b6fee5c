"""Work is on the disk within three seconds, and comes back at the next start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ovam.base.user_folders import scratch_folder
from napari_ovam.project import Project
from napari_ovam.project.scratch import unfinished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(folder))
    return folder


@pytest.fixture
def start_again(panel: Any, make_napari_viewer: Callable[..., Any]) -> Any:
    """Return what opens a second window with the annotator."""

    def start() -> Any:
        from napari_ovam._qt.annotator import AnnotatorWidget

        viewer = make_napari_viewer(show=True)
        widget = AnnotatorWidget(viewer)
        viewer.window.add_dock_widget(widget, name="OVAM annotator", area="right")
        again = type(panel)(widget, viewer, panel.bot)
        again.find("model").setCurrentText(panel.find("model").currentText())
        sessions.append(widget.session)
        return again

    sessions: list[Any] = []
    yield start
    for session in sessions:
        session.close()


def saved(panel: Any) -> Project:
    """Wait for at most three seconds; return what a kill would leave now."""
    autosave = panel.session.saving.autosave
    until = time.monotonic() + 3
    while autosave.pending and time.monotonic() < until:
        panel.bot.wait(20)
    assert autosave.pending == 0
    return Project.open(autosave.project.path)


def test_nothing_is_written_before_there_is_work(panel: Any, scratch: Path) -> None:
    panel.bot.wait(100)
    assert not scratch.exists()
    assert not panel.find("recovery").isVisible()


def test_a_stroke_is_on_the_disk_and_comes_back_after_a_kill(
    panel: Any,
    start_again: Any,
    scratch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("generate", "map", "labels"):
        panel.press(f"{name}_button")
    cat = panel.number("cat")
    panel.session.class_changes.change(cat, name="Cat", color=(1, 2, 3))
    painted = panel.other
    stroke = panel.paint(painted)

    project = saved(panel)
    (sample,) = project.samples
    assert sample.status == "edited"
    found = project.load_labels(sample.name)
    np.testing.assert_array_equal(found, panel.labels().data)
    image = panel.layer("image").data
    np.testing.assert_array_equal(project.load_image(sample.name), image)
    settings = project.settings(sample.name)
    assert settings is not None
    assert settings["prompt"] == "a cat and a hat on the grass"
    assert unfinished() == []  # this window has it open

    # What is left of a killed program: the files, and nobody who holds them.
    left = tmp_path / "left"
    shutil.copytree(scratch, left)
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(left))
    (path,) = unfinished()
    again = start_again()
    panel.bot.waitUntil(lambda: again.find("recovery").isVisible(), timeout=5000)
    assert "1 image" in again.find("recovery_text").text()
    again.press("recover_button")
    panel.bot.waitUntil(lambda: again.session.current is not None, timeout=10_000)

    np.testing.assert_array_equal(again.labels().data, found)
    np.testing.assert_array_equal(again.layer("image").data, image)
    entry = again.session.classes[cat]
    assert (entry.name, entry.color, entry.phrase) == ("Cat", (1, 2, 3), "cat")
    assert not again.find("recovery").isVisible()
    # The trace is there as well, and the stroke still wins over a new proposal.
    again.press("map_button")
    again.press("labels_button")
    assert (again.labels().data[stroke] == painted).all()
    saved(again)
    assert again.session.project.path == path  # it is gone on with where it is


PAINTER = """
import time
import napari
import numpy as np
from qtpy.QtCore import QTimer
from napari_ovam._qt.annotator import start_session
from napari_ovam._qt.session.edits import Edits

session = start_session(napari.Viewer())
session.classes.add("cat")
edits = Edits(np.zeros((100, 100), np.uint16))
image = np.zeros((100, 100, 3), np.uint8)
sample = session.projects.add(image, "a cat", choice=session.choice, edits=edits)
layer = session.layers.find(sample.key, "labels")
layer.brush_size = 1
strokes = iter(range(10_000))

def paint():
    stroke = next(strokes)
    layer.paint(divmod(stroke, 100), 1)
    print(stroke, time.time(), flush=True)

timer = QTimer()
timer.timeout.connect(paint)
timer.start(20)
napari.run()
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of POSIX")
def test_strokes_older_than_three_seconds_outlast_a_kill(
    panel: Any, start_again: Any
) -> None:
    painter = subprocess.Popen([sys.executable, "-c", PAINTER], stdout=subprocess.PIPE)
    assert painter.stdout is not None
    assert painter.stdout.readline(), "the painter did not start"
    time.sleep(4.5)
    killed = time.time()
    painter.send_signal(signal.SIGKILL)
    lines = [line.split() for line in painter.stdout.read().decode().splitlines()]
    painter.wait()
    times = [(int(line[0]), float(line[1])) for line in lines if len(line) == 2]
    old = max(stroke for stroke, at in times if at < killed - 3)

    again = start_again()
    panel.bot.waitUntil(lambda: again.find("recovery").isVisible(), timeout=5000)
    again.press("recover_button")
    panel.bot.waitUntil(lambda: again.session.current is not None, timeout=10_000)
    found = again.labels().data
    painted = again.session.current.edits.painted
    assert (found.ravel()[: old + 1] == 1).all()
    np.testing.assert_array_equal(painted, found == 1)
    assert [entry.name for entry in again.session.classes] == ["cat"]


def test_recovered_labels_stay_until_maps_are_made(
    panel: Any, start_again: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.find("phrases").setText("hat")
    for name in ("generate", "map", "labels"):
        panel.press(f"{name}_button")
    hat = panel.number("hat")
    panel.find(f"threshold_{hat}").setValue(37)
    panel.wait()
    data = panel.labels().data.copy()
    assert (data == hat).any()
    saved(panel)

    left = tmp_path / "left"
    shutil.copytree(scratch_folder(), left)
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(left))
    again = start_again()
    panel.bot.waitUntil(lambda: again.find("recovery").isVisible(), timeout=5000)
    again.press("recover_button")
    panel.bot.waitUntil(lambda: again.session.current is not None, timeout=10_000)
    assert again.find("phrases").text() == "hat"
    slider = again.find(f"threshold_{hat}")
    assert slider.value() == 37
    slider.setValue(90)
    again.wait()
    np.testing.assert_array_equal(again.labels().data, data)
    saved(again)


def test_unsaved_work_takes_the_place_of_what_is_in_the_window(
    panel: Any, start_again: Any, scratch: Path
) -> None:
    """Both are projects: the one that is put away is offered in turn."""
    path = scratch / "2026-01-02-030405-abcdef"
    project = Project.create(path)
    project.classes.add("owl")
    project.add_sample(np.zeros((8, 8, 3), np.uint8), name="a")
    ids = np.repeat(np.arange(4), 16).reshape(8, 8) == 1
    project.save_labels("a", ids.astype(np.uint8), painted=ids)

    again = start_again()
    panel.bot.waitUntil(lambda: again.find("recovery").isVisible(), timeout=5000)
    again.press("generate_button")
    again.find("phrases").setText("cat, hat")
    again.press("map_button")
    again.press("recover_button")
    panel.bot.waitUntil(lambda: again.session.current is not None, timeout=10_000)
    assert [e.name for e in again.session.classes] == ["owl"]
    assert again.find("phrases").text() == "owl"
    np.testing.assert_array_equal(again.labels().data == 1, ids)
    panel.bot.waitUntil(lambda: again.find("recovery").isVisible(), timeout=5000)
    again.press("recover_button")
    panel.bot.waitUntil(lambda: again.session.current is not None, timeout=10_000)
    assert [e.name for e in again.session.classes] == ["cat", "hat"]


def test_unsaved_work_can_be_left_alone(
    panel: Any, start_again: Any, scratch: Path
) -> None:
    path = scratch / "2026-01-02-030405-abcdef"
    project = Project.create(path)
    project.add_sample(np.zeros((8, 8, 3), np.uint8), name="a")
    again = start_again()
    panel.bot.waitUntil(lambda: again.find("recovery").isVisible(), timeout=5000)
    assert "2026-01-02 03:04" in again.find("recovery_text").text()
    again.click("forget_button")
    assert not again.find("recovery").isVisible()
    assert unfinished() == []
    assert (path / "images" / "a.png").is_file()


def test_closing_writes_what_is_left(panel: Any) -> None:
    panel.press("generate_button")
    panel.press("map_button")
    panel.press("labels_button")
    panel.paint(panel.other)
    data = panel.labels().data.copy()
    panel.session.close()
    (path,) = (each for each in scratch_folder().iterdir() if each.is_dir())
    project = Project.open(path)
    np.testing.assert_array_equal(project.load_labels(project.samples[0].name), data)
    assert unfinished() == [path]


def test_a_full_disk_is_said_and_tried_again(
    panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("napari_ovam.base.atomic.os.fsync", no_space)
        panel.press("generate_button")
        panel.bot.waitUntil(lambda: "No space left" in panel.status, timeout=20_000)
        assert "autosaved" in panel.status
    assert panel.session.saving.autosave.flush()
    assert len(saved(panel).samples) == 1
