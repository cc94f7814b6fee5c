"""Where a model runs, in which precision, and what is said when it does not fit."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class OutOfMemory(RuntimeError):
    """The device's memory did not suffice; what was allocated has been freed."""


@contextmanager
def memory_guard(advice: str) -> Iterator[None]:
    """Turn a device's out-of-memory error into `OutOfMemory` and free the cache."""
    message = ""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if "out of memory" not in text and "can't allocate memory" not in text:
            raise
        message = str(error).splitlines()[0]
    # Outside of the handler: its traceback holds the tensors that are to be freed.
    if message:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise OutOfMemory(f"{message} {advice}")


def find_device(name: str) -> torch.device:
    """Return a device by name; "auto" is CUDA, then MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        mps = torch.backends.mps.is_available()
        return torch.device("mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); "
            "'auto' picks one that can"
        ) from error
    return device


def find_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return a precision by name; "auto" is half on CUDA and MPS, else full."""
    if name == "auto":
        return torch.float16 if device.type in ("cuda", "mps") else torch.float32
    dtype = name if isinstance(name, torch.dtype) else getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(
            f"dtype {name!r} is none: give 'auto', 'float32', 'float16' or 'bfloat16'"
        )
    return dtype


def explain_nans(pipe: Any, dtype: torch.dtype) -> str:
    """Say why a model made NaNs: damaged weights, or too little precision."""
    said = str(dtype).removeprefix("torch.")
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            for key, weight in part.named_parameters():
                if not (weight.is_meta or _is_finite(weight.detach())):
                    return (
                        f"{said}: its weights are damaged ({key} of the {name} holds "
                        "NaNs or infinities), get the model again"
                    )
    if dtype == torch.float32:
        return f"{said}: other settings may help (scheduler, steps, less guidance)"
    return f"{said}: load it with dtype='float32'"


def _is_finite(weight: torch.Tensor) -> bool:
    if not weight.is_floating_point():
        return True
    if weight.dtype.itemsize == 1:  # of which torch cannot tell
        weight = weight.to(torch.float16)
    return bool(weight.isfinite().all())
