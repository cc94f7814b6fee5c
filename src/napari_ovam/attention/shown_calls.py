"""What a model was shown, and can be shown again, by the model that is at hand.

See `napari_ovam.attention.streams`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from napari_ovam.attention.layer_traces import ModelMismatchError, TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

# Which of the image's vectors meet which of the text's: queries meet keys, as in models
# with fixed keys, or outputs of the attention meet one another (ConceptAttention,
# Helbling et al., ICML 2025, arXiv 2502.04320).
Meeting = Literal["keys", "outputs"]

# Bytes that are held of what models saw, of all streams together. What is beyond is
# shown again for each question.
MEMORY = 4 * 2**30


@dataclass(frozen=True, eq=False)
class Block:
    """What the joint attention of one block saw of the image in one call.

    `queries` (heads, cells, dim) are what meets a text; `keys` and `values` (1, heads,
    cells, head_dim), behind norms and RoPE, are what a text attends to; `arguments` is
    what else the block was given.
    """

    name: str
    grid: tuple[int, int]
    queries: Tensor
    keys: Tensor
    values: Tensor
    arguments: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of its large tensors."""
        return self.queries.nbytes + self.keys.nbytes + self.values.nbytes


class Replay(Protocol):
    """A loaded model, which can be shown a call again and send texts through it."""

    @property
    def kind(self) -> str:
        """The class of its denoiser."""

    def known_pipe(self) -> Any:
        """Return its pipeline, None once that is gone."""

    def text_encoder(self) -> str:
        """Return the hash of the weights that make the rows of a text."""

    def state(self) -> object:
        """Return what is another one once weights or adapters were changed."""

    def running(self) -> AbstractContextManager[None]:
        """Return a context in which it can be asked, and which leaves no trace."""

    def show(
        self,
        inputs: Mapping[str, Tensor],
        last: str,
        meeting: Meeting,
        look: Callable[[Block], None],
    ) -> Tensor:
        """Show a call again, up to the block `last`.

        `look` is given each block. Returns the probe, (cells, dim).
        """

    def advance(
        self, block: Block, texts: Tensor, meeting: Meeting
    ) -> tuple[Tensor, Tensor]:
        """Send texts (P, n, dim) through a block.

        Returns what of them meets the image, (heads, P * n, d), and the texts behind.
        """

    def place(self, texts: Tensor) -> Tensor:
        """Return texts where the model is and in its precision, checked."""


# The models at hand, and what makes their replay.
_models: WeakKeyDictionary[Any, Callable[[Any], Replay]] = WeakKeyDictionary()


def offer_model(pipe: Any, make: Callable[[Any], Replay]) -> None:
    """Note a pipeline that traces may ask, for as long as it lives."""
    _models[pipe] = make


class _Held:
    """Blocks that are held, those asked longest ago given up first."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[int, int, str], list[Block]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int, str]) -> list[Block] | None:
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, key: tuple[int, int, str], blocks: list[Block]) -> None:
        with self._lock:
            self._blocks[key] = blocks
            while _bytes(*self._blocks.values()) > MEMORY:
                self._blocks.popitem(last=False)

    def drop(self, owner: int) -> None:
        with self._lock:
            for key in [key for key in self._blocks if key[0] == owner]:
                del self._blocks[key]


def _bytes(*held: Sequence[Block]) -> int:
    return sum(block.nbytes for blocks in held for block in blocks)


_held = _Held()


class ShownCalls:
    """What a model was shown in some calls, and can be shown again.

    Parameters
    ----------
    kind
        The class of the denoiser.
    model
        The hash of the weights that make the rows of a text, as in `Trace`.
    inputs
        Tensors by names, with one entry a call or one for all.
    last
        The last block that is asked.
    probe
        (calls, cells, dim), what some cells had become behind it: by that the model
        is known again.
    """

    def __init__(
        self,
        kind: str,
        model: str,
        inputs: Mapping[str, Tensor],
        last: str,
        probe: Tensor,
    ) -> None:
        self.kind, self.model, self.last = kind, model, last
        self.inputs, self.probe = dict(inputs), probe
        for name, tensor in self.inputs.items():
            if len(tensor) not in (1, len(probe)):
                raise TraceError(
                    f"{name} of the stream holds {len(tensor)} calls, not {len(probe)}"
                )
        # Returns the pipeline that answered last, None where it is gone.
        self.known_model: Callable[[], Any] = lambda: None
        self._state: object = None  # of the model whose blocks are held

    def __del__(self) -> None:
        _held.drop(id(self))

    def ask(self, question: Callable[[Replay], Any]) -> Any:
        """Return the answer of the model of these calls, as it is now.

        It raises `ModelMismatchError` if it is not at hand, or has changed.
        """
        # The one that was recorded first, others of the same weights after it.
        pipes = sorted(_models, key=lambda pipe: pipe is not self.known_model())
        replays = [r for r in (_models[p](p) for p in pipes) if r.kind == self.kind]
        fitting = [r for r in replays if r.text_encoder() == self.model]
        error = ModelMismatchError(
            f"the model that this trace was recorded with ({self.kind}, text encoder "
            f"{self.model or 'unknown'}) is not at hand, and makes the keys of a text: "
            "load it first (load_pipeline)"
        )
        for replay in fitting:
            try:
                return question(replay)
            except ModelMismatchError as refused:
                error = refused
        raise error

    def walk(
        self, replay: Replay, call: int, meeting: Meeting, look: Callable[[Block], None]
    ) -> None:
        """Give `look` each block of a call: those that are held, or shown again."""
        state = replay.state()
        if state != self._state:
            _held.drop(id(self))
        self._state = state
        key = id(self), call, meeting
        held = _held.get(key)
        if held is not None:
            for block in held:
                look(block)
            return
        blocks: list[Block] | None = []

        def keep(block: Block) -> None:
            nonlocal blocks
            if blocks is not None:
                blocks.append(block)
                if _bytes(blocks) > MEMORY:
                    blocks = None
            look(block)

        inputs = {n: entry_of(t, call) for n, t in self.inputs.items()}
        seen = replay.show(inputs, self.last, meeting, keep)
        self._check(seen.float().cpu(), self.probe[call].float().cpu(), seen.dtype)
        self.known_model = replay.known_pipe
        if blocks is not None:
            _held.put(key, blocks)

    def _check(self, seen: Tensor, kept: Tensor, dtype: torch.dtype) -> None:
        """Compare what cells became behind the last block with what they had."""
        kinds = (
            dtype,
            *(t.dtype for t in self.inputs.values() if t.is_floating_point()),
        )
        # Of roundings through all blocks; another model is far beyond it.
        limit = max(1e-3, *(8 * torch.finfo(kind).eps for kind in kinds))
        apart = float("inf")
        if seen.shape == kept.shape:
            apart = float((seen - kept).norm() / kept.norm().clamp_min(1e-12))
        if not apart <= limit:
            raise ModelMismatchError(
                f"the model at hand does not see what was recorded: behind {self.last} "
                f"it differs by {apart:.2g} of what is there, {limit:.2g} is rounding. "
                "Were other weights loaded, a LoRA added or scaled, or blocks cached "
                "or skipped while it was recorded? Load the model as it was, or record "
                "again"
            )


def entry_of(tensor: Tensor, call: int) -> Tensor:
    """Return a call's entry of a tensor that has one a call, or one for all."""
    return tensor[call if len(tensor) > 1 else 0]


def join_calls(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of several calls as one: with one entry where all are alike."""
    same = all(torch.equal(tensors[0], other) for other in tensors[1:])
    return tensors[0][None] if same else torch.stack(list(tensors))
