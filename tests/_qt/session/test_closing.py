"""Closing the window while something runs ends the process, and cleanly.

While nothing runs: `test_app.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("qtpy")

if TYPE_CHECKING:
    from pathlib import Path

HANGS = 120  # seconds; the time that it really takes: benchmarks/panel

# Starts the program as `napari-ovam` does, presses the panel's buttons and closes the
# window in the middle of what then runs.
DRIVER = """
import json, os, sys, time, traceback
import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QPushButton, QWidget
from napari_ovam._qt.annotator import AnnotatorWidget

job = sys.argv[1]

def script(window):
    panel = window.findChild(AnnotatorWidget)
    session = panel.session

    def press(name):
        window.findChild(QPushButton, name + "_button").click()

    def idle():
        return not session.busy and session.labels.job is None

    if job == "optimize":
        for name in ("generate", "map", "labels"):
            press(name)
            yield idle
        window.findChild(QWidget, "iterations").setValue(100_000)
    elif job == "load":
        slow_down()
    done = []
    session.progressed.connect(lambda number, total: done.append(number))
    press("optimize" if job == "optimize" else "generate")
    if job == "load":
        yield window._window._task_status_manager.get_status  # the GUI has heard of it
    else:
        yield lambda: max(done, default=0) >= 3
        assert session.busy
    waits_for = window._window._task_status_manager.get_status()
    window.close()
    notices = [w.text() for w in QApplication.topLevelWidgets()
               if w.objectName() == "closing_notice" and w.isVisible()]
    said = {"status": waits_for, "notices": notices, "visible": window.isVisible()}
    print(json.dumps(said), flush=True)

def slow_down():
    import napari_ovam
    load = napari_ovam.load_pipeline
    def slowly(*args, **kwargs):
        time.sleep(3)
        return load(*args, **kwargs)
    napari_ovam.load_pipeline = slowly

def follow(steps, waiting):
    try:
        if waiting():
            waiting = next(steps)
        QTimer.singleShot(20, lambda: follow(steps, waiting))
    except StopIteration:
        pass
    except BaseException:  # napari would show it and go on
        traceback.print_exc()
        os._exit(3)

run = napari.run

def run_script():
    steps = script(napari.current_viewer().window._qt_window)
    QTimer.singleShot(1000, lambda: follow(steps, lambda: True))
    run()

napari.run = run_script
from napari_ovam.cli import main
sys.argv[1:] = []
main()
"""


def closed_during(job: str, home: Path) -> dict[str, Any]:
    """Close the window during a job; return what was said about it."""
    environment = {
        **os.environ,
        "HOME": str(home),
        "NAPARI_CONFIG": str(home / "napari.yaml"),
        "NAPARI_OVAM_SCRATCH": str(home / "scratch"),
        "OMP_NUM_THREADS": "1",
        # warnings about our own code: they end the thread that they come from
        "PYTHONWARNINGS": "error:::napari_ovam",
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, job],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
        env=environment,
    )
    # vispy's word where neither xrandr nor xdpyinfo is installed, as on a bare server
    errors = done.stderr.replace("WARNING: could not determine DPI\n", "")
    assert (done.returncode, errors) == (0, ""), (done.stdout, done.stderr)
    (line,) = done.stdout.splitlines()
    said: dict[str, Any] = json.loads(line)
    assert not said["visible"]
    return said


@pytest.mark.parametrize("job", ["generate", "optimize"])
def test_closing_ends_the_process_and_prints_nothing(job: str, tmp_path: Path) -> None:
    said = closed_during(job, tmp_path)
    assert said["notices"] == []
    assert said["status"] == []


def test_closing_while_a_model_loads_says_what_it_waits_for(tmp_path: Path) -> None:
    said = closed_during("load", tmp_path)
    (status,) = said["status"]  # napari asks with these words before it closes
    assert "Loading the model tiny" in status
    (notice,) = said["notices"]
    assert "Loading the model tiny" in notice
