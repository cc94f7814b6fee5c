"""The token library in its dock: looked through, used, compared, brought and taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from project_window import Window
from qtpy.QtCore import QMimeData, QPointF, Qt
from qtpy.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

from napari_ovam import Token, encode_phrase, load_pipeline, load_token
from napari_ovam._qt.classes.class_section import ClassSection
from napari_ovam._qt.widgets.token_drop import dragged_token
from napari_ovam.project import Project
from napari_ovam.project.token_library import TokenLibrary
from napari_ovam.scenes import load_scenes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CAT, HAT = 1, 2


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_pipeline("tiny")


def token_of(pipe: Any, phrase: str, **info: Any) -> Token:
    """A phrase's start row and last piece, as a token that was optimized."""
    found = encode_phrase(pipe, phrase)
    rows = found.embedding[[0, found.span[1] - 1]]
    return Token(phrase, found.model, rows, info={"phrase": phrase, **info})


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipe: Any) -> TokenLibrary:
    """Two tokens of the embedded model, one of another and a damaged one."""
    monkeypatch.setenv("NAPARI_OVAM_TOKENS", str(tmp_path / "library"))
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    library = TokenLibrary()
    picture = np.full((64, 128, 3), 200, np.uint8)
    library.add(token_of(pipe, "cat", images=3), iou=0.91, preview=picture)
    library.add(token_of(pipe, "hat"), iou=0.95)
    library.add(Token("dog", "0123456789abcdef", torch.ones(2, 7)))
    (tmp_path / "library" / "broken.safetensors").write_bytes(b"no token")
    return library


@pytest.fixture
def window(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    tmp_path: Path,
    library: TokenLibrary,
) -> Iterator[Window]:
    torch.set_num_threads(1)
    project = Project.create(tmp_path / "cats")
    for name in ("cat", "hat"):
        project.classes.add(name)
    scene = next(s for s in load_scenes() if "cat" in s.classes.values())
    number = next(i for i, name in scene.classes.items() if name == "cat")
    project.add_sample(scene.image, name="scene")
    labels = (scene.labels == number).astype(np.uint8) * CAT
    project.save_labels("scene", labels, "accepted")
    project.save()
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1100, 700)
    _, widget = viewer.window.add_plugin_dock_widget(
        "napari-ovam", "OVAM token library"
    )
    made = Window(viewer, qtbot, widget)
    qtbot.waitExposed(viewer.window._qt_window)
    made.open(project.path)
    made.session.models.get(made.session.choice, _NoJob())
    widget.session.library.reload()
    qtbot.waitUntil(lambda: bool(made.session.library.model), timeout=30_000)
    yield made
    widget.session.close()


class _NoJob:
    """What loads a model before the test begins."""

    title = ""

    def describe(self, *_: Any, **__: Any) -> None:
        pass


def texts(window: Window) -> list[str]:
    table = window.widget.table
    return [table.index(row, 0).data() for row in range(table.rowCount())]


def until(window: Window, *names: str) -> None:
    """Wait until the list begins with these names."""

    def there() -> bool:
        return [text.split()[0] for text in texts(window)] == list(names)

    window.bot.waitUntil(there, timeout=10_000)


def select(window: Window, *rows: int) -> None:
    view = window.widget.view
    view.clearSelection()
    for row in rows:
        place = view.visualRect(window.widget.table.index(row, 0)).center()
        modifier = Qt.KeyboardModifier.ControlModifier
        button = Qt.MouseButton.LeftButton
        window.bot.mouseClick(view.viewport(), button, modifier, place)


def choose(window: Window, name: str, text: str) -> None:
    assert window.find(name).isEnabled()
    menu = window.find(name).menu()
    menu.aboutToShow.emit()
    (action,) = [a for a in menu.actions() if a.text() == text]
    action.trigger()
    window.wait()


def test_tokens_are_listed_with_what_is_known(window: Window) -> None:
    until(window, "cat", "dog", "hat", "broken")
    cat, dog, _, broken = texts(window)
    assert "IoU 0.91" in cat
    assert "“cat” · 3 images · 20" in cat
    assert "this model" in cat
    assert "belongs to another model" in dog
    assert "damaged" in broken
    table = window.widget.table
    index, other = table.index(0, 0), table.index(1, 0)
    role = Qt.ItemDataRole
    assert other.data(role.ForegroundRole) is not None
    assert index.data(role.ForegroundRole) is None
    select(window, 1)
    assert not window.find("use_token_for_button").isEnabled()
    assert "another model" in window.find("use_token_for_button").toolTip()

    def pictured() -> bool:
        picture = index.data(role.DecorationRole).toImage()
        return bool(picture.pixelColor(40, 20).red() == 200)

    window.bot.waitUntil(pictured, timeout=5000)
    sort = window.find("token_sort")
    sort.setCurrentIndex(sort.findData("iou"))
    sort.activated.emit(1)
    until(window, "hat", "cat", "dog", "broken")
    window.bot.keyClicks(window.find("token_filter"), "CA")
    until(window, "cat")


