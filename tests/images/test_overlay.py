"""Maps and labels over pictures: what they show stands out on any picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from napari_ovam import overlay
from napari_ovam.datasets.class_colors import PALETTE
from napari_ovam.images.overlay import map_cover, map_ramp

SIDE = 64
ENOUGH = 25  # CIE 1976 colour difference; 2 is just seen side by side
# The picture, and an object on it that hardly stands out.
KINDS = {
    "light": ((250, 250, 248), (236, 236, 240)),
    "dark": ((8, 8, 14), (22, 20, 24)),
    "coloured": ((120, 180, 240), (60, 130, 210)),
    "grey": ((128, 128, 128), (140, 140, 140)),
}
COLOR = st.tuples(*[st.integers(0, 255)] * 3)


def scene(around: tuple[int, ...], inside: tuple[int, ...]) -> tuple:
    """Return a picture with a disk, the disk, and a blurred map that is 0.3 around."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disk = (rows - 26) ** 2 + (columns - 36) ** 2 < 14**2
    picture = np.where(disk[..., None], inside, around).astype(np.uint8)
    values = gaussian_filter(0.3 + 0.6 * disk, 3).astype(np.float32)
    values += 0.03 * np.sin(rows / 3)
    return picture, disk, (values - values.min()) / np.ptp(values)


def difference(picture: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    lab = rgb2lab(picture)
    return float(np.linalg.norm(lab[one].mean(0) - lab[other].mean(0)))


@pytest.mark.parametrize("color", PALETTE)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_map_finds_stands_out_on_any_picture(
    kind: str, color: tuple[int, int, int]
) -> None:
    picture, disk, values = scene(*KINDS[kind])
    shown = overlay(picture, disk.astype(int), {1: color}, maps={1: values})
    assert difference(shown, disk, ~disk) > ENOUGH
    assert difference(picture, disk, ~disk) < ENOUGH


@given(around=COLOR, inside=COLOR, color=st.sampled_from(PALETTE))
@settings(max_examples=60, deadline=None)
def test_no_colour_of_a_picture_hides_a_map(
    around: tuple[int, ...], inside: tuple[int, ...], color: tuple[int, int, int]
) -> None:
    picture, disk, values = scene(around, inside)
    shown = overlay(picture, disk.astype(int), {1: color}, maps={1: values})
    assert difference(shown, disk, ~disk) > ENOUGH


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_maps_each_stands_out_and_nothing_is_blown_out(kind: str) -> None:
    picture, disk, values = scene(*KINDS[kind])
    other, second = disk[::-1, ::-1], np.ascontiguousarray(values[::-1, ::-1])
    both = disk & other
    ids = np.where(disk, 1, 2 * other)
    colors = dict(enumerate(PALETTE, 1))
    shown = overlay(picture, ids, colors, maps={1: values, 2: second})
    around = ~(disk | other)
    assert difference(shown, disk & ~both, around) > ENOUGH
    assert difference(shown, other & ~both, around) > ENOUGH
    assert difference(shown, disk & ~both, other & ~both) > ENOUGH
    lines = (shown == 255).all(-1)
    assert not lines[~(disk | other)].any()
    assert rgb2lab(shown)[~lines][..., 0].max() < 95  # no white but the lines


def test_the_line_is_on_the_edge_of_what_the_threshold_takes() -> None:
    _, disk, values = scene(*KINDS["light"])
    cover = map_cover([values], [(disk, PALETTE[0])])
    light = (cover == 255).all(-1)
    dark = (cover[..., :3] == 0).all(-1) & (cover[..., 3] == 255)
    assert light.any()
    assert not light[~disk].any()
    assert dark.any()
    assert not dark[disk].any()
    near = gaussian_filter(disk.astype(float), 1)
    assert (abs(near[light | dark] - 0.5) < 0.45).all()


def test_a_ramp_goes_from_nothing_up() -> None:
    ramp = map_ramp((255, 0, 128))
    assert ramp[0, 3] == 0
    assert (np.diff(ramp[:, 3]) > 0).all()
    assert ramp[-1, 3] < 1  # the picture is still seen


def test_what_cannot_be_laid_over_is_said() -> None:
    picture, disk, values = scene(*KINDS["grey"])
    with pytest.raises(ValueError, match="no map of"):
        overlay(picture, disk * 1, {2: (1, 2, 3)}, maps={1: values})
    with pytest.raises(ValueError, match="labels is None"):
        overlay(picture, None, {1: (1, 2, 3)})
