"""Small pictures of samples, made in a thread when a row comes into view."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QImage, QPixmap

from napari_ovam._qt.session.background import Loader

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIZE = 40  # pixels
_KEPT = 2000  # of 6 kB each


class Thumbnails(QObject):
    """Makes small pictures and keeps them.

    Parameters
    ----------
    read
        Returns the image of a key, (H, W, 3) RGB; called in the thread.
    size
        Width and height that a picture fits into.

    Attributes
    ----------
    made
        Emitted with the key of a picture that can be had now.
    """

    made = Signal(str)

    def __init__(
        self,
        read: Callable[[str], NDArray[np.uint8]],
        size: tuple[int, int] = (SIZE, SIZE),
    ) -> None:
        super().__init__()
        self._size = size
        self._read = read
        self._made: dict[str, QPixmap | None] = {}
        self._loader = Loader()
        self._loader.loaded.connect(self._take)

    def get(self, key: str) -> QPixmap | None:
        """Return the picture of a sample; None, and make it, where there is none yet.

        A broken image has none.
        """
        if key not in self._made:
            self._loader.load(key, partial(_small, self._read, key, self._size))
        return self._made.get(key)

    def clear(self) -> None:
        """Forget all pictures."""
        self._loader.clear()
        self._made.clear()

    def close(self) -> None:
        """End the thread."""
        self._loader.close()

    def _take(self, key: str, found: object) -> None:
        if len(self._made) >= _KEPT:
            self._made.pop(next(iter(self._made)))
        picture = None
        if isinstance(found, np.ndarray):
            height, width = found.shape[:2]
            data = QImage(
                found.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888
            )
            picture = QPixmap.fromImage(data)  # copies: the bytes may go
        self._made[key] = picture
        self.made.emit(key)


@cache
def blank(width: int = SIZE, height: int = SIZE) -> QPixmap:
    """Return what is shown where there is no picture yet."""
    picture = QPixmap(width, height)
    picture.fill(QColor(0, 0, 0, 40))
    return picture


def _small(
    read: Callable[[str], NDArray[np.uint8]], key: str, size: tuple[int, int]
) -> NDArray[np.uint8]:
    picture = Image.fromarray(read(key))
    picture.thumbnail(size)
    return np.ascontiguousarray(picture)