def test_a_token_is_used_for_a_class(window: Window, library: TokenLibrary) -> None:
    until(window, "cat", "dog", "hat", "broken")
    table, session = window.widget.table, window.session
    select(window, 0)
    choose(window, "use_token_for_button", "cat")
    entry = session.classes[CAT]
    assert entry.source == "token"
    wanted = library.load("cat").embedding
    torch.testing.assert_close(session.view(CAT).token.embedding, wanted)
    torch.testing.assert_close(window.written().load_token(CAT).embedding, wanted)

    flags = [
        bool(table.flags(table.index(row, 0)) & Qt.ItemFlag.ItemIsDragEnabled)
        for row in range(4)
    ]
    assert flags == [True, False, True, False]
    mime = table.mimeData([table.index(2, 0)])
    session.sources.give({CAT: dragged_token(mime)})  # what a drop on a class calls
    window.wait()
    torch.testing.assert_close(
        session.view(CAT).token.embedding, library.load("hat").embedding
    )
    assert len(library.entries()) == 4, "a token of the library was kept twice"
    session.sources.give({CAT: library.find("dog")})
    window.wait()
    assert session.message[1] == "error"
    assert session.view(CAT).token.name == "hat"


def test_a_token_is_dropped_on_a_class(window: Window, library: TokenLibrary) -> None:
    until(window, "cat", "dog", "hat", "broken")
    section = ClassSection(window.session)
    window.viewer.window.add_dock_widget(section, area="right")
    view, session = section.view, window.session
    window.bot.waitUntil(lambda: view.isVisible(), timeout=5000)
    place = view.visualRect(section.model.index(section.model.row(HAT), 0)).center()

    def drop(mime: QMimeData) -> bool:
        given = (mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
        for kind in (QDragEnterEvent, QDragMoveEvent, QDropEvent):
            where = QPointF(place) if kind is QDropEvent else place
            event = kind(where, Qt.DropAction.CopyAction, *given)
            QApplication.sendEvent(view.viewport(), event)
        window.wait()
        return bool(event.isAccepted())

    text = QMimeData()
    text.setText("cat")
    assert not drop(text)
    table = window.widget.table
    assert drop(table.mimeData([table.index(2, 0)]))
    assert session.view(HAT).token.name == "hat"
    assert session.view(CAT).token is None


def test_the_token_of_a_class_is_saved_with_a_picture(
    window: Window, library: TokenLibrary, pipe: Any
) -> None:
    until(window, "cat", "dog", "hat", "broken")
    assert not window.find("add_token_button").isEnabled()
    window.session.sources.give({HAT: token_of(pipe, "a hat")})
    window.wait()
    choose(window, "add_token_button", "The token of hat")

    assert "hat-2" in window.said
    found = library.find("hat-2")
    assert found.with_suffix(".png").is_file()


def test_files_come_and_go(
    window: Window,
    library: TokenLibrary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pipe: Any,
) -> None:
    until(window, "cat", "dog", "hat", "broken")
    row = token_of(pipe, "fox").embedding[1].numpy()
    np.save(tmp_path / "voc.npy", {"fox": row}, allow_pickle=True)
    path = str(tmp_path / "voc.npy")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (path, ""))
    window.click("import_token_button")
    window.wait()
    until(window, "cat", "dog", "fox", "hat", "broken")
    assert "1 token imported" in window.said
    assert "start token of tiny" in window.said

    target = tmp_path / "out"
    answer = (str(target), "Reference (*.npy)")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: answer)
    select(window, 2)
    window.click("export_token_button")
    window.wait()
    rows = np.load(target.with_suffix(".npy"))
    np.testing.assert_allclose(rows[1], row, rtol=1e-6)
    window.click("export_token_button")
    window.wait()
    assert "exists" in window.said

    answers = iter([QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes])
    monkeypatch.setattr(QMessageBox, "question", lambda *_: next(answers))
    window.click("remove_token_button")
    assert library.find("fox").is_file()
    window.click("remove_token_button")
    window.wait()
    until(window, "cat", "dog", "hat", "broken")
    window.click("restore_token_button")
    window.wait()
    until(window, "cat", "dog", "fox", "hat", "broken")
    assert load_token(library.find("fox")).name == "fox"


def test_everything_fits_into_a_narrow_dock(window: Window) -> None:
    until(window, "cat", "dog", "hat", "broken")
    assert window.widget.minimumSizeHint().width() <= 341
    assert window.widget.view.horizontalScrollBar().maximum() == 0
