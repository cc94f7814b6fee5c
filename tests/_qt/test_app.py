"""`napari-ovam` as it is started: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("qtpy")

START = "from napari_ovam.cli import main; main()"


def started(code: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run code as a person's shell would, with some variables set or taken away."""
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in env.items() if value is not None},
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, (done.returncode, done.stderr)
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.skipif(sys.platform != "linux", reason="others always have a display")
def test_no_display_is_said_in_one_line():
    none = dict.fromkeys(("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))
    line = one_line(started(START, **none))
    assert "no display" in line
    assert "xvfb-run" in line


@pytest.mark.skipif(sys.platform != "linux", reason="others always have a display")
def test_a_display_that_does_not_answer_is_said_in_one_line():
    line = one_line(started(START, DISPLAY=":4711", WAYLAND_DISPLAY=None))
    assert "no window can be opened" in line
    assert "4711" in line


def test_no_qt_is_said_in_one_line():
    hide = "import sys\nfor name in ('PyQt5', 'PyQt6', 'PySide2', 'PySide6'):\n"
    line = one_line(started(f"{hide}    sys.modules[name] = None\n{START}"))
    assert "pip install 'napari-ovam[all]'" in line


LOOK = """
import json, sys
import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QLineEdit

run = napari.run

def look():
    viewer = napari.current_viewer()
    window = viewer.window._qt_window
    print(json.dumps({
        "visible": window.isVisible(),
        "docks": list(viewer.window.dock_widgets),
        "model": window.findChild(QComboBox, "model").currentText(),
        "prompt": window.findChild(QLineEdit, "prompt").text(),
        "torch": "torch" in sys.modules,
    }))
    viewer.close()

def run_and_look():
    QTimer.singleShot(1500, look)
    run()

napari.run = run_and_look
"""


def test_it_opens_napari_with_the_annotator_ready_and_ends_silently(tmp_path):
    done = started(
        LOOK + START,
        NAPARI_CONFIG=str(tmp_path / "napari.yaml"),
        HOME=str(tmp_path),
        PYTHONWARNINGS="error:::napari_ovam",
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["visible"]
    assert any("OVAM annotator" in name for name in seen["docks"])
    assert seen["model"] == "tiny"
    assert seen["prompt"]
    assert seen["torch"]  # imported before the window showed
    # vispy's word where neither xrandr nor xdpyinfo is installed, as on a bare server
    said = done.stderr.replace("WARNING: could not determine DPI\n", "")
    assert not said
