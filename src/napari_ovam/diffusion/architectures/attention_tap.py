"""See the queries and keys of a layer where they meet, behind norms and rotations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from torch.nn import Module

# Called with queries and keys (batch, heads, cells or tokens, head_dim), and the scale.
See = Callable[[Tensor, Tensor, float], None]


class AttentionTap(TorchFunctionMode):
    """Hands the attention of this thread to `attend(call, query, key, value)`."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(
        self, func: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        names = "query", "key", "value", "attn_mask", "dropout_p", "is_causal"
        given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
        query, key, value = (given.pop(name) for name in names[:3])
        return self._attend(partial(func, **given), query, key, value)


def tap_attention(module: Module, see: See) -> list[Any]:
    """Show `see` what the attention of a module computes with, while it runs.

    Other ways to compute attention than torch's own (flash, xformers) are not seen.

    Returns
    -------
    list
        Handles; `remove` of each ends it.
    """
    open_taps: list[ExitStack] = []

    def attend(call: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scale = call.keywords.get("scale")
        see(query, key, query.shape[-1] ** -0.5 if scale is None else float(scale))
        out: Tensor = call(query, key, value)
        return out

    def before(*_: object) -> None:
        open_taps.append(ExitStack())
        open_taps[-1].enter_context(AttentionTap(attend))

    def after(*_: object) -> None:
        if open_taps:  # also where the module failed
            open_taps.pop().close()

    return [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after, always_call=True),
    ]
