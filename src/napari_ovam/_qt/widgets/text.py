"""Texts of any length that leave a panel its width."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QFontMetricsF, QTextOption
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QSizePolicy,
    QStyle,
    QStyleOptionButton,
    QStyleOptionComboBox,
    QStylePainter,
    QTextEdit,
)
from superqt import QElidingLabel

from .colors import hexed, message_colors

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtGui import QPaintEvent, QResizeEvent

    from napari_ovam._qt.session.jobs import Kind

_SHOWN = 8  # characters that an eliding text asks room for


class ElidedLabel(QElidingLabel):
    """One line that ends in … where the room does; its tooltip holds all of it.

    Parameters
    ----------
    name
        Object name.
    text
        What it shows.
    tip
        What the tooltip adds.
    """

    def __init__(self, name: str, text: str = "", tip: str = "") -> None:
        super().__init__()
        self.setObjectName(name)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._tip = tip
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show another text."""
        text = text or ""
        super().setText(" ".join(text.split()))
        self.setToolTip("\n".join(filter(None, (text, self._tip))))

    def sizeHint(self) -> QSize:
        """Ask for the same room whatever the text is, so that nothing jumps."""
        width = self.fontMetrics().averageCharWidth() * _SHOWN
        return QSize(width, self.minimumSizeHint().height())


class ElidedCheckBox(QCheckBox):
    """A check box with a text of any length."""

    def __init__(self, name: str, text: str, tip: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setToolTip(f"{text}\n{tip}")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._whole = " ".join(text.split())

    def sizeHint(self) -> QSize:
        """Ask for the same room whatever the text is."""
        width = self.fontMetrics().averageCharWidth() * _SHOWN
        return QSize(width + 24, super().sizeHint().height())

    def minimumSizeHint(self) -> QSize:
        """Ask for no less."""
        return self.sizeHint()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Cut the text where the room ends."""
        super().resizeEvent(event)
        option = QStyleOptionButton()
        self.initStyleOption(option)
        style = self.style()
        if style is not None:
            part = QStyle.SubElement.SE_CheckBoxContents
            room = style.subElementRect(part, option, self).width()
            cut = self.fontMetrics().elidedText(
                self._whole, Qt.TextElideMode.ElideRight, room
            )
            self.setText(cut.replace("&", "&&"))


class ElidedComboBox(QComboBox):
    """A combo box whose text ends in … where the room does; style sheets cut it."""

    def elided(self) -> str:
        """Return what is drawn."""
        return self._option().currentText or ""

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        """Draw the box, and as much of the text as there is room for."""
        painter = QStylePainter(self)
        option = self._option()
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def _option(self) -> QStyleOptionComboBox:
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        style = self.style()
        if style is not None:
            box = QStyle.ComplexControl.CC_ComboBox
            part = QStyle.SubControl.SC_ComboBoxEditField
            room = style.subControlRect(box, option, part, self).width()
            option.currentText = self.fontMetrics().elidedText(
                option.currentText, Qt.TextElideMode.ElideRight, room
            )
        return option


class Message(QTextEdit):
    """Some lines of text, which wrap anywhere and scroll, in the theme's colours.

    Parameters
    ----------
    viewer
        Whose theme it follows.
    name
        Object name.
    lines
        How many are seen at once; its height never changes with the text.
    """

    def __init__(self, viewer: Viewer, name: str, lines: int) -> None:
        super().__init__()
        self._viewer, self._lines = viewer, lines
        self._kind: Kind = "info"
        self.setObjectName(name)
        self.setReadOnly(True)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        document = self.document()
        if document is not None:
            document.setDocumentMargin(0)
        self._dress()

    def text(self) -> str:
        """Return what it says."""
        return self.toPlainText()

    def say(self, text: str, kind: Kind = "info") -> None:
        """Say something else."""
        self._kind = kind
        self.setPlainText(text)
        self.setToolTip(text)
        self._dress()

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow theme and font."""
        super().changeEvent(event)
        kinds = (QEvent.Type.StyleChange, QEvent.Type.FontChange)
        if event is not None and event.type() in kinds:
            self._dress()

    def _dress(self) -> None:
        color, background = map(hexed, message_colors(self._viewer.theme, self._kind))
        sheet = (
            f"QTextEdit {{color: {color}; background-color: {background}; padding: 0; "
            f"border: none}} QTextEdit > QWidget {{background-color: {background}}}"
        )
        if sheet != self.styleSheet():
            self.setStyleSheet(sheet)
        line = ceil(QFontMetricsF(self.font()).height())  # as documents round
        self.setFixedHeight(self._lines * line + 2)


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
