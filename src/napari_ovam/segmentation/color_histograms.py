"""How much the colours of a picture's pixels speak for one region or another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The width of a histogram's cells in units of CIE Lab, and the deviation of the
# Gaussian that smooths it, in cells: shades of a thing are one colour.
_CELL = 6.0
_SMOOTHING = 1.0
# No colour alone decides: the most that it says, as a log-ratio.
_MOST = 4.0


class ColorHistograms:
    """Colour histograms of regions of one picture.

    Regions and what is outside of them are told apart by their colours, as in the
    interactive segmentation of Boykov & Jolly (ICCV 2001), with smooth histograms in
    CIE Lab; they depend on nothing but the pixels, whichever way the picture is turned.

    Parameters
    ----------
    picture
        (h, w, 3), from 0 to 1.
    """

    def __init__(self, picture: NDArray[np.float32]) -> None:
        self._size = picture.shape[:2]
        cells = rgb2lab(picture).reshape(-1, 3).astype(np.float32)
        cells = (cells - cells.min(0)) / _CELL
        low = np.floor(cells).astype(np.int64)
        self._shape = tuple(low.max(0) + 2)
        strides = np.array([self._shape[1] * self._shape[2], self._shape[2], 1])
        # Each pixel is in the eight cells around its colour, in shares.
        corners = np.indices((2, 2, 2)).reshape(3, 8)
        self._cells = low @ strides + (strides @ corners)[:, None]
        above = (cells - low).T.astype(np.float32)
        first, second, third = (np.stack([1 - part, part]) for part in above)
        shares = first[:, None, None] * second[:, None] * third
        self._shares = shares.reshape(8, -1)
        self._all = self._smooth(np.ones(self._size))

    def log_ratio(
        self, region: NDArray[Any], known: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Return log p(colour | region) - log p(colour | outside), (h, w).

        0 where the region is nothing or all: colours tell no sides apart then.

        Parameters
        ----------
        region
            (h, w), from 0 to 1, or bool.
        known
            (h, w), pixels of which is known whether they are in it; None for all.
        """
        everything = self._all if known is None else self._smooth(known)
        total = float(region.size if known is None else known.sum())
        count = float(region.sum())
        if not 0 < count < total:
            return np.zeros(self._size, np.float32)
        inside = self._smooth(region)
        # One pixel more of every colour on both sides: what was not seen says nothing.
        share = count / total
        found = np.log((inside + share) / (count + share)) - np.log(
            (np.maximum(everything - inside, 0) + 1 - share)
            / (total - count + 1 - share)
        )
        result: NDArray[np.float32] = found.clip(-_MOST, _MOST).astype(np.float32)
        return result

    def _smooth(self, region: NDArray[Any]) -> NDArray[np.float64]:
        """Return how many pixels of a region have about the colour of each pixel."""
        counts = np.bincount(
            self._cells.ravel(),
            (self._shares * np.asarray(region).ravel()).ravel(),
            int(np.prod(self._shape)),
        ).reshape(self._shape)
        smooth = gaussian_filter(counts, _SMOOTHING, mode="constant").ravel()
        result: NDArray[np.float64] = (smooth[self._cells] * self._shares).sum(0)
        return result.reshape(self._size)
