"""Buttons for docks that have little room."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QMenu, QPushButton

from .section import button

if TYPE_CHECKING:
    from collections.abc import Callable


def compact(text: str, name: str, clicked: Callable[[], Any]) -> QPushButton:
    """Return a push button with little room around its text."""
    made = button(text, name, clicked)
    made.setStyleSheet("padding: 3px 6px;")
    return made


def menu_button(text: str, name: str, fill: Callable[[QMenu], None]) -> QPushButton:
    """Return a button with a menu, which `fill` fills each time that it opens."""
    made = QPushButton(text)
    made.setObjectName(name)
    made.setStyleSheet("padding: 3px 18px 3px 6px;")
    menu = QMenu(made)
    menu.aboutToShow.connect(partial(fill, menu))
    made.setMenu(menu)
    return made
