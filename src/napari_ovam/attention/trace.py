"""Traces: what the cross-attention of a model asked while it made an image.

One trace, recorded once, answers many questions (`napari_ovam.attention.maps`)
without the pipeline that it came from.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_ovam.attention.layer_traces import AnyLayer
from napari_ovam.attention.layer_traces import LayerTrace as LayerTrace
from napari_ovam.attention.layer_traces import ModelMismatchError as ModelMismatchError
from napari_ovam.attention.layer_traces import SelfTrace as SelfTrace
from napari_ovam.attention.layer_traces import TraceError as TraceError
from napari_ovam.attention.layer_traces import block_of as block_of
from napari_ovam.attention.layer_traces import recorded as recorded
from napari_ovam.attention.layer_traces import tensors_of as tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch
    from torch import Tensor

    from napari_ovam.attention.shown_calls import Meeting
    from napari_ovam.attention.streams import TextStream

Branch = Literal["uncond", "cond"]
# What is kept by default, by a word as it depends on the model: see `TraceSettings`.
Layers = Literal["fine"]
Calls = Literal["quarters"]

_FINE = 4  # as coarse as a UNet's grids go in its up blocks, against its finest


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything recorded while a model made, or looked at, one image.

    Attributes
    ----------
    layers
        At least one cross-attention layer.
    image_size
        (H, W) in pixels.
    model
        The hash of the text encoder's weights: which tokens fit; "" if unknown.
    branch
        Which half of the guidance batch was kept; "cond" where there was no guidance.
    calls
        The numbers of the denoising calls that were kept, ascending, from 0. Left
        empty, the calls are numbered as they come.
    self_layers
        Self-attention layers, if they were recorded.
    stream
        Where the keys of a text come from in models whose text changes with every
        layer; None where the layers' fixed weights make them.

    Raises
    ------
    TraceError
        If the parts contradict each other.
    """

    layers: tuple[LayerTrace, ...]
    image_size: tuple[int, int]
    model: str
    branch: Branch
    calls: tuple[int, ...] = ()
    self_layers: tuple[SelfTrace, ...] = ()
    stream: TextStream | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise TraceError("a trace needs at least one layer, and layers is empty")
        check_branch(self.branch)
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise TraceError(
                f"image_size is {self.image_size!r}: give (height, width) in pixels"
            )
        names = [layer.name for layer in self.all_layers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise TraceError(f"a trace holds {sorted(twice)[0]} more than once")
        weights = {la.name: la.key_weight for la in self.layers}
        if self.stream is None and None in weights.values():
            raise TraceError(f"the keys of {names[0]} have neither weight nor stream")
        dims = {weight.shape[1] for weight in weights.values() if weight is not None}
        if len(dims) > 1:
            raise TraceError(f"the layers read texts of different sizes {sorted(dims)}")
        if not self.calls:
            count = self.layers[0].shape[0]
            object.__setattr__(self, "calls", tuple(range(count)))
        for layer in self.all_layers:
            if (count := layer.shape[0]) != len(self.calls):
                raise TraceError(
                    f"layer {layer.name} holds {count} denoising calls and calls "
                    f"numbers {len(self.calls)}: {self.calls}"
                )

    @property
    def all_layers(self) -> list[LayerTrace | SelfTrace]:
        """The layers, then the self-attention layers."""
        return [*self.layers, *self.self_layers]

    @property
    def text_dim(self) -> int:
        """Size of the text embeddings that the layers read."""
        if self.stream is not None:
            return self.stream.text_dim
        return int(getattr(self.layers[0].key_weight, "shape", (0, 0))[1])

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        if self.stream is not None:
            return self.stream.device
        return self.layers[0].queries.device

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the largest grid: the resolution of the maps."""
        return max((layer.grid for layer in self.layers), key=lambda g: g[0] * g[1])

    @property
    def maps_per_pixel(self) -> int:
        """Sum of calls times heads over the layers: what the maps add up to."""
        return sum(layer.shape[0] * layer.shape[1] for layer in self.layers)

    def keys(
        self, texts: Sequence[Tensor]
    ) -> Iterator[tuple[LayerTrace, list[Tensor]]]:
        """Yield each layer, with its queries at hand, and the keys of texts.

        The one place where keys come from: of the layers' weights, or of the stream.

        Parameters
        ----------
        texts
            Groups of texts of as many rows, (texts, n, text_dim), on the trace's
            device. May be empty, for the queries alone.

        Yields
        ------
        LayerTrace, list of Tensor
            For each group (calls or 1, heads, texts * n, head_dim), times the layer's
            scale. Gradients flow back to the texts.

        Raises
        ------
        ModelMismatchError
            If the model that has to be asked is not at hand, or has changed.
        """
        if self.stream is not None:
            yield from self.stream.keys(texts)
            return
        for layer in self.layers:
            yield layer, [layer.keys(group.flatten(0, 1)) for group in texts]

    def select(
        self,
        *,
        layers: Iterable[str | int] | None = None,
        calls: Iterable[int] | None = None,
    ) -> Trace:
        """Return a part of the trace; the tensors are views where they can be.

        Parameters
        ----------
        layers
            Names of cross-attention layers, and integers, which stand for all layers
            whose grid has that many cells along its longer side. Self-attention
            layers of the same transformer blocks stay. None keeps all.
        calls
            Numbers of denoising calls, as in `calls` of the trace; negative ones
            count from the last that it holds. None keeps all.

        Raises
        ------
        ValueError
            If the trace holds no such layer or call.
        """
        chosen = self.layers
        if layers is not None:
            names = choose_layers(layers, {la.name: la.grid for la in self.layers})
            chosen = tuple(layer for layer in self.layers if layer.name in names)
        blocks = {block_of(layer.name) for layer in chosen}
        found = replace(
            self,
            layers=chosen,
            self_layers=tuple(
                la for la in self.self_layers if block_of(la.name) in blocks
            ),
        )
        places = list(range(len(self.calls)))
        if calls is not None:
            places = sorted({self._place_of(operator.index(call)) for call in calls})
            if not places:
                raise ValueError("calls is empty: name at least one, or give None")
        if self.stream is not None:
            stream = self.stream.select({layer.name for layer in chosen}, places)
            kept = tuple(self.calls[place] for place in places)
            return replace(found, layers=stream.layers, stream=stream, calls=kept)
        if len(places) == len(self.calls):
            return found

        def pick(layer: AnyLayer) -> AnyLayer:
            at = _as_slice(places)
            parts: dict[str, Any] = {n: getattr(layer, n)[at] for n in recorded(layer)}
            return replace(layer, **parts)

        return replace(
            found,
            layers=tuple(map(pick, found.layers)),
            self_layers=tuple(map(pick, found.self_layers)),
            calls=tuple(self.calls[place] for place in places),
        )

    def with_meeting(self, meeting: Meeting) -> Trace:
        """Return the trace with another kind of maps, of models with joint attention.

        "keys": queries of the image meet keys of the text; "outputs": what attention
        gives to the one meets what it gives to the other. Other traces have the former
        only.

        Raises
        ------
        TraceError
            If the trace does not have that kind.
        """
        if self.stream is None:
            if meeting != "keys":
                raise TraceError(f"this trace has no maps of {meeting!r}, only 'keys'")
            return self
        stream = replace(self.stream, meeting=meeting)
        return replace(self, layers=stream.layers, stream=stream)

    def fine(self) -> Trace:
        """Return the up blocks' layers, but those coarser than a quarter of the finest.

        Their maps make better masks than those of all layers (docs/quality.md,
        measured on the embedded model). The whole trace where there are none.
        """
        names = fine_layers({layer.name: layer.grid for layer in self.layers})
        return self if len(names) == len(self.layers) else self.select(layers=names)

    def to(
        self, device: torch.device | str | None, dtype: torch.dtype | None = None
    ) -> Trace:
        """Return the trace on a device (None: where it is) and in a dtype."""

        def move(layer: AnyLayer) -> AnyLayer:
            moved: dict[str, Any] = {
                name: tensor.to(device=device, dtype=dtype)
                for name, tensor in tensors_of(layer).items()
            }
            return replace(layer, **moved)

        if self.stream is not None:
            stream = self.stream.to(device, dtype)
            return replace(self, layers=stream.layers, stream=stream)
        return replace(
            self,
            layers=tuple(map(move, self.layers)),
            self_layers=tuple(map(move, self.self_layers)),
        )

    def _place_of(self, call: int) -> int:
        if call in self.calls:
            return self.calls.index(call)
        if -len(self.calls) <= call < 0:
            return len(self.calls) + call
        raise ValueError(f"call {call} is not in the trace, which holds {self.calls}")


def fine_layers(grids: dict[str, tuple[int, int]]) -> set[str]:
    """Return the up blocks' layers, or else all; none coarser than a quarter.

    Of the finest grid, as far as Stable Diffusion 1.5's go (64, 32 and 16 cells).
    """
    least = max(max(grid) for grid in grids.values()) / _FINE
    names = {n for n, g in grids.items() if "up_blocks" in n and max(g) >= least}
    return names or set(grids)


def choose_layers(
    wanted: Iterable[str | int], grids: dict[str, tuple[int, int]]
) -> set[str]:
    """Return the names that are wanted by name or by the longer side of the grid.

    Raises
    ------
    ValueError
        If a wanted name or side does not exist, or nothing is wanted.
    """
    if isinstance(wanted, str):
        raise ValueError(f"layers is {wanted!r}: give a list of names or grid sides")
    names: set[str] = set()
    for item in wanted:
        if isinstance(item, str):
            found = {item} & grids.keys()
        else:
            found = {name for name, grid in grids.items() if max(grid) == item}
        if not found:
            sides = sorted({max(grid) for grid in grids.values()})
            raise ValueError(
                f"there is no layer {item!r}: give grid sides of {sides}, or names of "
                f"{sorted(grids)}"
            )
        names |= found
    if not names:
        raise ValueError("layers is empty: name at least one, or give None for all")
    return names


def _as_slice(places: list[int]) -> slice | list[int]:
    """Return ascending places as a slice where they are neighbours: no copy."""
    first, last = places[0], places[-1]
    return slice(first, last + 1) if last - first + 1 == len(places) else places


def check_branch(branch: object) -> None:
    """Raise TraceError unless a branch is one of the two."""
    if branch not in get_args(Branch):
        raise TraceError(f"branch is {branch!r}: give 'uncond' or 'cond'")
