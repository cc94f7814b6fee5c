"""The film on top of the README: prompt, labels, maps, the brush, the next image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from film import Film
from qtpy.QtTest import QTest
from window import Window

if TYPE_CHECKING:
    from pathlib import Path


def film_tour(out: Path, _home: Path) -> None:
    """Go through the whole job as a person would, in a new window."""
    shown = Window(out)
    film, session = Film(shown), shown.session
    film.hold(1.0)
    film.press("generate_button")  # maps and labels come with it
    film.hold(1.2)
    for number in (1, 2):
        session.show_map(number, True)
        shown.wait(0.5)
        film.hold(1.0)
    for number in (1, 2):
        session.show_map(number, False)
    shown.wait(0.5)
    film.hold(0.5)

    layer = session.layers.labels(session.current.key)
    layer.mode, layer.brush_size = "paint", 12
    ear = [film.on_picture(78 + 4 * i, 143 + 2 * i) for i in range(5)]
    film.drag(ear, 1.0)
    film.hold(1.0)

    prompt = shown.find("prompt")
    film.move(prompt.rect().center(), prompt)
    prompt.clear()
    for text in ("a cat", " in the ", "snow"):
        QTest.keyClicks(prompt, text)
        film.hold(0.25)
    film.press("generate_button")
    film.hold(2.0)
    assert set(np.unique(session.layers.labels(session.current.key).data)) == {0, 1}
    film.save(out / "tour.webp")
    shown.session.close()
    shown.viewer.close()
