"""From maps to labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from skimage.filters import gaussian, threshold_otsu

from napari_ovam.base.ids import IGNORE
from napari_ovam.segmentation.components import (
    drop_small_parts,
    fill_holes,
    sure_parts,
    unite,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Threshold = float | Literal["otsu"]


@dataclass(frozen=True)
class LabelSettings:
    """How maps become labels.

    Attributes
    ----------
    threshold
        Above 0, up to 1: one for all classes, or one a class; "otsu" finds one for
        a map by itself. Words want about 0.45, optimized tokens about 0.75 (OVAM,
        section 5); `best_threshold` fits it on an annotated image.
    smoothing
        Standard deviation in pixels of the Gaussian that smooths the maps first.
    min_size
        Connected parts of a class with fewer pixels than this become background.
    fill_holes
        Whether background that one class encloses becomes that class.
    parts
        From 0 to 1: a connected part whose mean map is below this share of the surest
        part's is background: another object that the map saw as well. 0 keeps all.
    unite
        Whether a piece of one class goes to the class that has most of the region it
        is in, where that class's map is over its threshold as well and the piece is
        not its own class's largest: an object that two maps saw is one class's.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    threshold: Threshold | tuple[Threshold, ...] = 0.45
    smoothing: float = 0.0
    min_size: int = 0
    fill_holes: bool = False
    parts: float = 0.0
    unite: bool = False

    def __post_init__(self) -> None:
        several = self.threshold
        listed = isinstance(several, Sequence) and not isinstance(several, str)
        for value in several if listed else (several,):  # type: ignore[union-attr]
            if value == "otsu":
                continue
            if not isinstance(value, Real) or not 0 < float(value) <= 1:
                raise ValueError(
                    f"threshold is {value!r}: give a number above 0 and up to 1, or "
                    "'otsu'"
                )
        if not 0 <= self.smoothing < np.inf:
            raise ValueError(f"smoothing is {self.smoothing!r}: give 0 or more pixels")
        if not isinstance(self.min_size, Integral) or self.min_size < 0:
            raise ValueError(f"min_size is {self.min_size!r}: give 0 or more pixels")
        if not isinstance(self.parts, Real) or not 0 <= self.parts <= 1:
            raise ValueError(f"parts is {self.parts!r}: give a number from 0 to 1")


# What docs/quality.md found best. Without annotated images no threshold is known: each
# map gets its own.
MEASURED = LabelSettings(threshold="otsu", parts=0.8, unite=True)


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
        Thresholds and what is done about small parts and holes.
    ids
        P different class ids from 1 to 65535 without 255, which means "unsure". None
        counts from 1.
    image
        (H, W, 3), the image the maps belong to. It is only checked to be of their
        size: refinements that follow its edges come before this function.

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

    What does not depend on the settings (checks, smoothing, Otsu's thresholds) is done
    once, and a class's parts again only when its own threshold changes: with three
    classes at 1024x1024 a threshold takes some 20 ms. One thread at a time.

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
    >>> maker = LabelMaker(maps, ids=[1, 2])
    >>> labels = maker.labels(LabelSettings(threshold=(0.4, 0.5), parts=0.8))
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
        # The last smoothed maps by their deviation, and what was found on them: Otsu's
        # thresholds, and pixels by a class's place with the settings that they are of.
        self._smoothed = (0.0, self.maps)
        self._otsu: dict[int, float] = {}
        self._inside: dict[int, tuple[tuple[float, float], NDArray[np.bool_]]] = {}

    def labels(self, settings: LabelSettings | None = None) -> NDArray[Any]:
        """Return what `maps_to_labels` returns; for settings and errors see there."""
        settings = settings or LabelSettings()
        maps = self._smooth(settings.smoothing)
        thresholds = self._thresholds(settings)
        inside = [
            self._over(place, float(level), settings.parts)
            for place, level in enumerate(thresholds)
        ]
        found = np.zeros(maps.shape[1:], np.uint8 if len(maps) < 256 else np.uint16)
        several = np.zeros_like(found)
        for place, mask in enumerate(inside):
            np.copyto(found, place + 1, where=mask)
            several += mask
        where = np.flatnonzero(several > 1)
        best = np.zeros(len(where), np.float32)
        for place, (mask, level) in enumerate(zip(inside, thresholds, strict=True)):
            height = mask.ravel()[where] * (maps[place].ravel()[where] / level)
            won = where[height > best]
            found.ravel()[won] = place + 1
            np.maximum(best, height, out=best)
        if settings.unite and len(maps) > 1:
            found = unite(found, maps, maps >= thresholds[:, None, None])
        table = np.array([0, *self.ids], np.uint16 if max(self.ids) > 255 else np.uint8)
        labels: NDArray[Any] = np.take(table, found)
        # Small parts first: what one class encloses is then a hole of it.
        for number in self.ids:
            if settings.min_size > 1:
                drop_small_parts(labels, number, settings.min_size)
        for number in self.ids:
            if settings.fill_holes:
                fill_holes(labels, number)
        return labels

    def _smooth(self, deviation: float) -> NDArray[np.float32]:
        if self._smoothed[0] != deviation:
            maps = self.maps
            if deviation:
                maps = np.stack([gaussian(each, deviation) for each in maps])
            self._smoothed = deviation, maps
            self._otsu, self._inside = {}, {}
        return self._smoothed[1]

    def _thresholds(self, settings: LabelSettings) -> NDArray[np.float32]:
        """Return a threshold a map: float32, so that float32 maps compare exactly."""
        wanted, count = settings.threshold, len(self.maps)
        several = (
            wanted
            if isinstance(wanted, Sequence) and not isinstance(wanted, str)
            else (wanted,) * count
        )
        if len(several) != count:
            raise ValueError(
                f"threshold holds {len(several)} values {wanted!r} for {count} maps"
            )
        return np.array(
            [
                self._automatic(place) if each == "otsu" else each
                for place, each in enumerate(several)
            ],
            np.float32,
        )

    def _automatic(self, place: int) -> float:
        if place not in self._otsu:
            self._otsu[place] = automatic_threshold(self._smoothed[1][place])
        return self._otsu[place]

    def _over(self, place: int, level: float, share: float) -> NDArray[np.bool_]:
        """Return where a class is over its threshold, without its doubtful parts."""
        known = self._inside.get(place)
        if known is None or known[0] != (level, share):
            values = self._smoothed[1][place]
            mask: NDArray[np.bool_] = values >= np.float32(level)
            if share:
                mask = sure_parts(values, mask, share)
            self._inside[place] = known = (level, share), mask
        return known[1]


def automatic_threshold(map: NDArray[Any]) -> float:
    """Return the threshold that best parts a map in two (Otsu 1979).

    Parameters
    ----------
    map
        (H, W) from 0 to 1. In a flat map nothing is to be found: infinity.
    """
    if not np.ptp(map):
        return float("inf")
    return max(float(threshold_otsu(map)), float(np.finfo(np.float32).tiny))


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
