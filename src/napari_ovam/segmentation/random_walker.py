"""Random walks on the pixels of an image, by conjugate gradients and multigrid.

Solves A x = b for maps b, with (A x)_i = x_i + sum over neighbours j of
w_ij (x_i - x_j), the system of `refine.walk`. With a thousand pixels in reach of a walk
the plain conjugate gradients want hundreds of steps, as each carries a value one pixel
far. A V-cycle (Briggs, Henson & McCormick, A Multigrid Tutorial, 2000) before each step
carries it across the image, and a dozen steps are enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Grids are halved down to this side, which is solved directly.
_COARSEST = 16
# Jacobi's damping, below 1 so that the cycle stays positive definite, and its sweeps
# before and after the coarser grid.
_DAMPING = 0.9
_SWEEPS = 2
# As many steps as no image was seen to need.
_MOST_STEPS = 200


class Walks:
    """The system of one image, for any number of maps.

    Parameters
    ----------
    right, down
        (H, W - 1) and (H - 1, W) float32: the ties w of each pixel to its neighbours,
        from 0.
    """

    def __init__(self, right: NDArray[np.float32], down: NDArray[np.float32]) -> None:
        self.size = height, width = down.shape[0] + 1, right.shape[1] + 1
        halvings = 0
        while -(-max(self.size) // 2**halvings) > _COARSEST:
            halvings += 1
        # Pixels without ties at the lower and right edge make all grids even.
        self._added = (0, -width % 2**halvings, 0, -height % 2**halvings)
        across = pad(pad(torch.from_numpy(right), (0, 1, 0, 0)), self._added)
        below = pad(pad(torch.from_numpy(down), (0, 0, 0, 1)), self._added)
        grids = [_Grid(across, below, torch.ones_like(across))]
        for _ in range(halvings):
            grids.append(grids[-1].halved())
        self._grids = grids
        self._inverse = torch.linalg.inv(grids[-1].matrix()).float()

    def solve(self, map: NDArray[np.float32], tolerance: float) -> NDArray[np.float32]:
        """Return x of a map b, both (H, W).

        Parameters
        ----------
        map
            Float32.
        tolerance
            Above 0: the error of x, in the norm sqrt(x A x) and as the cycle estimates
            it, by the deviation of the map.
        """
        # A does not change what is constant: without the mean, less is rounded.
        mean = float(map.mean())
        b = pad(torch.from_numpy(map - np.float32(mean)), self._added)
        scale = tolerance * float(b.norm())
        x = b.clone()
        residual = self._grids[0].residual(b, x)
        step = corrected = self._cycle(residual)
        error = float(residual.flatten() @ corrected.flatten())
        for _ in range(_MOST_STEPS):
            if error <= scale**2:
                break
            moved = self._grids[0].product(step)
            length = error / float(step.flatten() @ moved.flatten())
            x.add_(step, alpha=length)
            residual.sub_(moved, alpha=length)
            corrected = self._cycle(residual)
            before, error = error, float(residual.flatten() @ corrected.flatten())
            step = torch.add(corrected, step, alpha=error / before)
        height, width = self.size
        result: NDArray[np.float32] = x[:height, :width].numpy() + np.float32(mean)
        return result

    def _cycle(self, b: Tensor, level: int = 0) -> Tensor:
        """Return about A^-1 b: smooth, correct on the coarser grid, smooth."""
        grid = self._grids[level]
        if level == len(self._grids) - 1:
            solved: Tensor = self._inverse @ b.flatten()
            return solved.view_as(b)
        start = b * grid.inverse
        x = start * _DAMPING
        for _ in range(_SWEEPS - 1):
            x = grid.smoothed(x, start)
        coarse = self._cycle(4 * _means(grid.residual(b, x)), level + 1)
        height, width = coarse.shape
        x.view(height, 2, width, 2).add_(coarse[:, None, :, None])
        for _ in range(_SWEEPS):
            x = grid.smoothed(x, start)
        return x


class _Grid:
    """A grid (H, W): what its pixels weigh, and what ties them to the next ones.

    Parameters
    ----------
    across, below
        (H, W), the tie to the pixel on the right, and below; 0 at that edge.
    mass
        (H, W), how many pixels it stands for.
    """

    def __init__(self, across: Tensor, below: Tensor, mass: Tensor) -> None:
        self.across, self.below, self.mass = across, below, mass
        self.diagonal = mass + across + below
        self.diagonal[:, 1:] += across[:, :-1]
        self.diagonal[1:] += below[:-1]
        self.inverse = 1 / self.diagonal
        self._ties = [across[:, :-1], across[:, :-1], below[:-1], below[:-1]]
        self._ties = [ties.contiguous() for ties in self._ties]
        damped = _DAMPING * self.inverse
        self._damped = [
            ties * at for ties, at in zip(self._ties, _sides(damped), strict=True)
        ]

    def halved(self) -> _Grid:
        """Return the grid of 2x2 pixels each.

        Ties between two such are added up and halved, as their centres are two pixels
        apart.
        """
        across, below = self.across[:, 1::2], self.below[1::2]
        return _Grid(
            (across[::2] + across[1::2]) / 2,
            (below[:, ::2] + below[:, 1::2]) / 2,
            4 * _means(self.mass),
        )

    def product(self, x: Tensor) -> Tensor:
        """Return A x."""
        return self._tied(self.diagonal * x, x, -1)

    def residual(self, b: Tensor, x: Tensor) -> Tensor:
        """Return b - A x."""
        return self._tied(torch.addcmul(b, self.diagonal, x, value=-1), x, 1)

    def _tied(self, result: Tensor, x: Tensor, sign: int) -> Tensor:
        for to, ties, other in zip(_sides(result), self._ties, _others(x), strict=True):
            to.addcmul_(ties, other, value=sign)
        return result

    def smoothed(self, x: Tensor, start: Tensor) -> Tensor:
        """Return x after a damped Jacobi sweep; `start` is b by the diagonal."""
        result = torch.lerp(x, start, _DAMPING)
        for to, ties, other in zip(
            _sides(result), self._damped, _others(x), strict=True
        ):
            to.addcmul_(ties, other)
        return result

    def matrix(self) -> Tensor:
        """Return A, (H * W, H * W) float64."""
        size = self.mass.numel()
        units = torch.eye(size).view(size, *self.mass.shape)
        return self.product(units).view(size, size).double()


def _sides(x: Tensor) -> list[Tensor]:
    """Return the pixels that have a neighbour: on the right, left, below and above."""
    return [x[..., :-1], x[..., 1:], x[..., :-1, :], x[..., 1:, :]]


def _others(x: Tensor) -> list[Tensor]:
    """Return these neighbours."""
    return [x[..., 1:], x[..., :-1], x[..., 1:, :], x[..., :-1, :]]


def _means(x: Tensor) -> Tensor:
    return avg_pool2d(x[None], 2)[0]
