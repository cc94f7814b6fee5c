"""What a prompt shows is what is looked for; a small rule, with its limits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam.base.prompt_nouns import MOST, prompt_nouns

KNOWN = ("cat", "dog", "hot dog", "teddy bear", "traffic light", "orange", "person")


@pytest.mark.parametrize(
    ("prompt", "nouns"),
    [
        ("a cat and a hat on the grass", ["cat", "hat"]),
        ("a red hat", ["hat"]),
        ("A photo of a black dog running on the beach with a ball", ["dog", "ball"]),
        ("a man's hat, best quality, 8k", ["hat"]),
        ("a (cat:1.3) in a box, <lora:x:1>", ["cat", "box"]),
        ("portrait of <toy> on the moon", ["<toy>"]),
        ("a fox", ["fox"]),
        ("", []),
        ("..., !!", []),
        ("一只猫", []),  # no spaces, no little words: the person types
    ],
)
def test_nouns_of_prompts(prompt: str, nouns: list[str]) -> None:
    assert prompt_nouns(prompt) == nouns


@pytest.mark.parametrize(
    ("prompt", "nouns"),
    [
        ("two cats and a teddy bear", ["cat", "teddy bear"]),
        ("a hot dog under a traffic light", ["hot dog", "traffic light"]),
        ("an orange cat", ["cat"]),
        ("an orange on a plate", ["orange", "plate"]),
        ("people in the street", ["person"]),
        ("a hat on the cat", ["hat", "cat"]),  # a place that is looked for
    ],
)
def test_known_names_are_taken_as_they_are_written(
    prompt: str, nouns: list[str]
) -> None:
    assert prompt_nouns(prompt, KNOWN) == nouns


@given(st.text(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read(prompt: str) -> None:
    nouns = prompt_nouns(prompt, KNOWN)
    assert len(nouns) <= MOST
    assert all(noun.strip() and "," not in noun for noun in nouns)
    assert len({noun.casefold() for noun in nouns}) == len(nouns)
