"""A process of its own, with a home without files and settings, and with a display."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time


def with_display(command: list[str]) -> list[str]:
    """Return a command as it runs in an Xvfb, where there is no display."""
    if os.environ.get("DISPLAY"):
        return command
    if shutil.which("xvfb-run") is None:
        raise SystemExit("there is no display: install xvfb, or set DISPLAY")
    return ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24", *command]


def run_alone(
    command: list[str], seconds: float
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a command in a home of its own, on one thread unless told otherwise.

    Returns the process, and the time at which it had ended.
    """
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "HOME": home,
            "NAPARI_CONFIG": f"{home}/napari.yaml",
            "NAPARI_OVAM_SCRATCH": f"{home}/scratch",
        }
        environment.setdefault("OMP_NUM_THREADS", "1")
        done = subprocess.run(  # noqa: S603 (our own)
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        return done, time.time()
