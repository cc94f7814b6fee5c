"""How well a mask agrees with the exact one, and how sure a mean is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Share of the image's diagonal by which borders may miss each other (DAVIS).
TOLERANCE = 0.008
_RESAMPLES = 2000


def boundary_f(found: NDArray[Any], exact: NDArray[Any]) -> float:
    """Return the boundary F-score of two masks, 0 to 1.

    Precision: the share of the found mask's border pixels within a tolerance of the
    exact one's; recall: the reverse; F: their harmonic mean (Csurka et al., BMVC
    2013; tolerance and border as in Perazzi et al., CVPR 2016). A border pixel is one
    of the mask that touches, by a side, one that is not; 128x128 images: 2 pixels.
    """
    radius = int(np.ceil(TOLERANCE * np.hypot(*exact.shape)))
    borders = [_border(found.astype(bool)), _border(exact.astype(bool))]
    if not borders[0].any() or not borders[1].any():
        return float(borders[0].any() == borders[1].any())
    near = [distance_transform_edt(~border) <= radius for border in borders]
    precision = (borders[0] & near[1]).sum() / borders[0].sum()
    recall = (borders[1] & near[0]).sum() / borders[1].sum()
    both = precision + recall
    return float(2 * precision * recall / both) if both else 0.0


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = mask & ~binary_erosion(mask, border_value=1)
    return found


def interval(by_class: Sequence[float]) -> float:
    """Return half the width of the 95 % bootstrap interval of a mean over classes."""
    values = np.asarray(by_class)
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(_RESAMPLES, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(high - low) / 2
