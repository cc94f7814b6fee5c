"""Tokens: what a class is called in the space that a model's attention reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.attention.trace import ModelMismatchError, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class TokenError(ValueError):
    """A token, or what shall become one, that makes no sense."""


@dataclass(frozen=True, eq=False)
class Token:
    """A class as the rows of a text embedding.

    Attributes
    ----------
    name
        What people call it.
    model
        The hash of the text encoder that it fits, as in `Trace`; "" if unknown.
    embedding
        Shape (n, text_dim), float32 on the CPU: [start, pieces..., end] of a phrase,
        [background, class] of an optimized token.
    span
        The class's rows [a, b); all others are background.
    pieces
        The parts of the phrase that the rows of the span stand for.
    info
        Where it comes from: phrase, losses, scores, cancelled, settings, version.

    Raises
    ------
    TokenError
        If the embedding is not finite and (n, text_dim), or the span not within it.
    """

    name: str
    model: str
    embedding: Tensor
    span: tuple[int, int] = (1, 2)
    pieces: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = self.embedding
        if rows.ndim != 2 or 0 in rows.shape or not rows.is_floating_point():
            raise TokenError(
                f"the embedding of {self.name!r} is {rows.dtype} of shape "
                f"{tuple(rows.shape)}: give floats of shape (rows, text_dim)"
            )
        rows = rows.detach().to("cpu", torch.float32)
        if not rows.isfinite().all():
            raise TokenError(f"the embedding of {self.name!r} holds NaN or infinity")
        start, stop = self.span
        if not 0 <= start < stop <= len(rows):
            raise TokenError(
                f"the span of {self.name!r} is {self.span} and its embedding has "
                f"{len(rows)} rows: give (first, last + 1) of the class's rows"
            )
        object.__setattr__(self, "embedding", rows)

    @property
    def text_dim(self) -> int:
        """Size of the text embeddings that the token fits."""
        return self.embedding.shape[1]

    @property
    def background(self) -> Tensor:
        """The row (text_dim,) that a class is weighed against: the start, or the end.

        The first row, unless the class begins with it: the last one then (T5 has no
        start token).
        """
        return self.embedding[0 if self.span[0] > 0 else -1]

    @property
    def digest(self) -> str:
        """What it is known again by: the start of its rows' SHA-256, in hexadecimal."""
        return sha256(self.embedding.numpy().tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class TextSpace:
    """What the attention of a loaded model reads."""

    text_dim: int  # the size of its rows
    model: str  # the hash of the text encoder's weights, as in `Trace`; "" if unknown
    # Returns the row that stands for no class, (text_dim,) float32.
    start: Callable[[], Tensor]


def check_token(
    token: Token, target: Trace | TextSpace, *, confirm: bool = False
) -> Token:
    """Return a token if it fits a trace or a model.

    It raises `ModelMismatchError` if the sizes differ, or the text encoders do and
    `confirm` is False.

    Parameters
    ----------
    token
        From a file or another model. One that does not say where it comes from
        (`model` is "") is accepted if its size fits.
    target
        What it has to fit; of a pipeline `napari_ovam.diffusion.phrases.text_space`.
    confirm
        Accept a token of another text encoder of the same size; what is returned
        then has an unknown model, so that maps take it.
    """
    text_dim, model = target.text_dim, target.model
    if token.text_dim != text_dim:
        raise ModelMismatchError(
            f"the token {token.name!r} has rows of {token.text_dim} and the model "
            f"reads {text_dim}: it belongs to another model"
        )
    if not (token.model and model) or token.model == model:
        return token
    if not confirm:
        raise ModelMismatchError(
            f"the token {token.name!r} belongs to the text encoder {token.model}, this "
            f"one is {model}: optimize it anew, or confirm to use it all the same"
        )
    return replace(token, model="")
