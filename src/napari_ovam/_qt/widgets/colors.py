"""Colours of text that can be read in every theme, as WCAG 2.2 (1.4.3) asks."""

from __future__ import annotations

from colorsys import hls_to_rgb, rgb_to_hls
from typing import TYPE_CHECKING

from napari.utils.theme import get_theme

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ovam._qt.session.jobs import Kind

RGB = tuple[int, int, int]
ENOUGH = 4.5  # : 1


def luminance(color: Sequence[int]) -> float:
    """Return the relative luminance of an sRGB colour (0 to 255), as in WCAG."""
    parts = [c / 255 for c in color]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """Return how far two sRGB colours stand out from one another, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_on(background: Sequence[int]) -> str:
    """Return black or white, whichever is read better on a colour."""
    on_black = contrast(background, (0, 0, 0))
    return "black" if on_black >= contrast(background, (255, 255, 255)) else "white"


def readable(color: Sequence[int], background: Sequence[int]) -> RGB:
    """Return a colour of the same hue that stands out enough from a background."""
    hue, light, saturation = rgb_to_hls(*(c / 255 for c in color))
    end = text_on(background) == "white"
    for step in range(101):
        parts = hls_to_rgb(hue, light + (end - light) * step / 100, saturation)
        red, green, blue = (round(255 * part) for part in parts)
        if contrast((red, green, blue), background) >= ENOUGH:
            break
    return red, green, blue


def message_colors(theme: str, kind: Kind) -> tuple[RGB, RGB]:
    """Return the colours of a message and of what is behind it, in a theme."""
    chosen = get_theme(theme)
    wanted = {"info": chosen.text, "warning": chosen.warning, "error": chosen.error}
    background: RGB = chosen.background.as_rgb_tuple()[:3]
    return readable(wanted[kind].as_rgb_tuple()[:3], background), background


def muted(theme: str) -> RGB:
    """Return the colour of what cannot be used, in a theme of napari."""
    background = message_colors(theme, "info")[1]
    return readable((138, 143, 153), background)


def hexed(color: Sequence[int]) -> str:
    """Return a colour as style sheets write it."""
    return "#{:02x}{:02x}{:02x}".format(*color)
