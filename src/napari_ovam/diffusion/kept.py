"""What is kept of a run while it is recorded, and the traces that are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.attention.trace import (
    Branch,
    Calls,
    Layers,
    LayerTrace,
    SelfTrace,
    Trace,
    block_of,
    choose_layers,
    fine_layers,
)
from napari_ovam.diffusion.architectures.attention_layers import (
    AttentionLayer,
    check_range,
)
from napari_ovam.diffusion.calls import Run, choose_quarters, planned_calls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ovam.attention.shown_calls import Meeting


@dataclass(frozen=True)
class Wanted:
    """What is to be kept of every run; see `record`."""

    branch: Branch
    layers: tuple[str | int, ...] | Layers | None
    calls: tuple[int, ...] | Calls | None
    found: tuple[AttentionLayer, ...]
    meeting: Meeting | None = None

    def __post_init__(self) -> None:
        for what in ("calls", "layers"):
            if getattr(self, what) == ():
                raise ValueError(f"{what} is empty: name at least one, or give None")
        names = self.names
        for name in () if self.layers == "fine" else self.layers or ():
            if isinstance(name, str) and name not in names:
                raise ValueError(
                    f"there is no layer {name!r} to record: give names of {names}, or "
                    "middle=True for the middle block"
                )

    @property
    def names(self) -> list[str]:
        """Names of all cross-attention layers that were found."""
        return [la.name for la in self.found if not la.is_self]

    @property
    def held(self) -> int:
        """How many of the last calls are held: which they are is known at the end."""
        calls = () if self.calls == "quarters" else self.calls or ()
        return max([-call for call in calls if call < 0], default=0)

    def choose_layers(self, grids: dict[str, tuple[int, int]]) -> list[AttentionLayer]:
        """Return the layers to be kept, of those whose grids are known.

        Self-attention is kept in the transformer blocks of the kept cross-attention.
        """
        own = {la.name: grids[la.name] for la in self.found if not la.is_self}
        if self.layers == "fine":
            names = fine_layers(own)
        else:
            names = choose_layers(self.layers, own) if self.layers else set(own)
        blocks = {block_of(name) for name in names}
        return [la for la in self.found if block_of(la.name) in blocks]


@dataclass
class Kept:
    """What is kept of one run.

    `stored[layer, part]` maps the number of a denoising call to a tensor (images,
    heads, cells, head_dim); `keys` has, by layer, the arguments of `LayerTrace` that
    say how it makes keys of a text.
    """

    run: Run
    wanted: Wanted
    planned: tuple[int, ...] | None = None  # calls; None for all
    calls: list[int] = field(default_factory=list)
    layers: list[AttentionLayer] = field(default_factory=list)  # after the first call
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)  # of tapped layers
    shape: tuple[int, int, int] = (1, 1, 1)  # of the latents: frames, h, w
    stored: dict[tuple[str, str], dict[int, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        calls = self.wanted.calls
        self.planned = planned_calls(self.run.totals) if calls == "quarters" else calls
        if calls != "quarters" and self.run.totals:
            self._check_calls(max(self.run.totals))

    @property
    def names(self) -> set[str]:
        """Names of the layers that are kept, once the grids of all are known."""
        return {layer.name for layer in self.layers}

    def begin_call(self, *, again: bool) -> list[int] | None:
        """Return the rows of the batch to keep of the call that begins, if any."""
        call, last = self.run.count - 1, self.run.last
        is_planned = self.planned is None or call in self.planned
        if not (is_planned or self.wanted.held):
            return None
        rows = last.cond
        if last.uncond or again:
            rows = last.uncond if self.wanted.branch == "uncond" else last.cond
        if rows and again:
            self._drop(call)  # the other text's
        if rows:
            self.calls.append(call)
        self._forget()
        return rows or None

    def store(
        self,
        layer: AttentionLayer,
        part: str,
        by_head: Tensor,
        rows: list[int],
        dtype: torch.dtype | None,
    ) -> None:
        """Keep rows of queries or keys (batch, heads, cells, head_dim) of this call."""
        frames, (height, width) = self.shape[0], self.grids[layer.name]
        batch, cells = len(self.run.last.sample), frames * height * width
        if (by_head.shape[0], by_head.shape[2]) != (batch, cells):
            raise ValueError(
                f"{layer.name}.{part} works on {by_head.shape[0]}, {by_head.shape[2]} "
                f"(batch, cells) where ({batch}, {cells}) are wanted (tokens that are "
                "merged, a batch in pieces?): switch that off while recording"
            )
        # A copy of these rows only: a view would keep the whole batch in memory.
        first, last = rows[0], rows[-1]
        at = slice(first, last + 1) if last - first < len(rows) else rows
        tensor = by_head.detach()[at].to(
            dtype or by_head.dtype,
            copy=True,
            memory_format=torch.contiguous_format,
        )
        found = self.stored.setdefault((layer.name, part), {})
        if self.run.count - 1 in found:
            raise ValueError(
                f"{layer.name}.{part} runs several times a call (a processor "
                "that works in pieces?): take the ordinary one while recording"
            )
        found[self.run.count - 1] = tensor

    def note_grid(self, names: list[str], grid: tuple[int, int]) -> None:
        """Note the grid of layers, which has to stay as it is."""
        for name in names:
            before = self.grids.setdefault(name, grid)
            earlier = [c for k, s in self.stored.items() if k[0] == name for c in s]
            if before != grid and earlier:
                raise ValueError(
                    f"{name} sees {before[0]}x{before[1]} cells in call {earlier[0]} "
                    f"and {grid[0]}x{grid[1]} in call {self.run.count - 1} (something "
                    "shrinks its input, such as deep shrink): switch that off, or "
                    "record calls of one kind (calls=...)"
                )
            self.grids[name] = grid

    def end_call(self) -> None:
        """Check that the present call was kept whole, and choose the layers."""
        call = self.run.count - 1
        if not self.layers:
            if all(la.name in self.grids for la in self.wanted.found):
                # So that a wrong one is known before the last step.
                self.layers = self.wanted.choose_layers(self.grids)
            names = {la.name for la in self.layers or self.wanted.found}
            self.stored = {k: v for k, v in self.stored.items() if k[0] in names}
        if call not in self.calls:
            return
        for layer in self.layers or self.wanted.found:
            for part in layer.parts:
                if call not in self.stored.get((layer.name, part), ()):
                    raise ValueError(
                        f"{layer.name}.{part} did not run in call {call}: something "
                        "skips or replaces it (blocks that are cached, as DeepCache "
                        "does; a compiled or exported model; another processor). "
                        "Switch that off while recording, or record calls that run "
                        "all of it (calls=...)"
                    )
            if not layer.is_self and layer.name not in self.keys:
                raise ValueError(
                    f"{layer.name} reads the text otherwise than by its to_k (its "
                    f"processor is {type(layer.attention.processor).__name__}): this "
                    "cannot be recorded"
                )

    def make_traces(self, model: str, frames: int, pixels: int) -> Iterator[Trace]:
        """Make a trace an image; what was stored is given up layer by layer.

        Of a video one a frame: of `frames` that are one to the model, the first one
        alone, the same.

        Parameters
        ----------
        model
            The text encoder's hash.
        frames, pixels
            What a latent cell stands for.
        """
        calls = self._choose_calls()
        images, (count, height, width) = self.run.images, self.shape
        layers: list[list[LayerTrace]] = [[] for _ in range(images * count)]
        self_layers: list[list[SelfTrace]] = [[] for _ in range(images * count)]
        for layer in self.layers:
            stored = [self.stored.pop((layer.name, part)) for part in layer.parts]
            name, grid = layer.name, self.grids[layer.name]
            scale = self.scales.get(name) or float(layer.attention.scale)
            for image in range(images):
                parts = [torch.stack([s[c][image] for c in calls]) for s in stored]
                for part in parts:
                    check_range(name, part)
                if layer.is_self:
                    self_layers[image * count].append(
                        SelfTrace(name, grid, parts[0], parts[1], scale)
                    )
                    continue
                for frame, queries in enumerate(parts[0].chunk(count, 2)):
                    keys = self.keys[name]
                    layers[image * count + frame].append(
                        LayerTrace(name, grid, queries, scale=scale, **keys)
                    )
        for place in range(images * count):
            trace = Trace(
                layers=tuple(layers[place]),
                image_size=(height * pixels, width * pixels),
                model=model,
                branch=self.wanted.branch if self.run.guided else "cond",
                calls=tuple(calls),
                self_layers=tuple(self_layers[place]),
            )
            yield from repeat(trace, frames if place % count else 1)

    def _choose_calls(self) -> list[int]:
        asked, count = self.wanted.calls, self.run.count
        if self.run.guided and self.wanted.branch == "uncond":
            self.calls = [call for call in self.calls if call not in self.run.alone]
        if asked == "quarters":
            calls = choose_quarters(self.run, self.calls)
        else:
            self._check_calls(count)
            places = {call % count for call in asked or range(count)}
            calls = [call for call in self.calls if call in places]
        if calls:
            return calls
        if (self.run.guided and self.run.alone) or not self.run.totals:
            raise ValueError(
                f"none of the calls {asked} had the branch 'uncond': guidance was off "
                "by then; record 'cond'"
            )
        raise ValueError(
            f"the pipeline was stopped after {count} of {max(self.run.totals)} calls, "
            f"before call {min(self.planned or (0,))}, the first that was to be kept: "
            "record with calls=None to keep what comes"
        )

    def _check_calls(self, total: int) -> None:
        for call in self.planned or ():
            if not -total <= call < total:
                raise ValueError(
                    f"call {call} is to be recorded and the pipeline makes {total}, "
                    f"numbered 0 to {total - 1}"
                )

    def _drop(self, call: int) -> None:
        if call in self.calls:
            self.calls.remove(call)
        for tensors in self.stored.values():
            tensors.pop(call, None)

    def _forget(self) -> None:
        """Drop the calls that are neither wanted nor among the last to be held."""
        if self.wanted.held:
            oldest = self.run.count - self.wanted.held
            for call in [c for c in self.calls if c < oldest]:
                if call not in (self.planned or ()):
                    self._drop(call)
