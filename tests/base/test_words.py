"""Phrases as they are pasted, and words in another form."""
# ruff: noqa: RUF001 (the signs of other scripts are meant)

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam.base.words import is_named, plain_phrase, read_phrases


@pytest.mark.parametrize(
    "text",
    [
        *("cat", " cat ", "cat,", "cat.", '"cat"', "'cat'", "(cat:1.3)", "((cat))"),
        *("[cat]", "{cat}", "cat!", "“cat”", "«cat»", "cat++", "(cat)1.2", "cat::2"),
        *("((cat:1.2):0.8)", "(cat : 1.3)", "- cat", "cat <lora:fluffy:0.8>", "*cat*"),
        *(
            "cat BREAK",
            "`cat`",
            "cat…",
            "(cat)++",
            "cat;",
            "cat:1.1",
            "「cat」",
            "¿cat?",
            "→ cat",
        ),
    ],
)
def test_what_is_not_meant_is_taken_off_and_said(text):
    phrases, notes = read_phrases(text)
    assert phrases == ["cat"]
    bare = " ".join(text.replace(",", " ").replace(";", " ").split())
    assert bool(notes) == (bare != "cat")
    assert all(repr("cat") in note or "no word" in note for note in notes)


@pytest.mark.parametrize(
    "text",
    [
        *("teddy-bear", "cat's eye", "猫", "3 cats", "t-shirt", "café", "no. 5 cat"),
        *("R2D2", "<toy>", "a photo of <my-toy>"),
    ],
)
def test_what_is_meant_stays(text):
    assert read_phrases(text) == ([text], [])


def test_phrases_are_split_and_each_is_taken_once():
    phrases, _ = read_phrases("cat, dog; a red hat\nCat, (dog:1.1)，bird")
    assert phrases == ["cat", "dog", "a red hat", "bird"]
    assert read_phrases("(cat, dog:1.2)")[0] == ["cat", "dog"]
    assert read_phrases("black (fluffy) cat")[0] == ["black fluffy cat"]
    assert read_phrases("cat \\(animal\\)")[0] == ["cat animal"]
    assert read_phrases("cafe\u0301") == (["café"], [])
    assert read_phrases("cat AND dog BREAK cat")[0] == ["cat", "dog"]
    assert read_phrases("(<toy>:1.2), a < b, cat\ufeff, \u200bhat")[0] == [
        *("<toy>", "a b", "cat", "hat")
    ]


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30))
def test_a_plain_phrase_stays_as_it_is(text):
    once = plain_phrase(text)
    assert plain_phrase(once) == once


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("cherry", "cherries on a plate"),
        ("cherries", "one cherry"),
        ("knife", "two Knives"),
        ("man", "three men"),
        ("snowman", "snowmen"),
        ("woman", "WOMEN"),
        ("child", "children play"),
        ("person", "people"),
        ("foot", "his feet"),
        ("goose", "geese"),
        ("teddy bear", "a teddy-bear"),
        ("teddy-bear", "two teddy bears"),
        ("teddy bear", "a teddybear"),
        ("tshirt", "a t-shirt"),
        ("cafe", "a café at night"),
        ("café", "a cafe\u0301"),
        ("cat", "the cat's bowl"),
        ("box", "boxes"),
        ("tomato", "tomatoes"),
        ("cactus", "cacti"),
        ("leaf", "leaves"),
        ("glass", "glasses"),
        ("cookie", "cookies"),
        ("pony", "ponies"),
        ("axe", "axes"),
        ("gray wolf", "grey wolves"),
        ("fire truck", "firetrucks"),
        ("猫", "雪の中の猫"),
        ("straße", "STRASSE"),
        ("bus", "buses"),
        ("color", "colours"),
        ("hat", "a cat, (hat:1.2)"),
        ("child", "a childrens' party, childrens toys"),
        ("bacterium", "bacteria"),
        ("phenomenon", "two phenomena"),
        ("passer-by", "passersby"),
        ("TV", "two TVs"),
        ("hair drier", "hair dryers"),
    ],
)
def test_a_word_is_found_in_another_form(phrase, text):
    assert is_named(phrase, text)


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("cat", "a red cathedral"),
        ("hat", "that chat"),
        ("red hat", "a red cat and a hat"),
        ("bus", "a bush"),
        ("man", "a woman, many"),
        ("a", "as"),
        ("", "a cat"),
        ("cat", ""),
        ("...", "a cat..."),
        ("car", "a carpet, cares"),
        ("is", "i"),
    ],
)
def test_another_word_is_not_taken_for_it(phrase, text):
    assert not is_named(phrase, text)
