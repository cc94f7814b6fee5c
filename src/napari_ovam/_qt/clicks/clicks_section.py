"""The tool that finds what is clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from napari_ovam._qt.widgets.section import Section, button, listen
from napari_ovam._qt.widgets.text import ElidedLabel

from .clicking import HELP, Clicking

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session


class ClicksSection(Section):
    """Switches the tool, and accepts or drops what it found."""

    title: ClassVar[str] = "Clicks"
    session: Session

    def build(self) -> None:
        """Make the widgets."""
        tool = self.session.feature(Clicking)
        self._tool = tool
        self.use = button(
            "Click objects",
            "click_button",
            lambda: tool.set_on(not tool.on),
            f"{HELP} Drag to scribble, with Shift for a box; Backspace takes the last "
            "one back. What is clicked becomes the class that the brush would paint",
        )
        self.use.setCheckable(True)
        self.text = ElidedLabel("clicks_text")
        self.row(self.use, self.text, stretch=1)
        self.accept = button(
            "Accept", "accept_clicks_button", tool.accept, "Paint it (Enter)"
        )
        self.drop = button(
            "Drop", "drop_clicks_button", tool.drop, "Forget these clicks (Esc)"
        )
        self.look = button(
            "Look at it",
            "look_button",
            tool.look,
            "Have the model look at the picture, so that clicks know objects",
        )
        self.row(self.accept, self.drop, self.look, stretch=None)
        for signal in (
            tool.changed,
            self.session.current_changed,
            self.session.job_changed,
        ):
            listen(self, signal, self._show)
        self._show()

    def _show(self) -> None:
        tool = self._tool
        self.use.setChecked(tool.on)
        for made in (self.accept, self.drop):
            made.setEnabled(tool.pending)
        self.look.setEnabled(tool.needs_trace and not self.session.busy)
        count = len(tool.clicks)
        text = f"{count} click{'s' * (count != 1)}" if tool.pending else "no clicks yet"
        self.text.setText(text if tool.on else "")
