"""Progress and cancelling."""

import napari_ovam
from napari_ovam.base.progress import Cancelled, no_progress


def test_cancelled_is_not_taken_for_a_wrong_value():
    assert napari_ovam.Cancelled is Cancelled
    assert not issubclass(Cancelled, (ValueError, RuntimeError, OSError))


def test_no_progress_lets_work_go_on():
    assert no_progress(1, 2) is None
