"""A CLIP tokenizer that knows a few words, for small random pipelines."""

from __future__ import annotations

from typing import Any

WORDS = [
    *("a", "an", "and", "the", "of", "on", "in", "at", "with", "photo", "drawing"),
    *("cat", "dog", "hat", "car", "house", "tree", "red", "blue"),
    *("grass", "snow", "night", "sea"),
]
START, END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer() -> Any:
    """Return a CLIP tokenizer that knows WORDS whole and spells all others."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {c: i for i, c in enumerate([*alphabet, *(c + "</w>" for c in alphabet)])}
    merges = []
    for word in WORDS:
        left = word[0]
        for place, letter in enumerate(word[1:], 2):
            right = letter + "</w>" * (place == len(word))
            if left + right not in pieces:
                merges.append((left, right))
                pieces[left + right] = len(pieces)
            left += right
    for special in (START, END):
        pieces[special] = len(pieces)
    return CLIPTokenizer(
        vocab=pieces,
        merges=merges,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=32,
    )
