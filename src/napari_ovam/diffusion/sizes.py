"""How much a model is: its weights and attention layers, from headers and configs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ovam.attention.trace import block_of, choose_layers, fine_layers
from napari_ovam.attention.trace_settings import TraceSettings, quarter_calls
from napari_ovam.diffusion.architectures import find_architecture
from napari_ovam.hub.files import (
    LEFT_OUT,
    read_index,
    read_json,
    recognise,
    tensor_shapes,
    weights_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Shape = tuple[int, ...]

# Where a single-file checkpoint keeps the components; the rest is not loaded.
_PARTS = (
    ("model.diffusion_model.", "unet"),
    ("first_stage_model.", "vae"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.embedders.0.", "text_encoder"),
    ("conditioner.embedders.1.", "text_encoder_2"),
)
# Its names of the blocks, and those of diffusers.
_BLOCKS = {
    "input_blocks": "down_blocks",
    "middle_block": "mid_block",
    "output_blocks": "up_blocks",
}
_ATTENTION = re.compile(r"((?:.*\.)?transformer_blocks\.\d+\.attn[12])\.to_q\.weight")


@dataclass(frozen=True)
class ModelSizes:
    """What the headers and configurations of a model say."""

    parameters: Mapping[str, int]  # how many, by component
    # (level, inner size, numbers in its key weights and bias) of each attention layer
    # of the UNet or transformer; a level's grid has half the side of the one before.
    attention: Mapping[str, tuple[int, int, int]]
    # Of the UNet's first map, and of the decoder's widest at full size. For a
    # transformer as many as give its tokens.
    unet_channels: int
    vae_channels: int
    factor: int  # pixels along a latent cell
    tile: int  # side in pixels of the tiles that the decoder can work in
    # Whether the decoder runs in full precision where the rest runs in half.
    upcast: bool
    size: tuple[int, int]  # (H, W) in pixels of images when nothing is said
    steps: int  # denoising steps when nothing is said
    heads: int = 8  # of the finest attention layer, at most

    @classmethod
    def read(cls, path: Path) -> ModelSizes:
        """Read a diffusers folder or a checkpoint; `ModelError` if it is none."""
        return cls._of_folder(path) if path.is_dir() else cls._of_file(path)

    @classmethod
    def _of_folder(cls, folder: Path) -> ModelSizes:
        index = read_index(folder)
        shapes = {
            name: _merged(folder / name)
            for name, part in index.items()
            if isinstance(part, list) and part[0] and name not in LEFT_OUT
        }
        architecture = find_architecture(index["_class_name"])
        unet = read_json(folder / architecture.part / "config.json")
        vae = read_json(folder / "vae" / "config.json")
        channels = vae.get("block_out_channels") or [128, 256]
        factor = 2 ** (len(channels) - 1)
        side = unet.get("sample_size") or 64
        size = [s * factor for s in ([side, side] if isinstance(side, int) else side)]
        own = folder / "ovam_defaults.json"
        chosen = read_json(own) if own.is_file() else {}
        return cls(
            parameters={name: _count(s) for name, s in shapes.items() if s},
            attention={
                name: sizes
                for name, sizes in _attention(
                    shapes[architecture.part], _level_of_block(unet)
                )
                if name.endswith("attn2") or not _reads_text_only(unet, name)
            },
            unet_channels=_channels(unet),
            vae_channels=channels[min(1, len(channels) - 1)],
            factor=factor,
            tile=int(vae.get("sample_size") or 512),
            upcast=architecture.upcasts_vae and bool(vae.get("force_upcast", True)),
            size=(chosen.get("height", size[0]), chosen.get("width", size[1])),
            steps=chosen.get("steps", architecture.steps),
        )

    @classmethod
    def _of_file(cls, path: Path) -> ModelSizes:
        architecture = find_architecture(recognise(path).pipeline)
        parts: dict[str, dict[str, Shape]] = {}
        for name, shape in tensor_shapes(path).items():
            for prefix, part in _PARTS:
                if name.startswith(prefix):
                    parts.setdefault(part, {})[name.removeprefix(prefix)] = shape
        first = parts["unet"]["input_blocks.0.0.weight"][0]
        is_xl = "text_encoder_2" in parts
        renamed = {
            re.sub(r"^\w+", lambda m: _BLOCKS.get(m[0], m[0]), name): shape
            for name, shape in parts["unet"].items()
        }
        return cls(
            parameters={name: _count(shapes) for name, shapes in parts.items()},
            attention=dict(
                _attention(renamed, lambda _, inner: (inner // first).bit_length() - 1)
            ),
            unet_channels=first,
            vae_channels=2 * parts["vae"]["decoder.conv_out.weight"][1],
            factor=8,
            tile=1024 if is_xl else 512,
            upcast=architecture.upcasts_vae,
            size=(1024, 1024) if is_xl else (512, 512),
            steps=architecture.steps,
        )

    def _cells(self, rows: int, columns: int, level: int) -> tuple[int, int]:
        for _ in range(level):
            rows, columns = math.ceil(rows / 2), math.ceil(columns / 2)
        return rows, columns

    def scores(self, rows: int, columns: int) -> int:
        """Return the values of the largest attention scores, for one image."""
        levels = [level for level, _, _ in self.attention.values()]
        h, w = self._cells(rows, columns, min(levels, default=0))
        return self.heads * (h * w) ** 2

    def trace_bytes(
        self, rows: int, columns: int, steps: int, trace: TraceSettings, item: int
    ) -> int:
        """Return the size of what is recorded of one image, queries and key weights."""
        item = item if trace.dtype is None else trace.dtype.itemsize
        if trace.calls == "quarters":
            calls = len(quarter_calls(steps))
        else:
            calls = steps if trace.calls is None else len(trace.calls)
        kinds = {
            name: sizes
            for name, sizes in self.attention.items()
            if trace.middle or not name.startswith("mid_block")
        }
        grids = {
            name: self._cells(rows, columns, level)
            for name, (level, _, _) in kinds.items()
            if name.endswith("attn2")
        }
        if trace.layers == "fine":
            names = fine_layers(grids)
        else:
            names = choose_layers(trace.layers, grids) if trace.layers else set(grids)
        blocks = {block_of(name) for name in names}
        values = 0
        for name, (level, inner, keys) in kinds.items():
            if block_of(name) not in blocks:
                continue
            h, w = self._cells(rows, columns, level)
            if name in names:
                values += calls * h * w * inner + keys
            elif trace.self_attention and name.endswith("attn1"):
                values += 2 * calls * h * w * inner
        return values * item


def _merged(folder: Path) -> dict[str, Shape]:
    """Return the shapes in a component, each tensor once, not once a variant."""
    merged: dict[str, Shape] = {}
    for path in weights_of(folder):
        merged.update(tensor_shapes(path))
    return merged


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _attention(
    shapes: Mapping[str, Shape], level_of: Callable[[str, int], int]
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    for name, shape in shapes.items():
        if found := _ATTENTION.fullmatch(name):
            bias = shapes.get(f"{found[1]}.to_k.bias", (0,))
            keys = math.prod(shapes[f"{found[1]}.to_k.weight"]) + bias[0]
            yield found[1], (level_of(name, shape[0]), shape[0], keys)


def _channels(unet: Mapping[str, Any]) -> int:
    if "block_out_channels" in unet:
        return int(unet["block_out_channels"][0])
    inner = unet.get("num_attention_heads", 16) * unet.get("attention_head_dim", 72)
    return int(inner // (unet.get("patch_size") or 1) ** 2)


def _level_of_block(unet: Mapping[str, Any]) -> Callable[[str, int], int]:
    levels = len(unet.get("block_out_channels", (0,) * 4))

    def level(name: str, _inner: int) -> int:
        block, number = name.split(".")[:2]
        if block == "transformer_blocks":
            return int(math.log2(unet.get("patch_size") or 1))
        if block == "down_blocks":
            return int(number)
        return levels - 1 - int(number) if block == "up_blocks" else levels - 1

    return level


def _reads_text_only(unet: Mapping[str, Any], name: str) -> bool:
    """Tell whether a block's first attention reads the text too, not the image."""
    only = unet.get("only_cross_attention") or False
    if "block_out_channels" not in unet:  # a transformer
        return False
    block, number = name.split(".")[:2]
    if block == "mid_block":
        mid = unet.get("mid_block_only_cross_attention")
        return bool(only if mid is None and isinstance(only, bool) else mid)
    if isinstance(only, bool):
        return only
    return bool(
        only[int(number)] if block == "down_blocks" else only[::-1][int(number)]
    )
