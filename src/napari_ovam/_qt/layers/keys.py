"""Keys for the usual actions, bound on the annotator's own layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from app_model.types import KeyBinding
from napari.layers import Labels

from napari_ovam._qt.session.settings import preferred_keys
from napari_ovam._qt.session.state import UNSURE
from napari_ovam.datasets.project_class import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer

    from napari_ovam._qt.session.session import Session


_OF_CLASS = "_napari_ovam_class"  # marks what the key of a class is bound to


@dataclass(frozen=True)
class Action:
    """What a key does; `key` is the one that it has until a person chooses another."""

    name: str
    text: str
    key: str
    labels_only: bool = False


ACTIONS = (
    Action("next", "next image", "N"),
    Action("previous", "previous image", "Shift-N"),
    Action("next_open", "next image not yet reviewed", "J"),
    Action("accept", "accept the labels, next image", "A"),
    Action("reject", "reject the image, next image", "R"),
    Action("next_class", "paint the next class", "C", labels_only=True),
    Action("previous_class", "paint the previous class", "Shift-C", labels_only=True),
    Action("unsure", "paint “unsure”", "U", labels_only=True),
    Action("clicks", "click objects, or stop", "S", labels_only=True),
    Action("toggle_maps", "show or hide the maps", "H"),
    Action("uncertain", "next uncertain place", "D"),
    Action("generate", "generate", "Shift-G"),
    Action("map", "map", "Shift-M"),
    Action("labels", "labels from maps", "Shift-L"),
    Action("optimize", "optimize the token", "Shift-T"),
)


def keys() -> dict[str, str]:
    """Return the key of each action, as chosen in Preferences.

    Where that is no key, or an earlier action has it, it is the action's own; empty
    where that is taken as well.
    """
    chosen, found = preferred_keys(), dict[str, str]()
    for action in ACTIONS:
        wanted = (_plain(chosen.get(action.name, "")), _plain(action.key))
        free = (key for key in wanted if key and key not in found.values())
        found[action.name] = next(free, "")
    return found


def described(separator: str = ", ") -> str:
    """Return all keys with what they do."""
    chosen = keys()
    return separator.join(
        f"{chosen[a.name]} {a.text}" for a in ACTIONS if chosen[a.name]
    )


def _plain(text: str) -> str:
    """Return a key as napari writes it; empty where it is none."""
    text = text.strip()
    if not text:
        return ""
    try:
        binding = KeyBinding.from_str(text.replace("-", "+") if len(text) > 1 else text)
    except (ValueError, KeyError):
        return ""
    return "" if binding.part0.is_modifier_key() else str(binding).replace("+", "-")


def add_actions(session: Session) -> None:
    """Let keys and buttons choose what is painted."""
    session.actions |= {
        "next_class": partial(_step_class, session, 1),
        "previous_class": partial(_step_class, session, -1),
        "unsure": partial(_paint, session, UNSURE),
    }


def bind_keys(session: Session, layer: Layer | None) -> None:
    """Bind the keys on a layer of a sample."""
    if layer is None:
        return
    chosen = keys()
    for action in ACTIONS:
        if action.labels_only and not isinstance(layer, Labels):
            continue
        if not chosen[action.name]:
            continue
        call = partial(session.do, action.name)
        layer.bind_key(chosen[action.name], _ignoring_layer(call), overwrite=True)
    if isinstance(layer, Labels):
        _bind_class_keys(session, layer)


def _bind_class_keys(session: Session, layer: Labels) -> None:
    """Bind the keys of classes; others stay napari's."""
    mine = {entry.key: entry.id for entry in session.classes if entry.key}
    for key in KEYS:
        binding = KeyBinding.from_str(key)
        bound = layer.keymap.get(binding)
        if key in mine:
            call = partial(_paint, session, mine[key])
            layer.bind_key(key, _choosing_class(call), overwrite=True)
        elif hasattr(bound, _OF_CLASS):
            layer.keymap.pop(binding)


def _choosing_class(call: Callable[[], Any]) -> Callable[[Any], None]:
    pressed = _ignoring_layer(call)
    setattr(pressed, _OF_CLASS, True)
    return pressed


def _ignoring_layer(call: Callable[[], Any]) -> Callable[[Any], None]:
    def pressed(_: Any) -> None:
        call()

    return pressed


def _labels(session: Session) -> Labels | None:
    sample = session.current
    return session.layers.labels(sample.key) if sample else None


def _paint(session: Session, number: int) -> None:
    layer = _labels(session)
    if layer is not None:
        layer.selected_label = number


def _step_class(session: Session, by: int) -> None:
    layer, ids = _labels(session), [entry.id for entry in session.classes]
    if layer is None or not ids:
        return
    if by < 0:
        ids.reverse()
    now = layer.selected_label
    layer.selected_label = next((i for i in ids if (i - now) * by > 0), ids[0])
