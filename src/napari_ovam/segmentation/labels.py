"""From maps or probabilities of classes to labels, as a threshold says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.filters import gaussian

from napari_ovam.base.ids import IGNORE
from napari_ovam.segmentation.components import drop_small_components, fill_holes
from napari_ovam.segmentation.uncertainty import uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelSettings:
    """How maps become labels.

    Attributes
    ----------
    threshold
        Above 0, up to 1: one for all classes, or one a class. Of probabilities, 0.5;
        of plain maps, words want about 0.45, optimized tokens about 0.75 (OVAM,
        section 5); `best_threshold` fits it on an annotated image.
    smoothing
        Standard deviation in pixels of the Gaussian that smooths the maps first.
    min_size
        Connected components of a class with fewer pixels than this become background.
    fill_holes
        Whether background that one class encloses becomes that class.
    unsure
        From 0 to 1: this much of the uncertainty (`uncertainty.uncertainty`) is too
        much, and such pixels become 255, which means "unsure". 0 leaves none unsure.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    threshold: float | tuple[float, ...] = 0.45
    smoothing: float = 0.0
    min_size: int = 0
    fill_holes: bool = False
    unsure: float = 0.0

    def __post_init__(self) -> None:
        several = self.threshold
        if isinstance(several, str) or not isinstance(several, Sequence):
            several = (several,)
        for value in several:
            if not isinstance(value, Real) or not 0 < float(value) <= 1:
                raise ValueError(
                    f"threshold is {value!r}: give a number above 0 and up to 1"
                )
        if not 0 <= self.smoothing < np.inf:
            raise ValueError(f"smoothing is {self.smoothing!r}: give 0 or more pixels")
        if not isinstance(self.min_size, Integral) or self.min_size < 0:
            raise ValueError(f"min_size is {self.min_size!r}: give 0 or more pixels")
        if not isinstance(self.unsure, Real) or not 0 <= self.unsure <= 1:
            raise ValueError(f"unsure is {self.unsure!r}: give a number from 0 to 1")


def maps_to_labels(
    maps: NDArray[Any],
    settings: LabelSettings | None = None,
    *,
    ids: Sequence[int] | None = None,
    image: NDArray[np.uint8] | None = None,
) -> NDArray[Any]:
    """Give each pixel the class whose map is the highest over its threshold.

    Only classes whose map is at or above their threshold compete; where there is none,
    the pixel is background. Of equals the first wins.

    Parameters
    ----------
    maps
        Shape (P, H, W), one map a class from 0 to 1, as from `phrase_map`.
    settings
        Thresholds, and what is done about small components and holes.
    ids
        P different class ids from 1 to 65535 without 255, which means "unsure". None
        counts from 1.
    image
        (H, W, 3), the image the maps belong to. It is only checked to be of their
        size: `class_probabilities`, which follows its edges, comes before this.

    Returns
    -------
    ndarray
        Shape (H, W), class ids with 0 for background: uint8, or uint16 if an id is
        above 255.

    Raises
    ------
    ValueError
        If shapes, ids or the number of thresholds do not fit, or a map holds NaN.
    """
    return LabelMaker(maps, ids=ids, image=image).labels(settings)


class LabelMaker:
    """Labels of the same maps for one setting after another, as of a slider.

    What does not depend on the settings is done once: with three classes at 1024x1024
    a threshold takes some 10 ms. One thread at a time.

    Parameters
    ----------
    maps, ids, image
        As for `maps_to_labels`. The maps are not copied if they are float32: do not
        change them.

    Raises
    ------
    ValueError
        If shapes or ids do not fit, or a map holds NaN.

    Examples
    --------
    >>> maker = LabelMaker(probabilities, ids=[1, 2])
    >>> labels = maker.labels(LabelSettings(threshold=(0.4, 0.5)))
    """

    def __init__(
        self,
        maps: NDArray[Any],
        *,
        ids: Sequence[int] | None = None,
        image: NDArray[np.uint8] | None = None,
    ) -> None:
        maps = np.asarray(maps)
        if maps.ndim != 3 or 0 in maps.shape:
            raise ValueError(f"maps have the shape {maps.shape}: give (classes, H, W)")
        self.ids = tuple(_checked_ids(ids, len(maps)))
        if image is not None and np.shape(image)[:2] != maps.shape[1:]:
            raise ValueError(
                f"the image has the shape {np.shape(image)} and the maps are of "
                f"{maps.shape[1:]}: resize one of them"
            )
        self.maps: NDArray[np.float32] = maps.astype(np.float32, copy=False)
        for number, each in zip(self.ids, self.maps, strict=True):
            if not np.isfinite(each).all():
                raise ValueError(
                    f"the map of class {number} holds NaN or infinite values"
                )
        self._smoothed = (0.0, self.maps)  # the last deviation and what it made

    def labels(self, settings: LabelSettings | None = None) -> NDArray[Any]:
        """Return what `maps_to_labels` returns; for settings and errors see there."""
        settings = settings or LabelSettings()
        maps = self._smooth(settings.smoothing)
        thresholds = self._thresholds(settings)
        table = np.array(self.ids, np.uint16 if max(self.ids) > 255 else np.uint8)
        labels = np.zeros(maps.shape[1:], table.dtype)
        best = np.ones(maps.shape[1:], np.float32)
        for number, each, level in zip(table, maps, thresholds, strict=True):
            height = each / level
            # At a threshold counts, of equals the first wins.
            won = (height > best) | ((labels == 0) & (each >= level))
            np.copyto(labels, number, where=won)
            np.copyto(best, height, where=won)
        # Small components first: what one class encloses is then a hole of it.
        for number in self.ids:
            if settings.min_size > 1:
                drop_small_components(labels, number, settings.min_size)
        for number in self.ids:
            if settings.fill_holes:
                fill_holes(labels, number)
        if settings.unsure:
            labels[uncertainty(maps, thresholds.tolist()) >= settings.unsure] = IGNORE
        return labels

    def _smooth(self, deviation: float) -> NDArray[np.float32]:
        if self._smoothed[0] != deviation:
            maps = self.maps
            if deviation:
                maps = np.stack([gaussian(each, deviation) for each in maps])
            self._smoothed = deviation, maps
        return self._smoothed[1]

    def _thresholds(self, settings: LabelSettings) -> NDArray[np.float32]:
        """Return a threshold a map: float32, so that float32 maps compare exactly."""
        wanted, count = settings.threshold, len(self.maps)
        several = wanted if isinstance(wanted, Sequence) else (wanted,) * count
        if len(several) != count:
            raise ValueError(
                f"threshold holds {len(several)} values {wanted!r} for {count} maps"
            )
        return np.array(several, np.float32)


def _checked_ids(ids: Sequence[int] | None, count: int) -> list[int]:
    if ids is None:
        # The 255th class and those after it make room for 255.
        return [i + (i >= IGNORE) for i in range(1, count + 1)]
    numbers = list(ids)
    if len(numbers) != count:
        raise ValueError(f"there are {count} maps and {len(numbers)} ids: {numbers}")
    for number in numbers:
        if (
            not isinstance(number, Integral)
            or not 0 < number <= np.iinfo(np.uint16).max
        ):
            raise ValueError(f"id {number!r} is no class: give one from 1 to 65535")
        if number == IGNORE:
            raise ValueError(f"id {IGNORE} means unsure: give the class another")
        if numbers.count(number) > 1:
            raise ValueError(f"id {number} is there more than once: {numbers}")
    return [int(number) for number in numbers]
