"""Clicks ask for a mask: what a person sees of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from napari_ovam import (
    Click,
    ClickSegmenter,
    LayerTrace,
    Token,
    Trace,
    iou,
    segment_clicks,
)

SIZE, CELLS = 64, 16


def picture(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of a disc and a square, alike in colour, and their labels."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[(rows - 20) ** 2 + (columns - 20) ** 2 < 12**2] = 1
    labels[36:58, 34:60] = 2
    noise = np.random.default_rng(seed).normal(0, 8, (SIZE, SIZE, 3))
    image = np.where(labels[..., None] > 0, (200, 90, 60), (60, 110, 160)) + noise
    return image.clip(0, 255).astype(np.uint8), labels


def trace_of(labels: np.ndarray) -> Trace:
    """Return a trace whose cells ask by what they are on."""
    small = torch.from_numpy(labels[:: SIZE // CELLS, :: SIZE // CELLS].astype(int))
    kinds = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    queries = kinds[small.flatten()][None, None]
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    layer = LayerTrace(
        "up_blocks.0.attentions.0.transformer_blocks.0.attn2",
        (CELLS, CELLS),
        queries,
        weight,
        1.0,
    )
    return Trace((layer,), (SIZE, SIZE), "", "cond")


IMAGE, LABELS = picture()
TRACE = trace_of(LABELS)
ONE = ClickSegmenter(TRACE, IMAGE)

places = st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1))
clicks = st.lists(
    st.builds(lambda at, positive: Click(*at, positive), places, st.booleans()),
    min_size=1,
    max_size=6,
)


def test_a_click_finds_the_object_that_is_clicked_alone():
    for number, place in ((1, (20, 20)), (2, (47, 47))):
        found = segment_clicks(TRACE, IMAGE, [Click(*place)])
        assert iou(found.mask, number == LABELS) > 0.9
        assert np.array_equal(found.probability >= 0.5, found.mask)
        assert found.probability.dtype == np.float32
        every = [found.holds(*at) for at in np.ndindex(found.mask.shape)]
        assert np.array_equal(np.reshape(every, found.mask.shape), found.mask)


def test_a_box_finds_what_is_in_it_and_a_click_corrects():
    box = ((5, 5), (34, 33))
    found = segment_clicks(TRACE, IMAGE, [], box=box)
    assert iou(found.mask, LABELS == 1) > 0.85
    assert not found.mask[36:, :].any()
    # the same with a click more
    assert segment_clicks(TRACE, IMAGE, [Click(20, 20)], box=box).mask[20, 20]


def test_a_scribble_counts_as_a_whole():
    path = tuple((float(row), 47.0) for row in range(40, 55))
    found = segment_clicks(TRACE, IMAGE, [Click(40, 47, path=path)])
    assert iou(found.mask, LABELS == 2) > 0.9


def test_a_token_says_what_is_looked_for():
    """Without cells that tell, the class's map decides."""
    token = Token("disc", "", torch.randn(2, 8), (1, 2))
    found = segment_clicks(TRACE, IMAGE, [Click(20, 20)], token=token)
    assert found.mask[20, 20]


@settings(max_examples=8, deadline=None)
@given(asked=clicks)
def test_each_click_changes_its_piece_alone(asked: list[Click]):
    before = np.zeros(LABELS.shape, bool)
    for count, click in enumerate(asked, 1):
        after = ONE(asked[:count]).mask
        at = int(click.row), int(click.column)
        assert after[at] == click.positive
        change = after != before
        assert label(change, np.ones((3, 3)))[1] <= 1
        if change.any():
            assert change[at]
            assert (after[change] == click.positive).all()
        for other in asked[:count]:  # of two at one place the later counts
            later = [
                c
                for c in asked[:count]
                if (c.row, c.column) == (other.row, other.column)
            ]
            same_sign = later[-1].positive == click.positive
            if not same_sign and later[-1].positive:
                assert after[int(other.row), int(other.column)]
        before = after


@settings(max_examples=4, deadline=None)
@given(asked=clicks, mask=st.sampled_from([None, 1, 2]))
def test_equal_clicks_have_equal_answers(asked: list[Click], mask: int | None):
    start = None if mask is None else mask == LABELS
    known = ClickSegmenter(TRACE, IMAGE)
    known(asked[:1], mask=start)
    a = known(asked, mask=start)
    b = segment_clicks(TRACE, IMAGE, asked, mask=start)
    assert np.array_equal(a.mask, b.mask)
    assert np.array_equal(a.probability, b.probability)


def test_clicks_correct_a_mask_of_somebody_else():
    wrong = (LABELS == 1) | (LABELS == 2)
    wrong[20, 20:50] = True
    less = segment_clicks(TRACE, IMAGE, [Click(20, 45, False)], mask=wrong)
    assert not less.mask[20, 45]
    assert (less.mask <= wrong).all()
    assert less.mask[47, 47]
    more = segment_clicks(TRACE, IMAGE, [Click(47, 47)], mask=LABELS == 1)
    assert iou(more.mask, LABELS > 0) > 0.9
    assert more.mask[LABELS == 1].all()
    same = segment_clicks(TRACE, IMAGE, [Click(20, 20)], mask=LABELS == 1)
    assert np.array_equal(same.mask, LABELS == 1)


def test_a_negative_click_drops_a_piece_that_nobody_asked_for():
    asked = [Click(20, 20), Click(47, 47), Click(47, 47, False)]
    found = segment_clicks(TRACE, IMAGE, asked)
    assert not found.mask[47, 47]
    assert found.mask[20, 20]


def test_it_goes_without_a_trace():
    found = segment_clicks(None, IMAGE, [Click(20, 20)])
    assert found.mask[20, 20]
    assert not found.mask[0, 0]


def test_large_pictures_are_looked_at_where_the_click_is():
    image = np.full((3000, 2600, 3), (60, 110, 160), np.uint8)
    image[2000:2040, 1000:1050] = (200, 90, 60)
    found = ClickSegmenter(None, image)([Click(2020, 1020)])
    assert iou(found.part, (image[found.window] == 200).any(2)) > 0.9
    assert found.part.size < 400**2
    assert found.mask.sum() == found.part.sum()


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ({"clicks": []}, "nothing to go by"),
        ({"clicks": [Click(64, 3)]}, r"click at \(64, 3\) is outside"),
        ({"clicks": [Click(float("nan"), 3)]}, "outside"),
        ({"clicks": [Click(3, 3, path=((3, -5.0),))]}, "outside"),
        ({"clicks": [Click(3, 3)], "mask": np.zeros((3, 3))}, "the mask is"),
        ({"clicks": [], "box": ((9, 9), (4, 20))}, "the box"),
        ({"clicks": [], "box": ((90, 9), (94, 20))}, "the box"),
    ],
)
def test_bad_input_is_named(wanted: dict[str, Any], match: str):
    with pytest.raises(ValueError, match=match):
        segment_clicks(TRACE, IMAGE, **wanted)


def test_a_picture_of_another_trace_is_refused():
    with pytest.raises(ValueError, match="the trace is of an image of"):
        segment_clicks(TRACE, IMAGE[:32], [Click(3, 3)])
    with pytest.raises(ValueError, match="float64"):
        segment_clicks(TRACE, IMAGE / 255, [Click(3, 3)])
