"""What the cells of a trace have in common with some of them, without any text."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_ovam.attention.maps import joint_map
from napari_ovam.attention.token_files import load_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_ovam.attention.tokens import Token
    from napari_ovam.attention.trace import Trace


class CellMaps:
    """The queries of a trace's fine layers, compared with one another.

    A cell's queries say what the model looks for there: cells of one object ask alike
    (as features of diffusion models do in general: Tang et al., NeurIPS 2023, arXiv
    2306.03881). Of each layer the mean over calls counts, less the picture's own mean.

    Parameters
    ----------
    trace
        Of a picture; its self-attention is not needed.
    objects
        A token that finds any object; by default `object_token`.

    Attributes
    ----------
    grid
        (h, w) of the largest grid.
    objects
        Where any object is, (h, w) from 0 to 1; None for a model without a token that
        finds it.
    """

    def __init__(self, trace: Trace, objects: Token | None = None) -> None:
        trace = trace.fine()
        self.grid = trace.grid
        token = objects or object_token(trace.model)
        self.objects = None if token is None else cell_map(trace, (token,))
        self._layers = []
        for layer in trace.layers:
            cells = layer.queries.float().mean(0).transpose(1, 2).flatten(0, 1).cpu()
            cells = functional.normalize(cells - cells.mean(1, keepdim=True), dim=0)
            self._layers.append((layer.grid, cells))

    def alike(
        self,
        inside: NDArray[np.float32],
        outside: NDArray[np.float32] | None = None,
        of: CellMaps | None = None,
    ) -> NDArray[np.float32]:
        """Return how much each cell is like those inside, (h, w).

        It raises `ValueError` if the layers of two pictures differ.

        Parameters
        ----------
        inside, outside
            Weights (h, w) of cells from 0; what is outside counts against.
        of
            The picture of the same model whose cells these are; by default this one.
        """
        total = torch.zeros(1, 1, *self.grid)
        theirs = (of or self)._layers
        if [len(cells) for _, cells in theirs] != [len(c) for _, c in self._layers]:
            raise ValueError("the traces are of different models, or other layers")
        for (grid, cells), (at, known) in zip(self._layers, theirs, strict=True):
            wanted = functional.normalize(
                _mean(known, at, inside)
                - (0 if outside is None else _mean(known, at, outside)),
                dim=0,
            )
            found = (wanted @ cells).unflatten(0, grid)[None, None]
            total += functional.interpolate(
                found, self.grid, mode="bilinear", align_corners=False
            )
        total /= len(self._layers)
        result: NDArray[np.float32] = total[0, 0].numpy()
        return result


def cell_map(trace: Trace, tokens: Sequence[Token]) -> NDArray[np.float32]:
    """Return `joint_map` on the largest of the fine grids, (h, w)."""
    fine = trace.fine()
    return joint_map(replace(fine, image_size=fine.grid), tokens)


@lru_cache(maxsize=1)
def _shipped() -> Token:
    return load_token(Path(__file__).parents[1] / "tiny" / "object.safetensors")


def object_token(model: str) -> Token | None:
    """Return the token that finds any object, if one is known of a text encoder.

    Parameters
    ----------
    model
        The hash of its weights, as in `Trace`. The embedded model's token was
        optimized on 24 scenes, one of each of its classes (`benchmarks/clicks`).
    """
    token = _shipped()
    return token if model and token.model == model else None


def _mean(
    cells: torch.Tensor, grid: tuple[int, int], weights: NDArray[np.float32]
) -> torch.Tensor:
    found = functional.adaptive_avg_pool2d(torch.from_numpy(weights)[None], grid)
    share = found.flatten() / found.sum().clamp_min(1e-9)
    return cells @ share
