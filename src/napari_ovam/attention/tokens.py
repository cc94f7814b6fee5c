"""Tokens: what a class is called in the space that a model's attention reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.attention.trace import ModelMismatchError, Trace, text_encoder_hash
from napari_ovam.diffusion.architectures import pipeline_architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ovam.diffusion.architectures.base import Architecture


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
        `text_encoder_hash` of the model that it fits, as in `Trace`; "" if unknown.
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


def encode_phrase(pipe: Any, phrase: str, *, context: str | None = None) -> Token:
    """Encode a phrase with a pipeline's own text encoder, without padding.

    Parameters
    ----------
    pipe
        A pipeline with its tokenizers and text encoders. The states are those that the
        pipeline itself takes when no `clip_skip` is given: of Stable Diffusion the
        last ones, of XL the last but one of both encoders side by side, of PixArt the
        last ones behind its own projection.
    phrase
        One word or several.
    context
        A longer prompt that contains the phrase; the first place in it counts. None
        encodes the phrase alone.

    Returns
    -------
    Token
        Rows [start, pieces..., end] of the phrase, or of the context; `span` is the
        phrase in them. T5 (PixArt) has no start token: [pieces..., end], and the span
        of a phrase alone begins at 0.

    Raises
    ------
    TokenError
        If the phrase is empty, longer than the text encoder takes, or not in the
        context; or the pipeline has no text encoder, or one that makes NaNs.
    ModelError
        If the pipeline is not supported.
    """
    architecture = pipeline_architecture(pipe)
    if not architecture.text_modules(pipe):
        raise TokenError(
            f"{type(pipe).__name__} has no tokenizer or no text encoder: load the "
            "model with both"
        )
    phrase = _tidy("phrase", phrase)
    words = _as_read(architecture, pipe, phrase)
    text, place = words, (0, len(words))
    if context is not None:
        context = _tidy("context", context)
        text = _as_read(architecture, pipe, context)
        found = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE)
        if found is None:
            raise TokenError(
                f"the phrase {_short(phrase)} is not in the context "
                f"{_short(context)}: write it as it stands there, in whole words"
            )
        place = found.span()
    encoded = architecture.tokenizer(pipe)(
        text,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        truncation=False,
        verbose=False,
    )
    count, limit = len(encoded["input_ids"]), architecture.most_tokens(pipe)
    if count > limit:
        raise TokenError(
            f"the {'phrase' if context is None else 'context'} {_short(text)} has "
            f"{count} pieces with start and end, and the text encoder takes {limit}: "
            "shorten it"
        )
    offsets = encoded["offset_mapping"]
    rows = [
        i
        for i, (start, stop) in enumerate(offsets)
        if not encoded["special_tokens_mask"][i]
        and start < place[1]
        and stop > place[0]
    ]
    if not rows:
        raise TokenError(
            f"the phrase {_short(phrase)} holds nothing that the model can read"
        )
    with torch.no_grad():
        embedding = architecture.text_rows(pipe, text)
    if not embedding.isfinite().all():
        dtype = str(embedding.dtype).removeprefix("torch.")
        raise TokenError(
            f"the text encoder made NaN or infinity of {_short(text)} in {dtype}: "
            "load the model with dtype='float32' (or 'bfloat16')"
        )
    return Token(
        name=phrase,
        model=text_encoder_hash(pipe),
        embedding=embedding,
        span=(rows[0], rows[-1] + 1),
        pieces=tuple(text[slice(*offsets[i])].strip() for i in rows),
        info={"phrase": phrase} | ({} if context is None else {"context": context}),
    )


def check_token(token: Token, target: Any, *, confirm: bool = False) -> Token:
    """Return a token if it fits a trace or a pipeline.

    Parameters
    ----------
    token
        From a file or another model. One that does not say where it comes from
        (`model` is "") is accepted if its size fits.
    target
        A `Trace` or a pipeline.
    confirm
        Accept a token of another text encoder of the same size; what is returned
        then has an unknown model, so that maps take it.

    Raises
    ------
    ModelMismatchError
        If the sizes differ, or the text encoders do and `confirm` is False.
    """
    if isinstance(target, Trace):
        text_dim, model = target.text_dim, target.model
    else:
        text_dim, model = text_dim_of(target), text_encoder_hash(target)
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


def text_dim_of(pipe: Any) -> int:
    """Return the size of the text embeddings that a pipeline's attention reads."""
    return pipeline_architecture(pipe).text_dim(pipe)


@torch.no_grad()
def start_row(pipe: Any) -> Tensor:
    """Return the row that stands for no class, (text_dim,), float32 on the CPU.

    The start token's, which is the same before every text; of T5, which has none, the
    end token's of an empty text.
    """
    rows = pipeline_architecture(pipe).text_rows(pipe, "")
    return rows[0].to("cpu", torch.float32)


def _as_read(architecture: Architecture, pipe: Any, text: str) -> str:
    """Spell a text as the pipeline does, with the tokens of textual inversions."""
    tokenizer = architecture.tokenizer(pipe)
    convert = getattr(pipe, "maybe_convert_prompt", None)
    if convert is not None and any(t in text for t in tokenizer.get_added_vocab()):
        text = convert(text, tokenizer)
    return architecture.tidy(text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


def _tidy(what: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise TokenError(f"the {what} is {text!r}: give at least one word")
    return " ".join(text.split())
