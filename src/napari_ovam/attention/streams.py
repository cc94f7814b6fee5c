"""Keys of texts that change in every layer: a text's way through the model, replayed.

In joint attention (Stable Diffusion 3, Flux and their kin) the tokens of image and text
attend to one another, layer after layer, so that no fixed weight makes the keys of a
text. But a text that only looks at the image never changes it: with what each layer
saw of the image, any other text can be sent through the model's text half afterwards.
That is exact, and gradients flow through it (docs/maps.md).

What the layers saw is large. A stream keeps only what the model was shown, a few
megabytes, and has the model show it again when it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from napari_ovam.attention.layer_traces import LayerTrace, TraceError, block_of
from napari_ovam.attention.shown_calls import (
    Block,
    Meeting,
    ShownCalls,
    entry_of,
    join_calls,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_ovam.attention.shown_calls import Replay


@dataclass(frozen=True, eq=False)
class TextStream:
    """Where the keys of a text come from, in a model whose text changes in each layer.

    Attributes
    ----------
    shown
        The calls, and what the model was shown in them.
    text_dim
        Size of a text's rows where they enter the first block.
    specs
        (name, grid, heads, head_dim) of the layers that are asked, in their order.
    places
        Which of the calls are asked.
    mirrored
        Of each of them, whether left and right of the image were exchanged.
    meeting
        What of the image meets what of a text.
    device, dtype
        Where queries and keys are moved to, and in what precision queries are kept.
    """

    shown: ShownCalls
    text_dim: int
    specs: tuple[tuple[str, tuple[int, int], int, int], ...]
    places: tuple[int, ...]
    mirrored: tuple[bool, ...] = ()
    meeting: Meeting = "keys"
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.meeting not in get_args(Meeting):
            raise TraceError(
                f"meeting is {self.meeting!r}: give one of {list(get_args(Meeting))}"
            )
        if not self.mirrored:
            object.__setattr__(self, "mirrored", (False,) * len(self.places))

    @classmethod
    def from_file(
        cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any], blocks: set[str]
    ) -> TextStream:
        """Return a stream of what `tensors` and `about` gave of it, in some blocks."""
        inputs = dict(tensors)
        probe = inputs.pop("probe")
        names = "kind", "model", "last"
        kind, model, last = (str(about[name]) for name in names)
        return cls(
            ShownCalls(kind, model, inputs, last, probe),
            int(about["text_dim"]),
            tuple(
                (str(name), (int(grid[0]), int(grid[1])), int(heads), int(size))
                for name, grid, heads, size in about["specs"]
                if block_of(name) in blocks
            ),
            tuple(range(len(probe))),
            tuple(bool(flip) for flip in about["mirrored"]),
            about["meeting"],
            dtype=getattr(torch, about["dtype"]),
        )

    @property
    def about(self) -> dict[str, Any]:
        """All of it that is no tensor, for a file."""
        return {
            "kind": self.shown.kind,
            "model": self.shown.model,
            "last": self.shown.last,
            "text_dim": self.text_dim,
            "specs": self.specs,
            "mirrored": self.mirrored,
            "meeting": self.meeting,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of its calls, by names."""
        places = list(self.places)
        inputs = {
            name: tensor if len(tensor) == 1 else tensor[places]
            for name, tensor in self.shown.inputs.items()
        }
        return {**inputs, "probe": self.shown.probe[places]}

    @property
    def layers(self) -> tuple[StreamedLayer, ...]:
        """Its layers, whose queries are made when they are asked for."""
        return tuple(StreamedLayer(self, *spec) for spec in self.specs)

    def select(self, layers: set[str], places: Sequence[int]) -> TextStream:
        """Return the stream of layers, by their names, and of the calls at places."""
        return replace(
            self,
            specs=tuple(spec for spec in self.specs if spec[0] in layers),
            places=tuple(self.places[i] for i in places),
            mirrored=tuple(self.mirrored[i] for i in places),
        )

    def to(
        self, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> TextStream:
        """Return the stream with its queries and keys on a device and in a dtype."""
        return replace(
            self, device=torch.device(device or self.device), dtype=dtype or self.dtype
        )

    def keys(
        self, texts: Sequence[Tensor]
    ) -> Iterator[tuple[LayerTrace, list[Tensor]]]:
        """Yield each layer with its queries, and what it meets of each group of texts.

        See `Trace.keys`.
        """
        grad = torch.is_grad_enabled()
        wanted = [name for name, *_ in self.specs]

        def question(replay: Replay) -> list[dict[str, tuple[Tensor, list[Tensor]]]]:
            with replay.running():
                return [
                    self._walk(replay, place, flip, wanted, texts, grad)
                    for place, flip in zip(self.places, self.mirrored, strict=True)
                ]

        calls = self.shown.ask(question)
        for layer in self.layers:
            found = [call.pop(layer.name) for call in calls]
            queries = torch.stack([queries for queries, _ in found])
            groups = zip(*(keys for _, keys in found), strict=True)
            keys = [torch.stack(group) * layer.scale for group in groups]
            yield layer.with_queries(queries), keys

    def _walk(
        self,
        replay: Replay,
        place: int,
        flip: bool,
        wanted: Sequence[str],
        texts: Sequence[Tensor],
        grad: bool,
    ) -> dict[str, tuple[Tensor, list[Tensor]]]:
        """Send groups of texts through one call."""
        found: dict[str, tuple[Tensor, list[Tensor]]] = {}
        states = [replay.place(text) for text in texts]
        grids = {name: grid for name, grid, *_ in self.specs}

        def look(block: Block) -> None:
            if len(found) == len(wanted):
                return
            keys = []
            with torch.set_grad_enabled(grad):
                for i, state in enumerate(states):
                    met, states[i] = replay.advance(block, state, self.meeting)
                    keys.append(met.to(texts[i]))
            if block.name not in grids:
                return
            queries = block.queries.to(self.device, self.dtype)
            if flip:
                by_row = queries.unflatten(1, grids[block.name])
                queries = by_row.flip(2).flatten(1, 2)
            found[block.name] = queries, keys

        self.shown.walk(replay, place, self.meeting, look)
        return found


def join_streams(streams: Sequence[TextStream]) -> TextStream:
    """Return one stream of the calls of several, of one model and one image size."""
    first = streams[0]
    calls = [(s, place) for s in streams for place in s.places]
    inputs = {
        name: join_calls([entry_of(s.shown.inputs[name], place) for s, place in calls])
        for name in first.shown.inputs
    }
    probe = torch.stack([s.shown.probe[place] for s, place in calls])
    about = first.shown.kind, first.shown.model
    shown = ShownCalls(*about, inputs, first.shown.last, probe)
    shown.known_model = first.shown.known_model
    return replace(
        first,
        shown=shown,
        places=tuple(range(len(calls))),
        mirrored=tuple(flip for s in streams for flip in s.mirrored),
    )


class StreamedLayer(LayerTrace):
    """A layer of a stream, whose queries are made when they are asked for."""

    def __init__(
        self,
        stream: TextStream,
        name: str,
        grid: tuple[int, int],
        heads: int,
        head_dim: int,
    ) -> None:
        scale = head_dim**-0.5
        if stream.meeting == "outputs":
            heads, head_dim, scale = 1, heads * head_dim, 1.0
        about = {
            "name": name,
            "grid": grid,
            "key_weight": None,
            "scale": scale,
            "key_bias": None,
            "stream": stream,
            "_shape": (len(stream.places), heads, grid[0] * grid[1], head_dim),
        }
        vars(self).update(about)

    def __repr__(self) -> str:
        return f"StreamedLayer({self.name!r}, grid={self.grid}, shape={self.shape})"

    @property
    def shape(self) -> tuple[int, ...]:
        """(calls, heads, h*w, head_dim) of the queries, without making them."""
        shape: tuple[int, ...] = vars(self)["_shape"]
        return shape

    @property
    def queries(self) -> Tensor:
        """The queries, for which the model is asked."""
        stream: TextStream = vars(self)["stream"]
        alone = stream.select({self.name}, range(len(stream.places)))
        ((layer, _),) = alone.keys([])
        return layer.queries

    def with_queries(self, queries: Tensor) -> LayerTrace:
        """Return the layer with its queries at hand."""
        return LayerTrace(self.name, self.grid, queries, None, self.scale)
