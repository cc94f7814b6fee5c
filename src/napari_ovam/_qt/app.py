"""The annotator as a program of its own: `napari-ovam` without a command.

Nothing of Qt is imported before it is known to work: without a display Qt ends the
process itself, with no word that a user could act on.
"""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from importlib.util import find_spec

_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
_PROBE = "from qtpy.QtWidgets import QApplication; QApplication([])"
# Imported before the window shows: together they take seconds, and would freeze it.
_HEAVY = (
    "diffusers.guiders",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "napari_ovam.diffusion.generation",
    "napari_ovam.segmentation.labels",
    "napari_ovam.segmentation.probabilities",
    "napari_ovam.diffusion.pipelines",
    "napari_ovam.attention.optimize",
    "napari_ovam.attention.token_files",
    "napari_ovam.attention.trace_files",
)


def launch() -> int:
    """Open napari with the annotator docked, and return when its window has closed.

    Returns
    -------
    int
        The exit code: 0, or 1 with a line on stderr where no window can open.
    """
    problem = _problem()
    if problem:
        sys.stderr.write(f"napari-ovam: {problem}\n")
        return 1
    from napari_ovam.diffusion.libraries import quiet

    with quiet():
        for module in _HEAVY:
            importlib.import_module(module)
    import napari

    _make_first_layers()
    viewer = napari.Viewer(title="OVAM annotator")
    viewer.window.add_plugin_dock_widget("napari-ovam", "OVAM annotator")
    # napari collects garbage whenever a layer is removed, in the GUI thread: what is
    # there now is none, and looking through it takes half a second.
    gc.collect()
    gc.freeze()
    napari.run()
    return 0


def _make_first_layers() -> None:
    """Have napari import what it imports with its first layers, such as pandas."""
    import numpy as np
    from napari.layers import Image, Labels

    Image(np.zeros((2, 2)))
    Labels(np.zeros((2, 2), np.uint16), features={"index": [0], "name": [""]})


def _problem() -> str:
    """Say why no window can open, or nothing where one can."""
    if not any(find_spec(name) for name in _BINDINGS):
        return "there is no Qt binding: pip install 'napari-ovam[all]'"
    if sys.platform != "linux":
        return ""
    if not any(map(os.environ.get, (*_DISPLAYS, "QT_QPA_PLATFORM"))):
        return (
            "there is no display (DISPLAY and WAYLAND_DISPLAY are not set): start it "
            "in a desktop session, with ssh -X, or with xvfb-run; 'napari-ovam demo' "
            "needs none"
        )
    # Qt aborts on a display that does not answer, or where a library of it is missing.
    command = [sys.executable, "-c", _PROBE]
    probe = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own)
    if probe.returncode == 0:
        return ""
    said = [line for line in probe.stderr.splitlines() if line.strip()]
    return f"no window can be opened here: {said[0] if said else probe.returncode}"
