"""Whose a pixel is that several classes claim.

A class's map is high on other objects too, so that of several classes each claims what
is another's. A small one then needs more of its map where a larger one is
(`levels_within`), and each loses by what another has more (`against_others`). What
several claim all the same goes to one of them (`decide`): what any claims there is an
object, and a class is where its map is higher than halfway between what it has in its
own object and in those of others. Where they claim apart, each keeps its own:
docs/quality.md.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import label
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csc_array, diags_array
from scipy.sparse.linalg import splu
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn import functional

from napari_ovam.segmentation.thresholds import THRESHOLD, threshold_by_share

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# In a connected piece, others claim a share of what a class claims as well. From the
# first on (the mean of the classes there) contrast counts, from the second it decides.
_CONTESTED = (0.1, 0.5)
# A class with less than this share of a piece is not asked about it.
_PRESENT = 0.02
# A piece smaller than this share of the largest is a crumb, not an object of its own.
_SIZEABLE = 0.1

# Logits: from a class's mean on others' objects to that on its own are this many, ...
_GAIN = 6.0
# ... beside them a class's own claim has this weight.
_OWN = 0.3
_ROUNDS = 3

# The walk: cells of the longer side, the reach as a share of the picture's area, what
# difference in colour is an edge (CIE Lab), and what passes an edge all the same.
_CELLS = 64
_REACH = 0.3
_EDGE = 10.0
_LEAK = 0.05


# A class that has so many times another's area raises its threshold: a little from the
# first on, to what the map wants there from the second.
_LARGER = (1.3, 2.1)
# How much of what another class has more counts against one, in contrasts; its colours
# are learnt where no other has so much more.
_LOSS, _BEHIND = 0.25, 0.3


def levels_within(maps: Tensor, levels: Tensor) -> Tensor:
    """Return thresholds (P, h, w) that are higher where a larger class is.

    A map is higher on all of a large object than on the ground, so that a small object
    on it would be as large: a driver the bus.

    Parameters
    ----------
    maps
        Shape (P, h, w).
    levels
        Shape (P, 1, 1), their thresholds.
    """
    claimed = maps >= levels
    areas = claimed.float().mean((1, 2))
    found = levels.expand_as(maps).clone()
    low, high = _LARGER
    for own, larger in permutations(range(len(maps)), 2):
        weight = float(((areas[larger] / areas[own] - low) / (high - low)).clamp(0, 1))
        there = claimed[larger]
        wanted = threshold_by_share(maps[own][there].numpy()) if weight else np.inf
        if np.isfinite(wanted):  # else the map is flat there
            level = levels[own, 0, 0]
            raised = level + weight * (wanted - level)
            found[own][there] = found[own][there].maximum(raised)
    return found


def against_others(heights: Tensor) -> tuple[Tensor, Tensor]:
    """Return lower heights where others have more, and where a class is not far behind.

    Parameters
    ----------
    heights
        Shape (P, h, w): maps with a contrast of 1, 0 at their thresholds.

    Returns
    -------
    lower, near
        (P, h, w) each; the second is bool: pixels whose colours may be the class's.
    """
    capped = heights.clamp(max=1)
    others = torch.stack(
        [
            torch.cat([capped[:place], capped[place + 1 :]]).amax(0)
            for place in range(len(capped))
        ]
    )
    loss = _LOSS * (others - capped).clamp_min(0) * (others > 0)
    return heights - loss, heights >= heights.amax(0) - _BEHIND


def decide(
    maps: Tensor,
    alone: Tensor,
    together: Callable[[], Tensor],
    picture: Tensor,
    smooth: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the probabilities of classes that compete for the same pixels.

    Class j has a pixel where its map exceeds b_j the most, with b_j the mean over all
    classes k of what map j has on the objects of class k. It begins with the map's mean
    on all objects; then the objects and b_j are found in turn.

    Parameters
    ----------
    maps
        Shape (P, h, w), with a contrast of 1 each.
    alone
        Shape (P, h, w): the probabilities of the classes, each as if there were no
        others.
    together
        Gives the probability (h, w) that a pixel is an object of any class, as the
        highest of all maps has it: called if anything is contested.
    picture
        Shape (3, h, w), from 0 to 1.
    smooth
        Moves the borders of (P, h, w) to the picture's edges.
    """
    top = alone.amax(0)
    claimed = alone >= THRESHOLD
    contested = _contested(claimed)
    belongs = alone.square() / alone.square().sum(0).clamp_min(1e-9)
    if contested.any():
        top = torch.lerp(top, together(), contested)
        inside = top >= THRESHOLD
        if inside.any():
            decided = smooth(_by_contrast(maps, alone, claimed, top * inside, picture))
            decided = decided.clamp_min(1e-4)
            belongs = torch.lerp(belongs, decided / decided.sum(0), contested)
    # The highest has the probability of an object, so that no gap is between classes.
    result: Tensor = top * belongs / belongs.amax(0).clamp_min(1e-9)
    return result


