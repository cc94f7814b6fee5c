"""Traces with the real shapes of large models, filled with random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from napari_ovam import LayerTrace, Trace

SIDE_OF_A_CELL = 8  # pixels, of the finest grid


@dataclass(frozen=True)
class Shape:
    """The cross-attention of a model, down and up blocks.

    `layers` holds (part of the name, grid side as a divisor of the finest, heads,
    head_dim, how many).
    """

    name: str
    side: int  # pixels of its own image size
    calls: int
    text_dim: int
    layers: tuple[tuple[str, int, int, int, int], ...]

    def grids(self, side: int | None = None) -> list[tuple[str, int, int, int]]:
        """Return (name, grid side, heads, head_dim) of each layer."""
        finest = (side or self.side) // SIDE_OF_A_CELL
        return [
            (
                f"{block}.attentions.{number}.transformer_blocks.0.attn2",
                finest // divisor,
                heads,
                dim,
            )
            for block, divisor, heads, dim, count in self.layers
            for number in range(count)
        ]

    def values_a_call(self, side: int | None = None) -> int:
        return sum(g * g * heads * dim for _, g, heads, dim in self.grids(side))

    def trace(
        self,
        calls: int | None = None,
        *,
        side: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        fine: bool = False,
    ) -> Trace:
        """Return a random trace: queries of variance 1, keys of variance 1."""
        generator = torch.Generator(device).manual_seed(0)
        calls = calls or self.calls

        def numbers(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        layers = []
        for name, grid, heads, dim in self.grids(side):
            if fine and not (name.startswith("up_") and grid >= 16):
                continue
            queries = torch.empty(
                calls, heads, grid * grid, dim, dtype=dtype, device=device
            )
            for call in range(calls):  # one at a time: float16 needs no float32 whole
                queries[call] = numbers(heads, grid * grid, dim)
            weight = numbers(heads * dim, self.text_dim) / self.text_dim**0.5
            layers.append(
                LayerTrace(name, (grid, grid), queries, weight.to(dtype), dim**-0.5)
            )
        pixels = side or self.side
        return Trace(tuple(layers), (pixels, pixels), "", "uncond")

    def phrase(self, rows: int = 3, device: str = "cpu") -> torch.Tensor:
        """Return what stands for an encoded phrase: start, pieces, end."""
        generator = torch.Generator().manual_seed(rows)
        return torch.randn(rows, self.text_dim, generator=generator).to(device)


SD15 = Shape(
    "SD 1.5, 512×512",
    512,
    31,
    768,
    (
        ("down_blocks.0", 1, 8, 40, 2),
        ("down_blocks.1", 2, 8, 80, 2),
        ("down_blocks.2", 4, 8, 160, 2),
        ("up_blocks.1", 4, 8, 160, 3),
        ("up_blocks.2", 2, 8, 80, 3),
        ("up_blocks.3", 1, 8, 40, 3),
    ),
)
# Two transformers of 2 and of 10 blocks down, three of 10 and of 2 up.
SDXL = Shape(
    "SDXL, 1024×1024",
    1024,
    50,
    2048,
    (
        ("down_blocks.1", 2, 10, 64, 4),
        ("down_blocks.2", 4, 20, 64, 20),
        ("up_blocks.0", 4, 20, 64, 30),
        ("up_blocks.1", 2, 10, 64, 6),
    ),
)
SHAPES = {"sd15": SD15, "sdxl": SDXL}
