"""napari on a display of its own, with the panel, as a person would use it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = (1400, 900)
PATIENCE = 600  # seconds that a step may take


@contextmanager
def display() -> Iterator[Path]:
    """Start an X server, and give the program a home without files or settings."""
    with tempfile.TemporaryDirectory() as home:
        ready, told = os.pipe()
        screen = ["-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "-nolisten", "tcp"]
        server = subprocess.Popen(  # noqa: S603
            ["Xvfb", "-displayfd", str(told), *screen],  # noqa: S607
            pass_fds=[told],
            stderr=subprocess.DEVNULL,
        )
        os.close(told)
        with os.fdopen(ready) as file:
            os.environ["DISPLAY"] = f":{file.readline().strip()}"
        os.environ["NAPARI_CONFIG"] = f"{home}/settings.yaml"
        os.environ["NAPARI_OVAM_TOKENS"] = f"{home}/tokens"
        os.environ["HOME"] = home
        os.environ.pop("QT_QPA_PLATFORM", None)
        try:
            yield Path(home)
        finally:
            server.terminate()
            server.wait()


class Window:
    """A napari window with the annotator.

    Parameters
    ----------
    out
        The folder of the pictures.
    project
        A project that is opened; None for a window without one.
    """

    def __init__(self, out: Path, project: Path | None = None) -> None:
        import diffusers.pipelines.stable_diffusion  # noqa: F401 (as the launcher does)
        import napari

        self._out = out
        self.viewer = napari.Viewer(title="OVAM annotator", show=False)
        self.window: Any = self.viewer.window._qt_window
        self.window.setGeometry(0, 0, *SIZE)
        self.window.show()
        self.panel = self.dock("OVAM annotator")
        self.session: Any = self.panel.session
        if project is not None:
            self.session.projects.open(project)
            self.wait()
            while self.session.projects.keys and self.session.current is None:
                self.pump(0.1)  # its first image is read
            self.wait(3)

    def dock(self, name: str) -> Any:
        """Open a dock of the plugin."""
        return self.viewer.window.add_plugin_dock_widget("napari-ovam", name)[1]

    def pump(self, seconds: float) -> None:
        """Let the window live."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def wait(self, seconds: float = 0.5) -> None:
        """Wait until nothing runs any more, and a moment."""
        end = time.monotonic() + PATIENCE
        self.pump(0.3)
        while self.session.busy or self.session.labels.job is not None:
            if time.monotonic() > end:
                raise SystemExit(f"no end after {PATIENCE} s: {self.session.message}")
            self.pump(0.1)
        self.pump(seconds)

    def find(self, name: str) -> Any:
        """Return a widget by its object name."""
        from qtpy.QtWidgets import QWidget

        found = self.window.findChild(QWidget, name)
        assert found is not None, name
        return found

    def press(self, name: str) -> None:
        """Press a button and wait for what it starts."""
        self.find(name).click()
        self.wait()
        print(f"{name}: {self.session.message[0]}", flush=True)
        assert self.session.message[1] != "error", self.session.message

    def photograph(
        self,
        name: str,
        show: Any = None,
        size: tuple[int, int] = SIZE,
        *,
        whole: bool = True,
    ) -> None:
        """Take a picture of the window, its dialogs included.

        `whole`: with all of the image in sight, and not where the view is.
        """
        from PIL import Image

        self.window.resize(*size)
        self.pump(0.6)
        if show is not None:
            self.find("sections").ensureWidgetVisible(show)
        if whole:
            self.viewer.reset_view()
        self.pump(1)
        path = self._out / f"{name}.png"
        self.window.screen().grabWindow(0).save(str(path))
        with Image.open(path) as taken:
            # all its colours: few pixels have those of classes
            taken.convert("RGB").crop((0, 0, *size)).save(path, optimize=True)
        print(path.name, self.session.message, flush=True)