def _contested(claimed: Tensor) -> Tensor:
    """Return how far contrast decides, 0 to 1, (h, w): the same in a whole piece."""
    pieces, count = label(claimed.any(0).numpy())
    several = (claimed.sum(0) > 1).numpy()
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    shares = np.zeros((len(claimed), count + 1))
    asked = np.zeros(shares.shape, bool)
    for number, mask in enumerate(claimed.numpy()):
        own = np.bincount(pieces[mask], minlength=count + 1)
        both = np.bincount(pieces[mask & several], minlength=count + 1)
        shares[number] = both / np.maximum(own, 1)
        asked[number] = own > _PRESENT * sizes
    mean = (shares * asked).sum(0) / np.maximum(asked.sum(0), 1)
    low, high = _CONTESTED
    found = ((mean - low) / (high - low)).clip(0, 1)
    # What nobody claims alone may still be an object where anything is contested.
    found[0] = found.max()
    return torch.from_numpy(found.astype(np.float32)[pieces])


def _by_contrast(
    maps: Tensor, alone: Tensor, claimed: Tensor, weight: Tensor, picture: Tensor
) -> Tensor:
    """Return shares of classes (P, h, w), on objects where `weight` (h, w) is not 0."""
    inside = weight > 0
    maps = _walk(maps, weight, picture)
    claims = alone.clamp_min(0.02).log() * _OWN
    mean = maps[:, inside].mean(1)[:, None, None]
    start = (maps - mean) / (maps - mean)[:, inside].std().clamp_min(1e-6)
    claims += _GAIN * _assigned(start, claimed, inside)
    found = (start * _GAIN / 2 + claims).softmax(0)
    for _ in range(_ROUNDS):
        parts = found * weight
        means = torch.einsum("jhw,khw->jk", maps, parts)
        means /= parts.sum((1, 2)).clamp_min(1e-6)
        excess = maps - means.mean(1)[:, None, None]
        found = (_GAIN * excess + claims).softmax(0)
    return found


def _assigned(maps: Tensor, claimed: Tensor, inside: Tensor) -> Tensor:
    """Return 1 on the piece that each class gets, 0 elsewhere, (P, h, w).

    Where a sizeable piece is contested and there are enough of them for all classes,
    each class gets one, so that the sum of what the maps have there is the highest
    (Kuhn, Naval Research Logistics 1955): no class is left with nothing because another
    sees its object as well. `maps` have a mean of 0 on all pieces, and one scale.
    """
    pieces, count = label(inside.numpy())
    flat = pieces.ravel()
    sizes = np.bincount(flat, minlength=count + 1)[1:]

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(flat, values.ravel(), count + 1)[1:] / sizes

    contested = mean((claimed.sum(0) > 1).numpy()) > _CONTESTED[1]
    whole = np.flatnonzero(sizes >= _SIZEABLE * sizes.max(initial=0))
    given = np.zeros((len(maps), count + 1), np.float32)
    if len(whole) >= len(maps) and contested[whole].any():
        heights = np.stack([mean(each)[whole] for each in maps.numpy()])
        classes, places = linear_sum_assignment(heights, maximize=True)
        given[classes, whole[places] + 1] = 1
    return torch.from_numpy(given[:, pieces])


def _walk(maps: Tensor, weight: Tensor, picture: Tensor) -> Tensor:
    """Average maps (P, h, w) within objects, along what looks alike.

    Random walks with priors (Grady, CVPR 2005, equation 9) on a grid of the model's
    cells: steps within an object are easy, steps across an edge of colour hard, none
    leads over what is no object (`weight` (h, w) is 0).
    """
    scale = _CELLS / max(weight.shape)
    size = tuple(max(1, round(side * scale)) for side in weight.shape)

    def cells(values: Tensor) -> NDArray[np.float64]:
        found = functional.interpolate(values[None], size, mode="area")[0]
        return found.double().numpy()

    here = cells(weight[None])[0].clip(1e-3)
    lab = rgb2lab(np.moveaxis(cells(picture), 0, 2))
    places = np.arange(here.size).reshape(size)
    ties = csc_array((here.size, here.size))
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        alike = np.exp(-((lab[a] - lab[b]) ** 2).sum(2) / _EDGE**2) + _LEAK
        tie = _REACH * here.size * alike * np.minimum(here[a], here[b]) ** 2
        pairs = (places[a].ravel(), places[b].ravel())
        ties = ties + csc_array((tie.ravel(), pairs), ties.shape)
    ties = ties + ties.T
    system = diags_array(ties.sum(0) + here.ravel()) - ties
    right = cells(maps * weight).reshape(len(maps), -1).T
    found = splu(system.tocsc()).solve(right).T.reshape(len(maps), *size)
    return functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(found, np.float32))[None],
        weight.shape,
        mode="bilinear",
        align_corners=False,
    )[0]
