"""How much a model is: its weights and attention layers, from headers and configs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ovam.attention.shown_calls import MEMORY
from napari_ovam.attention.trace import block_of, choose_layers, fine_layers
from napari_ovam.attention.trace_settings import TraceSettings, quarter_calls
from napari_ovam.diffusion.architectures import find_architecture
from napari_ovam.diffusion.architectures.joint import JointArchitecture
from napari_ovam.hub.files import (
    DEFAULTS_FILE,
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

    from napari_ovam.diffusion.architectures.base import Architecture

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
    frames: int = 1  # that the denoiser sees at a time, of a video
    heads: int = 8  # of the finest attention layer, at most
    # Blocks with joint attention and the size of their tokens, each of 2x2 latents.
    joint: tuple[int, int] = (0, 0)
    # The names of two components.
    denoiser: str = "unet"
    decoder: str = "vae"

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
        vae = read_json(folder / architecture.autoencoder / "config.json")
        channels = _vae_channels(vae)
        factor, together = _compression(vae, len(channels))
        is_joint = isinstance(architecture, JointArchitecture)
        side = unet.get("sample_size") or (1024 // factor if is_joint else 64)
        sides = [side, side] if isinstance(side, int) else side
        size = architecture.default_size or [s * factor for s in sides]
        own = folder / DEFAULTS_FILE
        chosen = read_json(own) if own.is_file() else {}
        return cls(
            parameters={name: _count(s) for name, s in shapes.items() if s},
            attention={
                name: sizes
                for name, sizes in _attention(
                    architecture,
                    {} if is_joint else shapes[architecture.part],
                    _level_of_block(unet),
                )
                if _is_cross(name) or not _reads_text_only(unet, name)
            },
            unet_channels=_inner(unet) // 4 if is_joint else _channels(unet),
            vae_channels=channels[min(1, len(channels) - 1)],
            factor=factor,
            tile=int(vae.get("sample_size") or 512),
            upcast=architecture.upcasts_vae and bool(vae.get("force_upcast", True)),
            size=(chosen.get("height", size[0]), chosen.get("width", size[1])),
            steps=chosen.get("steps", architecture.steps),
            frames=1 + max(0, architecture.length - 1) // together,
            joint=_joint(architecture, shapes, unet) if is_joint else (0, 0),
            denoiser=architecture.part,
            decoder=architecture.autoencoder,
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
                _attention(
                    architecture,
                    renamed,
                    lambda _, inner: (inner // first).bit_length() - 1,
                )
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
        """Return the size of what is recorded of one image, queries and key weights.

        Of joint attention, what is held once a phrase is mapped: queries, keys and
        values of all blocks, up to the limit.
        """
        item = item if trace.dtype is None else trace.dtype.itemsize
        if trace.calls == "quarters":
            calls = len(quarter_calls(steps))
        else:
            calls = steps if trace.calls is None else len(trace.calls)
        if self.joint[0]:
            count, inner = self.joint
            return min(calls * count * 3 * rows * columns // 4 * inner * item, MEMORY)
        kinds = {
            name: sizes
            for name, sizes in self.attention.items()
            if trace.middle or not name.startswith("mid_block")
        }
        grids = {
            name: self._cells(rows, columns, level)
            for name, (level, _, _) in kinds.items()
            if _is_cross(name)
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
                values += self.frames * calls * h * w * inner + keys
            elif trace.self_attention and not _is_cross(name):
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


def _is_cross(name: str) -> bool:
    return not name.endswith("attn1")


def _attention(
    architecture: Architecture,
    shapes: Mapping[str, Shape],
    level_of: Callable[[str, int], int],
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    for path, shape in shapes.items():
        name = path.removesuffix(".to_q.weight")
        if name == path or not architecture.attention_names.fullmatch(name):
            continue
        parts = ("to_k.weight", "to_k.bias", "norm_k.weight", "norm_k.bias")
        made = [shapes[f"{name}.{p}"] for p in parts if f"{name}.{p}" in shapes]
        shared = shape[0] // made[0][0]  # heads that have their keys in common
        keys = sum(
            math.prod(each) * (shared if each[0] == made[0][0] else 1) for each in made
        )
        yield name, (level_of(name, shape[0]), shape[0], keys)


def _channels(unet: Mapping[str, Any]) -> int:
    if "block_out_channels" in unet:
        return int(unet["block_out_channels"][0])
    return int(_inner(unet) // _patch(unet) ** 2)


def _patch(unet: Mapping[str, Any]) -> int:
    patch = unet.get("patch_size") or 1
    return int(patch if isinstance(patch, int) else patch[-1])


def _vae_channels(vae: Mapping[str, Any]) -> list[int]:
    if "dim_mult" in vae:  # Wan's
        return [vae["base_dim"] * times for times in vae["dim_mult"]]
    names = ("block_out_channels", "encoder_block_out_channels")
    return next((vae[name] for name in names if vae.get(name)), [128, 256])


def _compression(vae: Mapping[str, Any], levels: int) -> tuple[int, int]:
    """Return the pixels along a latent cell, and the frames that it stands for."""
    if scaling := vae.get("spatio_temporal_scaling"):  # LTX's
        times = 2 ** sum(scaling)
        return vae["patch_size"] * times, vae["patch_size_t"] * times
    spatial = vae.get("scale_factor_spatial") or 2 ** (levels - 1)
    return spatial, vae.get("scale_factor_temporal") or 1


def _inner(unet: Mapping[str, Any]) -> int:
    """Return the size of a transformer's tokens."""
    heads = unet.get("num_attention_heads", 16) * unet.get("attention_head_dim", 72)
    return int(unet.get("hidden_size") or unet.get("dim") or heads)


def _joint(
    architecture: Architecture,
    shapes: Mapping[str, Mapping[str, Shape]],
    unet: Mapping[str, Any],
) -> tuple[int, int]:
    """Return the blocks with joint attention, and the size of their tokens."""
    paths = (name.split(".") for name in shapes[architecture.part])
    blocks = {tuple(path[:2]) for path in paths if path[0] in architecture.blocks}
    return len(blocks), _inner(unet)


def _level_of_block(unet: Mapping[str, Any]) -> Callable[[str, int], int]:
    levels = len(unet.get("block_out_channels", (0,) * 4))

    def level(name: str, _inner: int) -> int:
        block, number = name.split(".")[:2]
        if "block_out_channels" not in unet:  # a transformer
            return int(math.log2(_patch(unet)))
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
