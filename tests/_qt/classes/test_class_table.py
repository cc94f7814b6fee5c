"""Classes are added, changed, merged and deleted; ids stay and labels follow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from project_window import Window, make_project
from qtpy.QtCore import Qt

from napari_ovam._qt.classes.class_table import KEY, NAME, PHRASE, THRESHOLD
from napari_ovam._qt.layers.colors import label_features

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def is_seen(widget: Any, area: Any) -> bool:
    """Whether all of a widget is in sight in its scroll area."""
    place = widget.mapTo(area.viewport(), widget.rect().topLeft())
    inside = 0 <= place.y() <= area.viewport().height() - widget.height()
    return bool(widget.isVisible() and inside)


STRANGE = ['say "cheese", please', "🐈", "../../etc/passwd", "x" * 300]


class Classes(Window):
    """The annotator with its class table, in a project of four images."""

    @property
    def section(self) -> Any:
        return self.widget.sections["Classes"]

    @property
    def model(self) -> Any:
        return self.section.model

    @property
    def names(self) -> dict[int, str]:
        return {entry.id: entry.name for entry in self.session.classes}

    def type(self, name: str, column: int, text: str) -> bool:
        """Type into a cell of the class with a name."""
        row = self.model.row(self.number(name))
        done: bool = self.model.setData(
            self.model.index(row, column), text, Qt.ItemDataRole.EditRole
        )
        return done

    def number(self, name: str) -> int:
        found: int = next(e.id for e in self.session.classes if e.name == name)
        return found

    def ask_delete(self, *names: str) -> str:
        """Press Delete for classes; return what is asked."""
        self.section.view.clearSelection()
        for name in names:
            self.section.select(self.number(name))
        self.click("delete_class_button")
        self.wait()
        question = self.find("class_question")
        self.bot.waitUntil(lambda: is_seen(question, self.find("sections")))
        text: str = self.find("class_question_text").text()
        return text

    def answer(self, name: str = "class_yes_button") -> None:
        self.click(name)
        self.wait()


@pytest.fixture
def window(dock: Callable[..., Any], tmp_path: Path) -> Classes:
    made = dock("OVAM annotator", Classes, "classes")
    made.open(make_project(tmp_path / "pets").path)
    return made


def test_a_class_is_added_renamed_and_recoloured(window: Classes) -> None:
    window.find("new_class").setText("dog")
    window.click("add_class_button")
    assert window.names == {1: "cat", 2: "hat", 3: "dog"}
    assert window.type("dog", NAME, "puppy")
    assert not window.type("puppy", NAME, "cat")
    assert "named 'cat' already" in window.said
    assert window.session.class_changes.change(3, color=(1, 2, 3))
    assert window.type("puppy", KEY, "4")
    assert window.type("puppy", THRESHOLD, "0.25")
    assert not window.type("cat", THRESHOLD, "2")
    assert window.names == {1: "cat", 2: "hat", 3: "puppy"}
    entry = window.written().classes[3]
    assert (entry.name, entry.phrase, entry.color) == ("puppy", "dog", (1, 2, 3))
    assert (entry.key, entry.threshold) == ("4", 0.25)
    features = window.labels.features
    assert dict(zip(features["index"], features["name"], strict=True))[3] == "puppy"


def test_a_deleted_class_is_gone_from_all_images(window: Classes) -> None:
    window.session.step(1)
    window.until_shown("picture 1")
    window.paint(40, 40, number=2)
    before = window.labels.data.copy()
    window.session.review.accept()
    window.until_shown("picture 2")
    window.session.step(-1)
    window.until_shown("picture 1")
    window.labels.selected_label = 1
    text = window.ask_delete("cat")
    assert "Delete cat? 2 images hold it" in text
    window.answer("class_no_button")
    assert 1 in window.names
    window.ask_delete("cat")
    window.answer()
    assert window.names == {2: "hat"}
    after = np.where(before == 1, 0, before)
    np.testing.assert_array_equal(window.labels.data, after)
    assert window.labels.selected_label == 2
    project = window.written()
    np.testing.assert_array_equal(project.load_labels("picture-1"), after)
    assert not np.any(project.load_labels("picture-3"))
    assert project.sample("picture-1").status == "accepted"  # it was not edited
    window.labels.undo()
    np.testing.assert_array_equal(window.labels.data, after)
    # nobody gets its id, here or after opening
    window.find("new_class").setText("dog")
    window.click("add_class_button")
    assert window.names == {2: "hat", 3: "dog"}
    assert {e.id for e in window.written().classes} == {2, 3}


def test_an_id_of_a_deleted_class_is_not_given_after_opening(window: Classes) -> None:
    window.find("new_class").setText("dog")
    window.click("add_class_button")
    window.ask_delete("dog")
    window.answer()
    path = window.written().path
    window.session.projects.leave()
    window.wait()
    window.open(path)
    assert window.names == {1: "cat", 2: "hat"}
    assert window.session.class_changes.add("fox").id == 4


def test_two_classes_are_merged(window: Classes) -> None:
    window.session.step(1)
    window.until_shown("picture 1")
    window.paint(40, 40, number=2)
    window.section.select(2)
    window.click("merge_class_button")
    assert window.find("merge_into").currentText() == "1: cat"
    window.answer()
    text = window.find("class_question_text").text()
    assert "Merge hat into cat? 1 image holds it" in text
    window.answer()
    assert window.names == {1: "cat"}
    assert window.labels.data[40, 40] == 1
    assert not (window.labels.data == 2).any()
    labels = window.written().load_labels("picture-1")
    np.testing.assert_array_equal(labels, window.labels.data)


def test_a_class_in_use_is_not_deleted(window: Classes) -> None:
    import threading

    go_on = threading.Event()
    window.session.start(
        "Proposing labels", lambda _: go_on.wait(10), returned=lambda _: None
    )
    try:
        window.section.select(1)
        window.click("delete_class_button")
        assert "Cat is in use: Proposing labels is still running" in window.said
        assert 1 in window.names
        assert not window.find("class_question").isVisibleTo(window.section)
    finally:
        go_on.set()
    window.wait()


def test_strange_names_are_kept_as_they_are(window: Classes) -> None:
    for name in STRANGE:
        assert window.session.class_changes.add(name) is not None
    assert list(window.names.values())[2:] == STRANGE
    assert window.session.class_changes.add("  ") is None
    assert "needs a name" in window.said
    entry = window.session.classes[3]
    assert entry.phrase == 'say "cheese" please'  # a phrase has no comma
    assert not window.type("cat", PHRASE, "a, b")
    written = window.written()
    assert [e.name for e in written.classes][2:] == STRANGE
    index = window.model.index(window.model.row(6), NAME)
    assert "x" * 300 in index.data(Qt.ItemDataRole.ToolTipRole)
    assert window.widget.width() <= 360
    view = window.section.view
    assert view.horizontalHeader().length() <= view.viewport().width()


def test_lists_are_imported(window: Classes, tmp_path: Path) -> None:
    window.session.class_changes.import_preset("voc")
    window.wait()
    assert len(window.names) == 21  # cat was there
    assert window.names[1] == "cat"
    assert "aeroplane" in window.names.values()
    assert not any(e.active for e in window.session.classes if e.id > 2)
    path = tmp_path / "data.yaml"
    path.write_text("names: {0: zebra, 1: cat}")
    window.session.class_changes.import_file(path)
    wait_for = window.number
    window.wait()
    assert wait_for("zebra") == window.session.classes.last_id
    path.write_text("nothing")
    window.session.class_changes.import_file(path)
    window.wait()
    assert "no class list" in window.said
    assert len(window.written().classes) == 22


def test_a_thousand_classes_stay_usable(window: Classes, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(f"kind {n}" for n in range(1000)))
    window.session.class_changes.import_file(path)
    window.wait()
    assert window.model.rowCount() == 1002
    assert "more classes" in window.find("more_classes").text()
    start = time.perf_counter()
    window.find("class_filter").setText("kind 99")
    assert time.perf_counter() - start < 1
    assert window.model.rowCount() == 11
    window.find("class_filter").clear()
    start = time.perf_counter()
    window.type("kind 500", NAME, "renamed")
    assert time.perf_counter() - start < 1.5  # it was 9 s with widgets per class
    assert "renamed" in window.names.values()


def test_the_legend_names_what_is_in_the_image(window: Classes) -> None:
    window.session.step(1)
    window.until_shown("picture 1")
    legend = window.find("legend")
    window.bot.waitUntil(lambda: "cat" in legend.text(), timeout=3000)
    assert "hat" not in legend.text()
    window.click("classes_here")
    assert window.model.rowCount() == 1
    window.paint(40, 40, number=2)
    window.bot.waitUntil(lambda: "hat" in legend.text(), timeout=3000)
    assert window.model.rowCount() == 2


def test_the_key_of_a_class_chooses_it(window: Classes) -> None:
    window.type("hat", KEY, "9")
    window.viewer.layers.selection.active = window.labels
    window.labels.selected_label = 1
    window.press(Qt.Key.Key_9)
    assert window.labels.selected_label == 2
    window.type("cat", KEY, "9")  # it goes to the last one
    assert window.session.classes[2].key is None
    window.press(Qt.Key.Key_9)
    assert window.labels.selected_label == 1
    window.type("cat", KEY, "")
    window.labels.selected_label = 2
    window.press(Qt.Key.Key_9)
    assert window.labels.selected_label == 2


def test_a_tick_puts_the_phrase_under_maps(window: Classes) -> None:
    window.session.class_changes.add("dog")
    row = window.model.row(3)
    checked = Qt.CheckState.Checked
    window.model.setData(
        window.model.index(row, PHRASE), checked, Qt.ItemDataRole.CheckStateRole
    )
    assert window.find("phrases").text().endswith("dog")
    assert window.session.classes[3].active


def test_of_two_classes_with_a_phrase_the_ticked_ones_are_mapped(
    window: Classes,
) -> None:
    """As each may have a token of its own."""
    changes = window.session.class_changes
    assert window.type("hat", PHRASE, "Cat")
    for ticked in ([2], [1, 2], [1]):
        changes.look_for([1, 2], False)
        changes.look_for(ticked, True)
        assert changes.use_phrases(["cat"]) is not None
        assert [e.id for e in window.session.classes.active] == ticked


def test_without_a_project_classes_are_deleted_in_the_window(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_ovam._qt.annotator import start_session

    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    session = start_session(make_napari_viewer())
    try:
        asked: list[Any] = []
        session.class_changes.asked.connect(asked.append)
        session.class_changes.add("cat")
        session.class_changes.ask_delete([1])
        qtbot.waitUntil(lambda: bool(asked) and not session.busy, timeout=30_000)
        session.class_changes.remove(asked[0])
        qtbot.waitUntil(lambda: not session.busy, timeout=30_000)
        assert len(session.classes) == 0
        assert session.class_changes.add("hat").id == 2
        names = label_features(session.classes)["name"]
        assert names == ["background", "hat", "unsure"]
    finally:
        session.close()
