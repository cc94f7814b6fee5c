"""The slow reference of joint attention, inside the running pipeline.

Each stock block is called once more in the run itself, with the image's states and
those of a phrase, and of that only what it makes of the phrase is kept. Nothing is
stored and nothing is taken from the package; what attention sees is caught by putting a
function in the place of torch's.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch


@dataclass
class Kind:
    """How a test runs a family: what its blocks are, and what is whose."""

    make: Callable[[], Any]
    # (block, args, kwargs, row, text (1, n, dim), length of the model's text)
    again: Callable[..., Any]
    # The prompt's rows where they enter the first block.
    own_rows: Callable[[Any, str], torch.Tensor]
    blocks: Callable[[Any], Iterator[tuple[str, Any]]]
    row: int = 0  # of the batch, that sees the prompt
    passes: int = 1  # calls of the model a step; the first one sees the prompt
    text_first: bool = True
    cells: int = 16
    settings: dict[str, Any] = field(default_factory=dict)


class Reference:
    """What each block's attention makes of phrases (P, n, dim), in every call."""

    def __init__(self, kind: Kind, pipe: Any, rows: torch.Tensor) -> None:
        self.kind, self.model, self.rows = kind, pipe.transformer, rows
        self.calls: list[dict[str, dict[str, Any]]] = []
        self._forwards = 0
        self._states: list[torch.Tensor] = []
        self._name: str | None = None  # of the block whose attention comes next
        self._caught: list[Any] | None = None  # of a block that is called once more

    def __enter__(self) -> Reference:
        self._stack = ExitStack()
        stock = functional.scaled_dot_product_attention

        def attend(query: Any, key: Any, value: Any, *args: Any, **more: Any) -> Any:
            out = stock(query, key, value, *args, **more)
            if self._caught is not None:
                self._caught.append((query, key, out))
            elif self._name is not None:
                self._keep_own(query, key, out)
            return out

        functional.scaled_dot_product_attention = attend
        self._stack.callback(setattr, functional, "scaled_dot_product_attention", stock)
        hook = self.model.register_forward_pre_hook(lambda *_: self._begin())
        self._stack.callback(hook.remove)
        for name, block in self.kind.blocks(self.model):
            hook = block.register_forward_pre_hook(
                partial(self._before, name), with_kwargs=True
            )
            self._stack.callback(hook.remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _begin(self) -> None:
        self.on = self._forwards % self.kind.passes == 0
        self._forwards += 1
        if self.on:
            self.calls.append({})
            self._states = [row[None] for row in self.rows]

    def _text(self, tensor: torch.Tensor, count: int) -> torch.Tensor:
        return tensor[:, :, :count] if self.kind.text_first else tensor[:, :, -count:]

    def _keep_own(self, query: Any, key: Any, out: Any) -> None:
        entry, self._name = self.calls[-1][self._name], None
        row = slice(self.kind.row, self.kind.row + 1)
        cells = self.kind.cells
        image = slice(-cells, None) if self.kind.text_first else slice(0, cells)
        entry["query"] = query[row, :, image].double()
        entry["image out"] = out[row, :, image].double()
        entry["own key"], entry["own out"] = key[row], out[row]

    def _before(self, name: str, block: Any, args: Any, kwargs: Any) -> None:
        if not self.on or self._caught is not None:
            return
        entry = self.calls[-1][name] = {"key": [], "out": []}
        for i, text in enumerate(self._states):
            self._caught = []
            self._states[i] = self.kind.again(block, args, kwargs, self.kind.row, text)
            _, key, out = self._caught[0]
            entry["key"].append(self._text(key, text.shape[1]))
            entry["out"].append(self._text(out, text.shape[1]))
        self._caught = None
        self._name = name

    def scores(self, meeting: str, call: int, name: str, phrase: int) -> torch.Tensor:
        """Return (heads, n, cells) that a softmax over the tokens is taken of."""
        entry = self.calls[call][name]
        if meeting == "keys":
            key = entry["key"][phrase][0].double()
            return key @ entry["query"][0].transpose(-1, -2) * key.shape[-1] ** -0.5
        text = entry["out"][phrase][0].double().transpose(0, 1).flatten(1)
        image = entry["image out"][0].transpose(0, 1).flatten(1)
        return (text @ image.T)[None]

    def maps(self, meeting: str, phrase: int) -> torch.Tensor:
        """Return (n, cells): softmax over the tokens, summed over all there is."""
        return sum(
            self.scores(meeting, call, name, phrase).softmax(1).sum(0)
            for call, blocks in enumerate(self.calls)
            for name in blocks
        )
