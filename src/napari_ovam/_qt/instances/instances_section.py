"""Objects of the classes that are things: shown, cut, split and merged."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from napari_ovam._qt.widgets.section import Section, button, check_box, listen
from napari_ovam._qt.widgets.text import ElidedLabel

from .instancing import TOOLS, InstanceEdits, Tool

if TYPE_CHECKING:
    from napari_ovam._qt.session.session import Session

_BUTTONS: dict[Tool, str] = {"cut": "Cut", "split": "Split", "merge": "Merge"}


class InstancesSection(Section):
    """The instances of the image that is shown, and the tools for them."""

    title: ClassVar[str] = "Instances"
    session: Session

    def build(self) -> None:
        """Make the widgets."""
        edits = self.session.feature(InstanceEdits)
        self.shown = check_box(
            "Show instances",
            "show_instances",
            "A layer in which each connected part of a class that is marked as objects "
            "has an id of its own",
            edits.show,
        )
        self.count = ElidedLabel("instances_text")
        self.row(self.shown, self.count, stretch=1)
        self._tools = {}
        for tool, text in _BUTTONS.items():
            made = button(text, f"{tool}_button", partial(self._use, tool), TOOLS[tool])
            made.setCheckable(True)
            self._tools[tool] = made
        self.undo = button(
            "Undo", "undo_instances_button", edits.undo, "Take the last one back"
        )
        self.row(*self._tools.values(), self.undo, stretch=None)
        listen(self, edits.changed, self._show)
        listen(self, self.session.classes_changed, self._show)
        self._show()

    def _use(self, tool: Tool) -> None:
        edits = self.session.feature(InstanceEdits)
        edits.set_tool("" if edits.tool == tool else tool)
        self._show()

    def _show(self) -> None:
        edits, classes = self.session.feature(InstanceEdits), self.session.classes
        self.shown.setChecked(edits.shown)
        for tool, made in self._tools.items():
            made.setChecked(edits.tool == tool)
            made.setEnabled(edits.shown)
        self.undo.setEnabled(edits.shown and edits.can_undo())
        counts = {n: c for n, c in edits.counts().items() if n in classes}
        parts = [f"{classes[n].name}: {count}" for n, count in sorted(counts.items())]
        text = ", ".join(parts) or "No objects in this image"
        self.count.setText(text if edits.shown else "Not shown; kept with the project")
