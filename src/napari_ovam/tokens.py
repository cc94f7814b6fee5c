"""Tokens: what a class is called in the space that a model's attention reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.trace import ModelMismatchError, Trace, text_encoder_hash

if TYPE_CHECKING:
    from collections.abc import Mapping


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


def encode_phrase(pipe: Any, phrase: str, *, context: str | None = None) -> Token:
    """Encode a phrase with a pipeline's own text encoder, without padding.

    Parameters
    ----------
    pipe
        A pipeline with a `tokenizer` and a `text_encoder`. Its last hidden state is
        taken, as the pipeline does when no `clip_skip` is given.
    phrase
        One word or several.
    context
        A longer prompt that contains the phrase; the first place in it counts. None
        encodes the phrase alone.

    Returns
    -------
    Token
        Rows [start, pieces..., end] of the phrase, or of the context; `span` is the
        phrase in them.

    Raises
    ------
    TokenError
        If the phrase is empty, longer than the text encoder takes, or not in the
        context; or the pipeline has no text encoder.
    """
    tokenizer, encoder = (getattr(pipe, k, None) for k in ("tokenizer", "text_encoder"))
    if tokenizer is None or encoder is None:
        raise TokenError(
            f"{type(pipe).__name__} has no tokenizer or no text encoder: load the "
            "model with both"
        )
    phrase = _tidy("phrase", phrase)
    words = _with_inversions(pipe, phrase)
    text, place = words, (0, len(words))
    if context is not None:
        context = _tidy("context", context)
        text = _with_inversions(pipe, context)
        found = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE)
        if found is None:
            raise TokenError(
                f"the phrase {phrase!r} is not in the context {context!r}: write it "
                "as it stands there, in whole words"
            )
        place = found.span()
    encoded = tokenizer(
        text,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        truncation=False,
        verbose=False,
    )
    ids = encoded["input_ids"]
    limit = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    if len(ids) > limit:
        raise TokenError(
            f"the {'phrase' if context is None else 'context'} {text!r} has "
            f"{len(ids)} pieces with start and end, and the text encoder takes "
            f"{limit}: shorten it"
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
        raise TokenError(f"the phrase {phrase!r} holds nothing that the model can read")
    with torch.no_grad():
        device = getattr(pipe, "_execution_device", encoder.device)
        batch = torch.tensor([ids], device=device)
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = torch.ones_like(batch)
        embedding = encoder(batch, attention_mask=mask)[0][0]
    return Token(
        name=phrase,
        model=text_encoder_hash(pipe),
        embedding=embedding,
        span=(rows[0], rows[-1] + 1),
        pieces=tuple(text[slice(*offsets[i])] for i in rows),
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
    return int(pipe.text_encoder.config.hidden_size)


def start_row(pipe: Any) -> Tensor:
    """Return the row of the start token, (text_dim,): the same before every text."""
    return encode_phrase(pipe, "a").embedding[0]


def _with_inversions(pipe: Any, text: str) -> str:
    """Spell the tokens of textual inversions out, as the pipeline does."""
    convert = getattr(pipe, "maybe_convert_prompt", None)
    if convert is None or not any(t in text for t in pipe.tokenizer.get_added_vocab()):
        return text
    converted: str = convert(text, pipe.tokenizer)
    return converted


def _tidy(what: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise TokenError(f"the {what} is {text!r}: give at least one word")
    return " ".join(text.split())
