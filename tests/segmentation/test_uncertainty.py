import numpy as np
import pytest

from napari_ovam.segmentation.uncertainty import doubtful_places, uncertainty


def test_doubt_is_one_at_the_threshold_and_falls_on_both_sides() -> None:
    ramp = np.linspace(0, 1, 11, dtype=np.float32)[None, None]
    doubt = uncertainty(ramp, 0.5)[0]
    assert doubt[5] == pytest.approx(1)
    assert (np.diff(doubt[:6]) > 0).all()
    assert (np.diff(doubt[5:]) < 0).all()
    assert doubt[0] == 0


def test_two_classes_that_are_both_sure_are_doubtful() -> None:
    cat, dog = np.full((2, 4, 4), 0.9, np.float32)
    dog[0] = 0.1
    doubt = uncertainty(np.stack([cat, dog]), (0.5, 0.5))
    assert doubt[0, 0] < 0.8
    assert doubt[1, 0] == pytest.approx(1)


def test_a_class_with_a_lower_threshold_is_compared_by_what_it_passes_it() -> None:
    maps = np.stack([np.full((2, 2), 0.8), np.full((2, 2), 0.4)])
    assert uncertainty(maps, (0.4, 0.2)) == pytest.approx(1)


@pytest.mark.parametrize("thresholds", [0, (0.5,), (0.5, -1), (0.1, 0.2, 0.3)])
def test_wrong_thresholds_are_named(thresholds: object) -> None:
    with pytest.raises(ValueError, match="thresholds are"):
        uncertainty(np.ones((2, 3, 3)), thresholds)  # type: ignore[arg-type]


def test_places_are_sorted_lie_in_themselves_and_skip_what_is_settled() -> None:
    doubt = np.zeros((40, 40), np.float32)
    doubt[2:6, 2:6] = 0.9
    doubt[10:30, 10] = doubt[10:30, 30] = doubt[29, 10:31] = 1  # a U, hollow
    doubt[35, 35] = 1  # one pixel
    places = doubtful_places(doubt, level=0.8, smallest=9)
    assert [place.pixels for place in places] == [59, 16]
    assert all(doubt[p.row, p.column] > 0.8 for p in places)
    settled = doubt == 1
    left = doubtful_places(doubt, level=0.8, smallest=9, settled=settled)
    assert [p.pixels for p in left] == [16]
    assert doubtful_places(np.zeros((5, 5), np.float32)) == []


def test_where_all_is_doubtful_the_places_are_those_of_most_doubt() -> None:
    rng = np.random.default_rng(0)
    doubt = rng.uniform(0.8, 0.95, (100, 100)).astype(np.float32)
    doubt[10:22, 10:22], doubt[60:66, 60:66] = 0.99, 0.98
    places = doubtful_places(doubt)
    assert [(p.row // 12, p.column // 12) for p in places[:2]] == [(1, 1), (5, 5)]
    assert sum(p.pixels for p in places) <= 0.02 * doubt.size


def test_an_image_without_doubt_has_no_place() -> None:
    doubt = np.linspace(0, 0.49, 10_000, dtype=np.float32).reshape(100, 100)
    assert doubtful_places(doubt) == []


def test_places_that_are_small_for_the_image_are_left_out() -> None:
    doubt = np.zeros((400, 400), np.float32)
    doubt[:8, :8] = doubt[100:110, 100:110] = 1
    assert [p.pixels for p in doubtful_places(doubt)] == [100]
    assert len(doubtful_places(doubt, smallest=9)) == 2
