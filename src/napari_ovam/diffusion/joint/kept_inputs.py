"""What is kept of a run of a model with joint attention: what the model was shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor

from napari_ovam.attention.shown_calls import ShownCalls, join_calls
from napari_ovam.attention.streams import TextStream
from napari_ovam.attention.trace import Trace, choose_layers
from napari_ovam.diffusion.architectures.attention_layers import check_range
from napari_ovam.diffusion.joint.replay import probe_cells
from napari_ovam.diffusion.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ovam.diffusion.architectures.joint import JointArchitecture


@dataclass
class KeptInputs(Kept):
    """What the denoiser of `pipe` was shown in the calls that are kept.

    `inputs` maps the number of a call to the inputs of each image, `probes` to what
    some of their cells became.
    """

    architecture: JointArchitecture = field(kw_only=True)
    pipe: Any = field(kw_only=True)
    dtype: torch.dtype | None = field(kw_only=True)
    inputs: dict[int, list[dict[str, Tensor]]] = field(default_factory=dict)
    probes: dict[int, Tensor] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        """The denoiser."""
        return self.architecture.denoiser(self.pipe)

    def keep_inputs(self, args: Any, kwargs: Any, rows: list[int]) -> None:
        """Keep what is shown in the present call; the grid says which layers."""
        found = self.architecture.inputs(self.model, args, kwargs, rows)
        grid = self.architecture.grid(self.model, found[0])
        if self.grids and grid != next(iter(self.grids.values())):
            raise ValueError(f"the grid changed to {grid[0]}x{grid[1]} cells midway")
        if not self.grids:
            self.grids = dict.fromkeys(self.wanted.names, grid)
            self._choose_layers()
        self.inputs[self.run.count - 1] = [
            {name: self._rounded(name, t) for name, t in image.items()}
            for image in found
        ]

    def keep_probe(self, output: Any, rows: list[int]) -> None:
        """Keep what some cells became behind the last layer in the present call."""
        grid = next(iter(self.grids.values()))
        states = self.architecture.image_states(grid, output)[rows]
        self.probes[self.run.count - 1] = probe_cells(states).float().cpu()

    def _choose_layers(self) -> None:
        wanted, names = self.wanted.layers, self.wanted.names
        if wanted == "fine":
            chosen = set(self.architecture.fine(names))
        else:
            chosen = choose_layers(wanted, self.grids) if wanted else set(names)
        self.layers = [la for la in self.wanted.found if la.name in chosen]

    def _rounded(self, name: str, tensor: Tensor) -> Tensor:
        dtype = self.dtype
        if dtype is None or not self.architecture.is_rounded(name, tensor):
            return tensor
        if tensor.element_size() <= dtype.itemsize:
            return tensor
        rounded = tensor.to(dtype)
        check_range(name, rounded)
        return rounded

    def end_call(self) -> None:
        """Check that the present call was kept whole."""
        call = self.run.count - 1
        if call in self.calls and call not in self.probes:
            raise ValueError(
                f"{self.layers[-1].name} did not run in call {call}: something skips "
                "or replaces it. Switch that off while recording"
            )

    def make_traces(self, model: str, frames: int, pixels: int) -> Iterator[Trace]:
        """Make a trace an image."""
        del frames, pixels
        calls = self._choose_calls()
        heads = self.architecture.heads(self.model)
        specs = tuple((la.name, self.grids[la.name], *heads) for la in self.layers)
        cell = self.architecture.alignment(self.pipe)
        for image in range(self.run.images):
            inputs = [self.inputs[call][image] for call in calls]
            shown = ShownCalls(
                type(self.model).__name__,
                model,
                {name: join_calls([i[name] for i in inputs]) for name in inputs[0]},
                self.layers[-1].name,
                torch.stack([self.probes[call][image] for call in calls]),
            )
            shown.known_model = ref(self.pipe)
            stream = TextStream(
                shown,
                self.architecture.text_dim(self.pipe),
                specs,
                tuple(range(len(calls))),
                meeting=self.wanted.meeting or self.architecture.meeting,
                device=self.model.device,
                dtype=self.dtype or self.model.dtype,
            )
            grid = specs[0][1]
            yield Trace(
                layers=stream.layers,
                image_size=(grid[0] * cell, grid[1] * cell),
                model=model,
                branch=self.wanted.branch if self.run.guided else "cond",
                calls=tuple(calls),
                stream=stream,
            )

    def _drop(self, call: int) -> None:
        super()._drop(call)
        self.inputs.pop(call, None)
        self.probes.pop(call, None)
