"""What `refine` and `maps_to_labels` do, written as one would first write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import cg
from skimage.color import rgb2lab
from skimage.measure import label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ovam import LabelSettings


def walk(
    found: NDArray[np.float32], image: NDArray[np.uint8], reach: float = 0.012
) -> NDArray[np.float32]:
    """Solve the system of `refine.walk` by conjugate gradients, its diagonal before."""
    lab = rgb2lab(image).reshape(-1, 3)
    index = np.arange(found.size).reshape(found.shape)
    one = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    other = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    apart = ((lab[one] - lab[other]) ** 2).sum(1)
    ties = reach * index.size * (np.exp(-apart / 100) + 1e-4)
    graph = coo_matrix((ties, (one, other)), shape=(found.size, found.size))
    graph = (graph + graph.T).tocsr()
    degree = 1 + np.asarray(graph.sum(1)).ravel()
    system, before = diags(degree) - graph, diags(1 / degree)
    flat = found.ravel().astype(np.float64)
    solved, _ = cg(system, flat, x0=flat, rtol=3e-3, M=before, maxiter=2000)
    clipped = np.clip(solved.reshape(found.shape), found.min(), found.max())
    result: NDArray[np.float32] = clipped.astype(np.float32)
    return result


def labels(maps: NDArray[np.float32], settings: LabelSettings) -> NDArray[Any]:
    """Threshold maps, drop doubtful parts and unite pieces, pixel by pixel."""
    levels = np.array(settings.threshold, np.float32)[:, None, None]
    over = maps >= levels
    inside = over.copy()
    for each, mask in zip(maps, inside, strict=True):
        mask &= ~_doubtful(each, mask, settings.parts)
    height = np.where(inside, maps / levels, -1)
    found = np.where(inside.any(0), height.argmax(0) + 1, 0)
    return _united(found, maps, over)


def _doubtful(
    values: NDArray[np.float32], mask: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    parts = label(mask, connectivity=1)
    sizes = np.bincount(parts.ravel())
    if len(sizes) < 3:
        return np.zeros_like(mask)
    means = np.bincount(parts.ravel(), values.ravel()) / sizes
    sizes[0] = 0
    doubtful = means < share * means[sizes * 10 >= sizes.max()].max()
    doubtful[0] = False
    result: NDArray[np.bool_] = doubtful[parts]
    return result


def _united(
    found: NDArray[np.intp], maps: NDArray[np.float32], over: NDArray[np.bool_]
) -> NDArray[np.intp]:
    kinds = len(maps) + 1
    regions = label(found > 0, connectivity=1)
    pieces, count = label(found, background=0, connectivity=1, return_num=True)
    sizes = np.bincount(
        (regions * kinds + found).ravel(), minlength=(regions.max() + 1) * kinds
    ).reshape(-1, kinds)
    sizes[:, 0] = 0
    most = sizes.argmax(1)
    flat, total = pieces.ravel(), count + 1
    kind, region = np.zeros(total, np.intp), np.zeros(total, np.intp)
    kind[flat], region[flat] = found.ravel(), regions.ravel()
    rival = most[region]

    def sums(values: NDArray[Any], which: NDArray[np.intp]) -> NDArray[Any]:
        taken = np.take_along_axis(values, np.maximum(which - 1, 0)[None], 0)
        return np.bincount(flat, taken.ravel(), minlength=total)

    claimed = sums(over, most[regions]) * 2 >= np.bincount(flat, minlength=total)
    largest = np.zeros(kinds, np.intp)
    for piece in np.argsort(sums(maps, found), kind="stable"):
        largest[kind[piece]] = region[piece]
    moves = claimed & (rival != kind) & (region != largest[kind])
    moves[0] = False
    return np.where(moves[pieces], rival[pieces], found)
