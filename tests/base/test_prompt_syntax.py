"""What is taken out of a prompt is its syntax, and never its words."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam.base.prompt_syntax import plain_prompt


@pytest.mark.parametrize(
    ("text", "plain", "removed"),
    [
        (
            "a cat, (hat:1.2), <lora:grass:0.8>\non two lines",
            "a cat, hat,\non two lines",
            ("(hat:1.2)", "<lora:grass:0.8>"),
        ),
        ("((a cat)), [dog] {fox}", "a cat, dog fox", ("((a cat))", "[dog]", "{fox}")),
        ("(a (b:1.1) c:1.3)", "a b c", ("(a (b:1.1) c:1.3)",)),
        ("a [cat:dog:0.5] [x|y]", "a cat dog x y", ("[cat:dog:0.5]", "[x|y]")),
        ("a cat BREAK a hat", "a cat, a hat", ("BREAK",)),
        ("a cat :1.2 AND a dog :0.8", "a cat, a dog", (":1.2", ":0.8", "AND")),
        (r"a cat \(felis\)", "a cat (felis)", (r"\(", r"\)")),
        ("1.3::red hat::, cat", "red hat, cat", ("1.3::red hat::",)),
        ("embedding:EasyNegative, blurry", "blurry", ("embedding:EasyNegative",)),
        ("a (hat)1.2 and (cat)++", "a hat and cat", ("(hat)1.2", "(cat)++")),
        ("a hat++, cat--. C++", "a hat, cat. C++", ("++", "--")),
        ("<lyco:x:1><hypernet:y:1>", "", ("<lyco:x:1>", "<hypernet:y:1>")),
    ],
)
def test_weights_and_tags_go_and_words_stay(text, plain, removed) -> None:
    assert plain_prompt(text) == (plain, removed)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a cat in a hat",
            "a cat: the story, 1:2",
            "brand and break",
            " a  b , c",
        ),
        *("an (unclosed bracket", "smile :)", "<cat-toy> on grass", "a_b-c+d"),
    ],
)
def test_a_plain_prompt_stays_as_it_is(text: str) -> None:
    assert plain_prompt(text) == (text, ())


@settings(max_examples=80, deadline=None)
@given(st.text("ab (),:[]{}|.15<>\\\nANDBREK", max_size=60) | st.text(max_size=60))
def test_words_are_kept_whatever_is_written(text: str) -> None:
    plain, removed = plain_prompt(text)
    assert bool(removed) or plain == text
    if not re.search(r"<|embedding:|AND|BREAK|::|ADD", text):
        assert re.findall(r"[ab]+", plain) == re.findall(r"[ab]+", text)
