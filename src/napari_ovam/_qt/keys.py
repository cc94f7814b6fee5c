"""Keys for the usual actions, bound on the annotator's own layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels

from .state import UNSURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer

    from .session import Session

KEYS = {
    "N": "next sample",
    "Shift-N": "previous sample",
    "C": "paint the next class",
    "U": "paint “unsure”",
    "H": "show or hide the maps",
    "Shift-G": "generate",
    "Shift-M": "map",
    "Shift-L": "labels from maps",
    "Shift-T": "optimize the token",
}


def bind_keys(session: Session, layer: Layer) -> None:
    """Bind the keys on a layer of a sample."""

    def bind(key: str, action: Callable[[], Any]) -> None:
        layer.bind_key(key, lambda _: action(), overwrite=True)

    bind("N", lambda: session.step(1))
    bind("Shift-N", lambda: session.step(-1))
    bind("H", lambda: _toggle_maps(session))
    bind("Shift-G", lambda: session.asked.emit("generate"))
    bind("Shift-M", lambda: session.asked.emit("map"))
    bind("Shift-L", session.labels.labels_from_maps)
    bind("Shift-T", lambda: session.asked.emit("optimize"))
    if isinstance(layer, Labels):
        bind("C", lambda: _next_class(session, layer))
        bind("U", lambda: setattr(layer, "selected_label", UNSURE))


def _toggle_maps(session: Session) -> None:
    active = session.classes.active
    shown = not any(entry.shown for entry in active)
    for entry in active:
        session.maps.show_map(entry.id, shown)
    session.classes_changed.emit()


def _next_class(session: Session, layer: Labels) -> None:
    ids = [entry.id for entry in session.classes]
    if ids:
        later = [i for i in ids if i > layer.selected_label]
        layer.selected_label = later[0] if later else ids[0]
