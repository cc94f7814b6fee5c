"""What is seen: nothing cut, at any width, font and text; colours that are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image
from napari.settings import get_settings
from napari.utils.theme import available_themes
from project_window import make_project
from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import (
    QAbstractScrollArea,
    QApplication,
    QCheckBox,
    QLabel,
    QPushButton,
    QScrollArea,
    QWidget,
)
from superqt import QCollapsible, QElidingLabel

from napari_ovam._qt.annotator import AnnotatorWidget, ProjectDock, TokensDock
from napari_ovam._qt.session.jobs import Kind
from napari_ovam._qt.widgets.colors import (
    contrast,
    message_colors,
    muted,
    readable,
    text_on,
)
from napari_ovam._qt.widgets.docks import dock_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLAIN = ("cat", "hat")
HOSTILE = (
    "red hat with a long white feather",
    "x" * 300,
    "一只戴着红色帽子的猫坐在绿色的草地上看着远处的山和河",
    "قطة صغيرة ترتدي قبعة حمراء على العشب الأخضر في الحديقة",
    "a & b <b>c</b>\tline",
    *(f"class number {number} of many" for number in range(60)),
)
COLOR = st.tuples(*[st.integers(0, 255)] * 3)


@pytest.fixture
def open_docks(
    make_napari_viewer: Callable[..., Any],
    tmp_path: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., list[Any]]]:
    """Return what opens the panel and the docks on a project, folds open."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before = get_settings().appearance.font_size
    made: list[Any] = []

    def open_(names: tuple[str, ...] = PLAIN, folder: str = "pets") -> list[Any]:
        project = make_project(tmp_path / folder, 3)
        for name in names:
            if name not in PLAIN:
                project.classes.add(" ".join(name.split()))
        project.save()
        viewer = make_napari_viewer(show=True)
        for kind in (AnnotatorWidget, ProjectDock, TokensDock):
            made.append(kind(viewer))
            viewer.window.add_dock_widget(made[-1], name=kind.__name__)
        session = made[0].session
        session.projects.open(project.path)
        qtbot.waitUntil(
            lambda: not session.busy and session.current is not None, timeout=20_000
        )
        for fold in made[0].findChildren(QCollapsible):
            fold.expand(animate=False)
        qtbot.wait(400)
        return made

    yield open_
    get_settings().appearance.font_size = before
    if made:
        made[0].session.close()


def cut_off(root: QWidget) -> list[str]:
    """Return what of a dock cannot be seen, reached by a scroll bar, or read whole."""
    found = []
    for child in root.findChildren(QWidget):
        parent = child.parentWidget()
        if not child.isVisible() or parent is None or child.isWindow():
            continue
        name = f"{type(child).__name__} {child.objectName()}"
        if _is_viewport(parent):
            area: Any = parent.parentWidget()
            bar = area.horizontalScrollBar()
            right = child.geometry().right() + bar.value()
            if right > parent.width() + bar.maximum() or (
                right > parent.width() and not bar.isVisible()
            ):
                found.append(f"{name} is beyond its scroll area")
        elif not _inside(child.geometry(), parent.rect()):
            found.append(f"{name} {child.geometry()} is beyond {parent.rect()}")
        if isinstance(child, QElidingLabel):
            if child.text() and child.text() not in " ".join(child.toolTip().split()):
                found.append(f"{name} has no tooltip that holds its text")
        elif isinstance(child, QPushButton | QCheckBox | QLabel):
            wanted = child.minimumSizeHint().width()
            if isinstance(child, QLabel) and child.wordWrap():
                measure = child.fontMetrics().horizontalAdvance
                wanted = max(map(measure, child.text().split()), default=0)
            if child.width() < wanted:
                found.append(f"{name} cuts its text: {child.text()!r}")
    return found


def _is_viewport(widget: QWidget) -> bool:
    area = widget.parentWidget()
    return isinstance(area, QAbstractScrollArea) and area.viewport() is widget


def _inside(inner: QRect, outer: QRect) -> bool:
    return outer.left() <= inner.left() and inner.right() <= outer.right()


@pytest.mark.parametrize(
    ("names", "folder"), [(PLAIN, "pets"), (HOSTILE, "a_long_folder_name_" * 12)]
)
def test_nothing_is_cut_off_at_any_width_and_font(
    open_docks: Callable[..., list[Any]],
    qtbot: Any,
    names: tuple[str, ...],
    folder: str,
):
    docks = open_docks(names, folder)
    classes = docks[0].session.classes
    long = max(classes, key=lambda entry: len(entry.name)).id
    docks[0].session.class_changes.ask_delete([long])
    docks[0].session.say("one_word_" * 60 + " and more. " * 20, "warning")
    holders = [dock_of(dock) for dock in docks]
    for holder in holders:
        holder.setFloating(True)
    for font in (7, 9, 16):
        get_settings().appearance.font_size = font
        for dock, holder in zip(docks, holders, strict=True):
            for width in (300, 360, 700):
                holder.resize(width, 800)
                qtbot.wait(60)
                case = f"{type(dock).__name__} at {width} px, font {font}"
                assert dock.width() <= width, case
                assert cut_off(dock) == [], case


