"""Labels of any size in any order of changes: as one plain array would have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam._qt.session.edits import Edits, as_labels
from napari_ovam.base import tiles as module
from napari_ovam.base.tiles import tile_places, tiles_in

SIDE = 4  # so that small labels have many tiles


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Any:
    tile_places.cache_clear()
    monkeypatch.setattr(module, "SIDE", SIDE)
    yield
    tile_places.cache_clear()


boxes = st.tuples(*[st.integers(0, 12)] * 4, st.integers(0, 3))
steps = st.lists(st.tuples(st.sampled_from(["paint", "undo", "propose"]), boxes))


def draw(labels: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    """Return labels with another box in them."""
    top, left, height, width, value = box
    drawn = labels.copy()
    drawn[top : top + height, left : left + width] = value
    return drawn


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 13), st.integers(1, 13)), steps)
def test_tiles_hold_what_one_array_would(
    shape: tuple[int, int], events: list[tuple[str, tuple[int, ...]]]
) -> None:
    proposal = np.zeros(shape, np.uint16)
    labels, painted = proposal.copy(), np.zeros(shape, bool)
    edits = Edits(proposal)
    moments = [(edits.now, labels.copy(), painted.copy())]
    for kind, box in events:
        if kind == "propose":
            proposal = draw(proposal, box)
            labels = np.where(painted, labels, proposal)
            edits.propose(proposal)
        else:
            drawn = draw(labels, box)
            changed = drawn != labels
            painted = painted | changed
            if kind == "undo":
                painted &= ~(changed & (drawn == proposal))
            labels = drawn
            assert edits.take(drawn, undone=kind == "undo") == changed.any()
        moments.append((edits.now, labels.copy(), painted.copy()))
    for now, expected, decided in moments:  # also what was there before
        np.testing.assert_array_equal(now.labels, expected)
        np.testing.assert_array_equal(now.painted, decided)
        assert now.ids == set(np.unique(expected))
        assert now.count == decided.sum()
    assert edits.are_proposal == np.array_equal(labels, proposal)
    edits.discard()
    np.testing.assert_array_equal(edits.labels, proposal)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 13), st.integers(1, 13)), boxes)
def test_looking_where_something_was_painted_is_enough(
    shape: tuple[int, int], box: tuple[int, ...]
) -> None:
    edits, there = Edits(np.zeros(shape, np.uint16)), Edits(np.zeros(shape, np.uint16))
    drawn = draw(edits.labels, box)
    top, left, height, width, _ = box
    where = tiles_in(shape, (slice(top, top + height), slice(left, left + width)))
    edits.take(drawn)
    there.take(drawn, where)
    assert edits.now.same(there.now)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (np.array([[65538]]), "65538"),
        (np.array([[-1]]), "-1"),
        (np.array([[2**40]]), str(2**40)),
        (np.array([[0.5]]), "float64"),
        (np.array([1, 2]), r"\(2,\)"),
    ],
)
def test_what_is_no_class_id_is_refused_by_name(wrong: np.ndarray, named: str) -> None:
    for refuse in (as_labels, Edits):
        with pytest.raises(ValueError, match=named):
            refuse(wrong)
    edits = Edits(np.zeros(wrong.shape, np.uint16)) if wrong.ndim == 2 else None
    if edits is not None:
        with pytest.raises(ValueError, match=named):
            edits.propose(wrong)
        assert not edits.labels.any()


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32, np.int64, np.uint16])
def test_ids_of_any_integers_stay_as_they_are(kind: type) -> None:
    ids = np.array([[0, 1, 100]], kind)
    np.testing.assert_array_equal(Edits(ids).labels, ids)
    if kind in (np.int32, np.int64, np.uint16):
        assert Edits(np.array([[65535]]).astype(kind)).labels.tolist() == [[65535]]
