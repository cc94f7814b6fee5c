"""A person's strokes win over every recomputed proposal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_ovam._qt.session.edits import Edits


def proposal(*rows: str) -> np.ndarray:
    return np.array([[int(c) for c in row] for row in rows])


def test_strokes_outlast_a_new_proposal() -> None:
    edits = Edits(proposal("1100", "1100"))
    painted = proposal("1200", "0100")  # one pixel painted, one erased
    assert edits.take(painted)
    assert not edits.take(painted)

    edits.propose(proposal("1111", "1111"))

    np.testing.assert_array_equal(edits.labels, proposal("1211", "0111"))
    assert edits.count == 2


def test_a_second_stroke_replaces_the_first() -> None:
    edits = Edits(proposal("1100"))
    edits.take(proposal("1120"))
    edits.take(proposal("1130"))
    edits.propose(proposal("0000"))
    np.testing.assert_array_equal(edits.labels, proposal("0030"))


def test_an_undone_stroke_is_forgotten() -> None:
    edits = Edits(proposal("1100"))
    edits.take(proposal("1122"))
    edits.take(proposal("1100"), undone=True)
    assert edits.count == 0
    edits.propose(proposal("0011"))
    np.testing.assert_array_equal(edits.labels, proposal("0011"))


def test_discard_gives_everything_back() -> None:
    edits = Edits(proposal("1100"))
    edits.take(proposal("2222"))
    assert not edits.are_proposal
    edits.discard()
    assert edits.are_proposal
    np.testing.assert_array_equal(edits.labels, proposal("1100"))


def test_labels_of_another_size_are_refused() -> None:
    edits = Edits(proposal("1100"))
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(1, 4\)"):
        edits.take(proposal("110"))
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        edits.propose(proposal("110"))


@pytest.fixture
def labelled(panel: Any) -> Any:
    for name in ("generate", "map", "labels"):
        panel.press(f"{name}_button")
    return panel


def test_thresholds_change_only_the_rest(labelled: Any) -> None:
    panel = labelled
    painted, cat = panel.other, panel.number("cat")
    stroke = panel.paint(painted)
    before = panel.labels().data.copy()

    panel.find(f"threshold_{cat}").setValue(5)
    panel.wait()

    after = panel.labels().data
    assert (after[stroke] == painted).all()
    assert (after == cat).sum() > (before == cat).sum()
    assert "painted" in panel.find("edits_text").text()


def test_undo_after_a_recompute_brings_back_nothing_stale(labelled: Any) -> None:
    panel = labelled
    painted = panel.other
    stroke = panel.paint(painted)
    panel.find(f"threshold_{panel.number('cat')}").setValue(5)
    panel.wait()
    expected = panel.labels().data.copy()

    panel.labels().undo()
    panel.bot.wait(50)

    np.testing.assert_array_equal(panel.labels().data, expected)
    assert (panel.labels().data[stroke] == painted).all()


def test_undo_of_a_stroke_gives_the_pixels_back_to_the_maps(labelled: Any) -> None:
    panel = labelled
    before = panel.labels().data.copy()
    panel.paint(panel.other)
    panel.labels().undo()
    panel.bot.wait(50)
    np.testing.assert_array_equal(panel.labels().data, before)
    assert panel.session.current.edits.count == 0


def test_painting_over_what_is_there_decides_it(labelled: Any) -> None:
    panel = labelled
    data = panel.labels().data
    middle = int(data[data.shape[0] // 2, data.shape[1] // 2])
    if middle == 0:
        panel.find(f"threshold_{panel.number('cat')}").setValue(1)
        panel.wait()
        middle = int(panel.labels().data[data.shape[0] // 2, data.shape[1] // 2])
    panel.viewer.layers.selection.active = panel.labels()
    panel.labels().mode = "paint"
    panel.labels().selected_label = middle
    panel.drag((0.5, 0.5), (0.51, 0.51))

    panel.find(f"absent_{middle}").setChecked(True)
    panel.wait()

    assert (panel.labels().data == middle).any()


def test_discard_my_edits(labelled: Any) -> None:
    panel = labelled
    before = panel.labels().data.copy()
    panel.paint(panel.other)
    painted, count = panel.labels().data.copy(), panel.session.current.edits.count
    panel.click("discard_button")
    np.testing.assert_array_equal(panel.labels().data, before)
    assert not panel.find("discard_button").isEnabled()
    panel.bot.wait(50)
    panel.labels().undo()  # a click too many takes nobody's work
    panel.bot.wait(50)
    np.testing.assert_array_equal(panel.labels().data, painted)
    assert panel.session.current.edits.count == count
    panel.labels().undo()
    panel.bot.wait(50)
    np.testing.assert_array_equal(panel.labels().data, before)


def test_not_in_this_image(labelled: Any) -> None:
    panel = labelled
    cat = panel.number("cat")
    panel.find(f"absent_{cat}").setChecked(True)
    panel.wait()
    assert not (panel.labels().data == cat).any()


def test_an_id_without_a_class_can_be_given_one(labelled: Any) -> None:
    panel = labelled
    panel.paint(7)
    assert "7" in panel.status
    panel.press("export_button")
    assert "7" in panel.status
    panel.click("create_class_button")
    panel.press("export_button")
    assert "Exported" in panel.status


def test_what_a_stroke_went_over_unchanged_is_decided_until_it_is_undone() -> None:
    edits = Edits(np.array([[1, 1, 2, 2]]))
    edits.take(np.array([[1, 1, 1, 2]]))
    under = {0: np.array([[False, True, True, False]])}
    new = edits.confirm(under, 1)
    assert edits.count == 2
    edits.unconfirm(new)
    edits.take(np.array([[1, 1, 2, 2]]), undone=True)
    assert edits.count == 0
    edits.take(np.array([[1, 1, 1, 2]]), undone=True)  # redo
    assert edits.count == 1
