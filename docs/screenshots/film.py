"""Films of the real window: frames of a story, with the pointer drawn into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

if TYPE_CHECKING:
    from pathlib import Path

    from window import Window

MOST = 3_000_000  # bytes of a film
RATE = 12  # frames a second while the pointer moves
ARROW = [(0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12)]
LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton


class Film:
    """Takes pictures of a window while a story goes on in it.

        film = Film(shown)
        film.click(film.on_picture(98, 92))   # moves there, and clicks
        film.press("labels_button")           # the same with a button
        film.key(Qt.Key.Key_Return)
        film.hold(1.0)                        # shows what is there for a second
        film.save(out / "film.webp")

    What the story waits for between two frames takes no time in the film.

    Parameters
    ----------
    shown
        The window; it is looked at from its upper left corner.
    size
        Width and height of the window's part that is filmed.
    scale
        The size of the film, as a share of that.
    """

    def __init__(
        self, shown: Window, size: tuple[int, int] = (1400, 900), scale: float = 0.6
    ) -> None:
        self.shown, self._size, self._scale = shown, size, scale
        self._pointer = size[0] * 0.5, size[1] * 0.6
        self._frames: list[Image.Image] = []
        self._milliseconds: list[int] = []

    # -- what is done ------------------------------------------------------------------

    def on_picture(self, row: float, column: float) -> QPoint:
        """Return where a pixel of the picture is on napari's canvas."""
        size, camera = self._canvas.size(), self.shown.viewer.scene.camera
        _, y, x = camera.center
        across = round(size.width() / 2 + (column - x) * camera.zoom)
        return QPoint(across, round(size.height() / 2 + (row - y) * camera.zoom))

    def click(self, at: QPoint, button: Any = LEFT, widget: Any = None) -> None:
        """Move the pointer to a place of the canvas, or of a widget, and click."""
        widget = widget or self._canvas
        self.move(at, widget)
        QTest.mouseMove(widget, at)
        QTest.mouseClick(widget, button, pos=at)
        self.shown.wait(0.1)
        self._settle()
        self.hold(0.1)

    def drag(self, places: list[QPoint], seconds: float = 1.0) -> None:
        """Drag the mouse over the canvas, such as a brush."""
        self.move(places[0])
        QTest.mousePress(self._canvas, LEFT, pos=places[0])
        for at in places[1:]:
            QTest.mouseMove(self._canvas, at)
            self._pointer = self._in_window(at, self._canvas)
            self.hold(seconds / len(places))
        QTest.mouseRelease(self._canvas, LEFT, pos=places[-1])
        self.shown.wait(0.1)

    def press(self, name: str) -> None:
        """Move the pointer to a button, press it and wait for what it starts."""
        widget = self.shown.find(name)
        self.shown.find("sections").ensureWidgetVisible(widget)
        self.shown.pump(0.2)
        at = widget.rect().center()
        self.move(at, widget)
        self.shown.press(name)
        self.hold(0.1)

    def key(self, key: Any) -> None:
        """Press a key on the canvas."""
        QTest.keyClick(self._canvas, key)
        self.shown.wait(0.1)
        self._settle()
        self.hold(0.1)

    # -- what is seen ------------------------------------------------------------------

    def move(self, at: QPoint, widget: Any = None, seconds: float = 0.5) -> None:
        """Move the pointer to a place of the canvas, or of a widget."""
        start, end = self._pointer, self._in_window(at, widget or self._canvas)
        count = max(1, round(seconds * RATE))
        picture = self._look()
        for share in np.linspace(0, 1, count + 1)[1:]:
            eased = share * share * (3 - 2 * share)
            self._pointer = tuple(a + (b - a) * eased for a, b in zip(start, end))  # noqa: B905
            self._add(picture, seconds / count)

    def hold(self, seconds: float) -> None:
        """Show what is there now for some time."""
        self.shown.pump(0.05)
        self._add(self._look(), seconds)

    def save(self, path: Path, most: int = MOST) -> None:
        """Write the film as WebP, as good as so many bytes allow.

        Raises
        ------
        ValueError
            If it is too large in any quality.
        """
        for quality in (85, 70, 50, 30):
            self._frames[0].save(
                path,
                save_all=True,
                append_images=self._frames[1:],
                duration=self._milliseconds,
                loop=0,
                quality=quality,
                method=4,
            )
            if path.stat().st_size <= most:
                break
        else:
            raise ValueError(f"{path} has more than {most} bytes: film less")
        seconds, size = sum(self._milliseconds) / 1000, path.stat().st_size
        print(f"{path.name}: {seconds:.1f} s, {size / 1e6:.2f} MB", flush=True)

    # -- inside ------------------------------------------------------------------------

    @property
    def _canvas(self) -> Any:
        return self.shown.viewer.window._qt_viewer.canvas.native

    def _settle(self) -> None:
        while self.shown.session.clicks.busy:
            self.shown.pump(0.05)
        self.shown.pump(0.3)

    def _in_window(self, at: QPoint, widget: Any) -> tuple[float, float]:
        place = widget.mapToGlobal(at)
        return float(place.x()), float(place.y())

    def _look(self) -> Image.Image:
        grabbed = self.shown.window.screen().grabWindow(0).toImage()
        grabbed = grabbed.convertToFormat(grabbed.Format.Format_RGB888)
        bits = grabbed.constBits()
        bits.setsize(grabbed.sizeInBytes())
        rows = np.frombuffer(bits, np.uint8).reshape(grabbed.height(), -1)
        pixels = rows[:, : 3 * grabbed.width()].reshape(grabbed.height(), -1, 3)
        width, height = self._size
        return Image.fromarray(pixels[:height, :width].copy())

    def _add(self, picture: Image.Image, seconds: float) -> None:
        frame = picture.copy()
        x, y = self._pointer
        arrow = [(x + 1.3 * i, y + 1.3 * j) for i, j in ARROW]
        ImageDraw.Draw(frame).polygon(arrow, fill="white", outline="black", width=2)
        size = tuple(round(side * self._scale) for side in frame.size)
        self._frames.append(frame.resize(size, Image.Resampling.LANCZOS))
        self._milliseconds.append(round(1000 * seconds))
