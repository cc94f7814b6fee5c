"""What is kept of a run by default: layers, calls, half of the guidance, precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from napari_ovam.attention.shown_calls import Meeting
from napari_ovam.attention.trace import Branch, Calls, Layers, check_branch


@dataclass(frozen=True)
class TraceSettings:
    """What `generate` and `trace_image` keep; see `record` for what each means.

    The defaults make masks at least as good as those of everything (docs/quality.md),
    of a thirtieth of the bytes for SD 1.5 (docs/speed.md): of the conditional half,
    the layers that `Trace.fine` takes, the calls a quarter, half and three quarters of
    the way, and half precision, which changes no map by more than about a thousandth
    of its maximum. OVAM as published, exactly, is
    ``TraceSettings("uncond", layers=None, calls=None, dtype=None)``.

    Raises
    ------
    ValueError
        If a value is none of those that `record` takes.
    """

    branch: Branch = "cond"
    layers: tuple[str | int, ...] | Layers | None = "fine"
    calls: tuple[int, ...] | Calls | None = "quarters"
    dtype: torch.dtype | None = torch.float16
    middle: bool = False
    self_attention: bool = False
    meeting: Meeting | None = None

    def __post_init__(self) -> None:
        check_branch(self.branch)
        for name, word in (("layers", *get_args(Layers)), ("calls", *get_args(Calls))):
            value = getattr(self, name)
            if isinstance(value, str) and value != word:
                raise ValueError(
                    f"{name} is {value!r}: give {word!r}, a list, or None for all"
                )
        if self.meeting not in (None, *get_args(Meeting)):
            raise ValueError(
                f"meeting is {self.meeting!r}: give one of {list(get_args(Meeting))}, "
                "or None for what suits the model"
            )
        if isinstance(self.dtype, str):
            raise ValueError(
                f"dtype is {self.dtype!r}: give torch.{self.dtype}, or None for the "
                "model's own precision"
            )


def quarter_calls(total: int) -> tuple[int, ...]:
    """Return the calls a quarter, half and three quarters of the way, ascending."""
    return tuple(sorted({total * part // 4 for part in (1, 2, 3)}))