def test_at_the_usual_font_nothing_scrolls_sideways(
    open_docks: Callable[..., list[Any]], qtbot: Any
):
    panel, *_ = open_docks(HOSTILE)
    window = panel.window()
    window.resize(1400, 900)
    scroll = panel.findChild(QScrollArea, "sections")
    image = panel.sections["Image"]
    image.layer_form.ask([Image(np.zeros((2, 7, 64, 64)), name="cells " * 20)])
    image.layer_form.channels.setCurrentIndex(1)
    image.layer_form.planes.setCurrentIndex(2)
    for offer in image._offers:
        offer.offer(lambda: None)
    qtbot.wait(100)
    assert scroll.horizontalScrollBar().maximum() == 0
    assert panel.width() <= 360


def test_a_long_message_keeps_its_place_and_scrolls(
    open_docks: Callable[..., list[Any]], qtbot: Any
):
    panel, *_ = open_docks()
    message = panel.findChild(QWidget, "status_text")
    before = message.geometry()
    text = "/a/folder/of/" + "a_very_long_name_" * 40 + ".png was kept."
    panel.session.say(text, "error")
    qtbot.wait(50)
    assert message.geometry() == before
    assert message.text() == text
    assert message.horizontalScrollBar().maximum() == 0
    assert message.verticalScrollBar().maximum() > 0


def test_folds_point_right_when_shut_and_down_when_open(
    open_docks: Callable[..., list[Any]],
):
    panel, *_ = open_docks()
    for fold in panel.findChildren(QCollapsible):
        assert fold.text().startswith("▾")
        fold.toggleButton().click()
        assert fold.text().startswith("▸")
        assert fold.content().height() == 0 or not fold.content().isVisible()


def test_nothing_moves_when_texts_change(
    open_docks: Callable[..., list[Any]], qtbot: Any
):
    panel, *_ = open_docks()

    def places() -> dict[str, QPoint]:
        names = ("classes_table", "discard_button", "source_button", "cut_button")
        found = {name: panel.findChild(QWidget, name) for name in names}
        return {n: w.mapTo(panel, QPoint(0, 0)) for n, w in found.items()}

    before = places()
    session = panel.session
    layer = session.layers.find(session.current.key, "labels")
    layer.data = np.full_like(layer.data, 2)
    panel.findChild(QWidget, "edits_text").setText("many " * 50)
    panel.findChild(QWidget, "scores_text").setText("many " * 50)
    panel.findChild(QWidget, "instances_text").setText("many " * 50)
    panel.findChild(QWidget, "legend").setHtml("■ many " * 50)
    session.say("many " * 200)
    qtbot.wait(400)
    assert places() == before


def test_rows_that_are_replaced_do_not_flash_as_windows(
    open_docks: Callable[..., list[Any]], qtbot: Any
):
    panel, *_ = open_docks()
    before = {id(w) for w in QApplication.topLevelWidgets() if w.isVisible()}
    for _ in range(3):  # within one turn of the event loop
        panel.session.classes_changed.emit()
    for _ in range(20):
        QApplication.processEvents()
        shown = [w for w in QApplication.topLevelWidgets() if w.isVisible()]
        assert {id(w) for w in shown} <= before, shown


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("theme", available_themes())
def test_messages_are_read_in_every_theme(theme: str, kind: Kind):
    assert contrast(*message_colors(theme, kind)) >= 4.5
    _, background = message_colors(theme, kind)
    assert contrast(muted(theme), background) >= 4.5


@given(color=COLOR, background=COLOR)
@settings(max_examples=200, deadline=None)
def test_any_colour_can_be_made_readable(
    color: tuple[int, int, int], background: tuple[int, int, int]
):
    assert contrast(readable(color, background), background) >= 4.5
    known = {"black": (0, 0, 0), "white": (255, 255, 255)}
    assert contrast(known[text_on(background)], background) >= 4.5


def test_a_message_follows_the_theme(open_docks: Callable[..., list[Any]], qtbot: Any):
    panel, *_ = open_docks()
    panel.session.say("Nothing was lost.", "warning")
    message = panel.findChild(QWidget, "status_text")
    for theme in ("light", "dark"):
        panel.session.viewer.theme = theme
        qtbot.wait(50)
        picture = message.grab().toImage()
        background = picture.pixelColor(picture.width() - 3, picture.height() - 3)
        written = message.palette().color(message.foregroundRole())
        assert contrast(written.getRgb()[:3], background.getRgb()[:3]) >= 4.5, theme
        assert background.lightness() > 128 or theme == "dark"


def test_a_long_phrase_is_cut_with_a_tooltip(open_docks: Callable[..., list[Any]]):
    panel, *_ = open_docks(HOSTILE)
    boxes = [b for b in panel.findChildren(QCheckBox) if "show_map" in b.objectName()]
    long = next(box for box in boxes if box.toolTip().startswith("x" * 300))
    assert long.text().endswith("…")
    both = next(box for box in boxes if "a & b" in box.toolTip())
    sample = panel.findChild(QWidget, "sample")
    sample.addItem("a long prompt, " * 20)
    sample.setCurrentIndex(sample.count() - 1)
    assert sample.elided().endswith("…")
    assert sample.currentText() in sample.toolTip()
    assert "&&" in both.text()  # and not a letter that is underlined
