"""The slow reference of layers with norms and rotations: each runs a second time.

Within the pipeline's own call, each cross-attention layer is asked once more, as it
stands, about another text. In place of its values it is given the numbers of the
tokens, one-hot, and in place of its output projection nothing: what comes out are its
attention probabilities.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


class SecondRun:
    """Asks the cross-attention of a denoiser about `rows`, (n, dim), while it runs.

    Parameters
    ----------
    model
        The denoiser.
    rows
        What its layers read of the text; or a function of a layer's name, where each
        is given something else.
    """

    def __init__(self, model: Any, rows: Any) -> None:
        self.rows = rows if callable(rows) else lambda _: rows
        self.layers = {
            name: module
            for name, module in model.named_modules()
            if name.endswith("attn2")
        }
        # (batch, cells, tokens) a call, summed over heads
        self.asked: dict[str, list[torch.Tensor]] = {n: [] for n in self.layers}
        self.handles: list[Any] = []

    def __enter__(self) -> SecondRun:
        for name, module in self.layers.items():
            self.handles.append(
                module.register_forward_hook(self._ask(name), with_kwargs=True)
            )
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _ask(self, name: str) -> Any:
        def ask(module: Any, args: Any, kwargs: Any, _output: Any) -> None:
            names = ("hidden_states", "encoder_hidden_states", "attention_mask")
            given = {**dict(zip(names, args[:3], strict=False)), **kwargs}
            states, batch = given["hidden_states"], len(given["hidden_states"])
            text = self.rows(name).to(states).expand(batch, -1, -1)
            given["encoder_hidden_states"] = text
            masked = (
                given.get("attention_mask") is not None
                and "Lumina" in type(module.processor).__name__
            )
            given["attention_mask"] = (
                torch.ones(text.shape[:2]).bool() if masked else None
            )
            given.pop("base_sequence_length", None)
            heads = module.heads
            dim = module.to_q.out_features // heads
            count = text.shape[1]

            def number(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
                one = functional.one_hot(torch.arange(count), dim).to(output)
                return one.repeat(1, output.shape[-1] // dim).expand(batch, -1, -1)

            outs = [part for part in module.to_out if hasattr(part, "forward")]
            changed = [module.to_v.register_forward_hook(number)]
            changed += [
                part.register_forward_hook(lambda _m, args, _o: args[0])
                for part in outs
            ]
            try:
                found = module.processor(module, **given)
            finally:
                for handle in changed:
                    handle.remove()
            if found.ndim == 3:
                found = found.unflatten(-1, (heads, dim))
            self.asked[name].append(found[..., :count].double().sum(2))

        return ask

    def maps(self, row: int, shape: tuple[int, int, int], calls: Any = None) -> Any:
        """Return (frames, tokens, h, w) of one row of the batch, in float64.

        `shape` is (frames, h, w) of the cells; `calls` those of the model to count.
        """
        total: Any = 0
        for found in self.asked.values():
            chosen = found if calls is None else [found[call] for call in calls]
            summed = torch.stack([each[row] for each in chosen]).sum(0)
            total = total + summed.unflatten(0, shape).permute(0, 3, 1, 2)
        return total
