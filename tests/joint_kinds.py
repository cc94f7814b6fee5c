"""How the families with joint attention are run by the tests, each in its own words."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import joint_models
from joint_reference import Kind

if TYPE_CHECKING:
    import torch


def _numbered(model: Any, *kinds: str, attention: str = "attn") -> Any:
    for kind in kinds:
        for i, block in enumerate(getattr(model, kind)):
            yield f"{kind}.{i}.{attention}", block


def _sd3_again(block: Any, args: Any, kwargs: Any, row: int, text: Any) -> Any:
    return block(
        hidden_states=kwargs["hidden_states"][row : row + 1],
        encoder_hidden_states=text,
        temb=kwargs["temb"][row : row + 1],
    )[0]


def _sd3_rows(pipe: Any, prompt: str) -> torch.Tensor:
    rows = pipe.encode_prompt(prompt, None, None, do_classifier_free_guidance=False)[0]
    return pipe.transformer.context_embedder(rows)[0]


def _sd3(**how: Any) -> Kind:
    return Kind(
        partial(joint_models.sd3, **how),
        _sd3_again,
        _sd3_rows,
        lambda model: _numbered(model, "transformer_blocks"),
        row=1,
        text_first=False,
        settings={"guidance_scale": 4.0},
    )


KINDS = {"sd3.5": _sd3(), "sd3.0": _sd3(dual=())}
