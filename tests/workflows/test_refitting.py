"""A token is used where it is better on images left out, and that is no chance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam import Token
from napari_ovam.workflows.refitting import GAIN, Report, refit


def refitted(gains):
    names = [f"image-{i}" for i in range(len(gains))]
    return refit(
        names,
        lambda _: Token("cat", "model", torch.zeros(3, 4)),
        lambda name: 0.5,
        lambda _, name: 0.5 + gains[names.index(name)],
        leave_out=0.25,
        seed=(0, 1),
        used=None,
        report=Report(lambda *_: None, 1),
    )


@pytest.mark.parametrize(
    ("gains", "better"),
    [
        ([0.4], False),  # of the image that it was optimized on
        ([0.02, 0.02], True),
        ([0.05, 0.01], False),  # 3.1 times their error is more than their mean
        ([0.3, 0.25], True),
        ([0.0005] * 8, False),
        ([0.02, 0.03, 0.01, 0.02, 0.04, 0.01, 0.02, 0.03], True),
        ([0.3, -0.02, -0.01, 0.0, 0.0, -0.01, 0.01, 0.0], False),  # one image's
    ],
)
def test_what_is_used(gains, better):
    found = refitted(gains)
    assert found.better == better
    assert found.after - found.before == pytest.approx(np.mean(gains))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-0.4, 0.4), min_size=2, max_size=8))
def test_what_gains_nothing_in_the_mean_is_never_used(gains):
    if refitted(gains).better:
        assert np.mean(gains) > GAIN / 2
        # and what differs twice as much from image to image has to gain more
        spread = np.array(gains) - np.mean(gains)
        assert refitted(list(np.mean(gains) + spread / 2)).better
