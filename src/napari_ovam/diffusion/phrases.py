"""Phrases in the space that a pipeline's attention reads."""

from __future__ import annotations

import re
import unicodedata
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.attention.tokens import TextSpace, Token, TokenError
from napari_ovam.base.words import TOY, is_text, is_unspaced, plain_phrase
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.devices import explain_nans
from napari_ovam.diffusion.joint.replay import offer_replay
from napari_ovam.diffusion.weights_hash import text_encoder_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_ovam.diffusion.architectures.base import Architecture


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
    offer_replay(pipe)  # its phrases are mapped on traces that may ask it
    phrase = _plain(phrase, architecture.tokenizer(pipe).get_added_vocab())
    words = _as_read(architecture, pipe, phrase)
    text, place = words, (0, len(words))
    if context is not None:
        context = _tidy("context", context)
        text = _as_read(architecture, pipe, context)
        place = _find_words(words, text)
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
        raise TokenError(
            f"the text encoder made NaN or infinity of {_short(text)} in "
            f"{explain_nans(pipe, embedding.dtype)}"
        )
    return Token(
        name=phrase,
        model=text_encoder_hash(pipe),
        embedding=embedding,
        span=(rows[0], rows[-1] + 1),
        pieces=tuple(text[slice(*offsets[i])].strip() for i in rows),
        info={"phrase": phrase} | ({} if context is None else {"context": context}),
    )


def _find_words(words: str, text: str) -> tuple[int, int]:
    ends = ("", "") if is_unspaced(words) else (r"(?<!\w)", r"(?!\w)")
    found = re.search(re.escape(words).join(ends), text, re.IGNORECASE)
    if found is None:
        raise TokenError(
            f"the phrase {_short(words)} is not in the context {_short(text)}: write "
            "it as it stands there, in whole words"
        )
    return found.span()


def text_space(pipe: Any) -> TextSpace:
    """Return what tokens have to fit to be read by a pipeline.

    Its start row is the start token's, which is the same before every text; of T5,
    which has none, the end token's of an empty text.
    """

    @torch.no_grad()
    def start() -> Tensor:
        rows = architecture.text_rows(pipe, "")
        return rows[0].to("cpu", torch.float32)

    architecture = pipeline_architecture(pipe)
    return TextSpace(architecture.text_dim(pipe), text_encoder_hash(pipe), start)


def _as_read(architecture: Architecture, pipe: Any, text: str) -> str:
    """Spell a text as the pipeline does, with the tokens of textual inversions."""
    tokenizer = architecture.tokenizer(pipe)
    convert = getattr(pipe, "maybe_convert_prompt", None)
    if convert is not None and any(t in text for t in tokenizer.get_added_vocab()):
        text = convert(text, tokenizer)
    return architecture.tidy(text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


def _plain(phrase: object, added: Iterable[str]) -> str:
    """Return a phrase without punctuation and weights, which it says.

    A token that was added, such as "<toy>" of a textual inversion, stays.
    """
    given = _tidy("phrase", phrase)
    plain = plain_phrase(given)
    plain = TOY.sub(lambda found: found[found[0] not in added], plain)
    if any(t in given and t not in plain for t in added):
        plain = given
    if not plain:
        raise TokenError(f"the phrase is {phrase!r}: give at least one word")
    if plain != given:
        warnings.warn(f"the phrase {given!r} is read as {plain!r}", stacklevel=3)
    return plain


def _tidy(what: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise TokenError(f"the {what} is {text!r}: give at least one word")
    if not is_text(text):
        raise TokenError(f"the {what} {text!r} holds bytes that are no UTF-8")
    return " ".join(unicodedata.normalize("NFC", text).split())
