"""Prompts of a dataset, from files as people have them and from templates."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam.workflows.dataset import prompts as dataset_prompts
from napari_ovam.workflows.dataset.prompts import (
    Prompt,
    PromptError,
    fill_templates,
    read_prompts,
)


def texts(prompts):
    return [prompt.text for prompt in prompts]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_text_in_any_encoding_without_the_empty_ones(tmp_path, encoding, end):
    file = tmp_path / "prompts.txt"
    lines = ["a cat", "", "  ", "a  hät ", "a cat", "\t熊猫", ""]
    file.write_bytes(end.join(lines).encode(encoding))
    found, notes = read_prompts(file)
    assert texts(found) == ["a cat", "a hät", "熊猫"]
    assert notes == ["1 of 4 prompts stand there more than once."]


def test_tables_have_a_column_of_prompts(tmp_path):
    file = tmp_path / "prompts.csv"
    file.write_bytes(
        b"\xef\xbb\xbfid,Caption,negative_prompt,classes\r\n"
        b'1,"a cat, and a hat",blurred,cat; hat\r\n'
        b",,,\r\n"
        b"2,a dog\r\n"
    )
    found, _ = read_prompts(file)
    assert found == [
        Prompt("a cat, and a hat", "blurred", ("cat", "hat")),
        Prompt("a dog"),
    ]
    file.write_text("a cat\na dog\n")
    with pytest.raises(PromptError, match="columns a cat: name one of them 'prompt'"):
        read_prompts(file)
    file.write_text("prompt\na cat, and a hat\n")
    with pytest.raises(PromptError, match=r"line 2: it has 2 cells .* put quotes"):
        read_prompts(file)


def test_jsonl_names_the_line_that_is_wrong(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"text": "a cat", "classes": ["cat"]}\n\n"a dog"\n')
    found, _ = read_prompts(file)
    assert found == [Prompt("a cat", classes=("cat",)), Prompt("a dog")]
    for wrong in ('{"prompt": 3}', "[1]", "{", '{"title": "x"}'):
        file.write_text(f'"a dog"\n{wrong}\n')
        with pytest.raises(PromptError, match="line 2"):
            read_prompts(file)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_a_file_without_prompts_says_so(tmp_path, content):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(PromptError, match="holds no prompt"):
        read_prompts(file)


def test_bytes_that_are_no_text_are_refused_by_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("a hät".encode("latin-1"))
    with pytest.raises(PromptError, match="not in UTF-8"):
        read_prompts(file)
    (tmp_path / "p.jsonl").write_text('"a cat \\ud83d"\n')
    with pytest.raises(PromptError, match="line 1"):
        read_prompts(tmp_path / "p.jsonl")


def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"a cat number {i}\n" for i in range(100_000)))
    begin = time.perf_counter()
    found, _ = read_prompts(file)
    assert len(found) == 100_000
    assert time.perf_counter() - begin < 20


def test_templates_fill_lists_each_pair_once():
    lists = {"class": ["cat", "owl", "dog"], "place": ["on the grass", "in the snow"]}
    found = fill_templates(["a {class} {place}", "a {class} and a {class}"], lists)
    assert len(found) == 3 * 2 + 3
    assert found[0] == Prompt("a cat on the grass", classes=("cat",))
    assert "an owl in the snow" in texts(found)
    assert Prompt("a cat and an owl", classes=("cat", "owl")) in found
    assert "a cat and a cat" not in texts(found)


def test_a_template_without_its_list_is_refused(monkeypatch):
    with pytest.raises(PromptError, match=r"\{place\} and there is no such list"):
        fill_templates(["a {class} {place}"], {"class": ["cat"]})
    monkeypatch.setattr(dataset_prompts, "MOST", 99)
    words = [str(i) for i in range(10)]
    with pytest.raises(PromptError, match="more than 99"):
        fill_templates(["{a} {b}"], {"a": words, "b": words})


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text("abc {}", min_size=1, max_size=8), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from("xyz"))),
)
def test_templates_are_filled_or_refused_by_name(templates, lists):
    try:
        found = fill_templates(templates, lists)
    except PromptError:
        return
    assert len(found) == len(set(found))
    assert all(prompt.text.strip() for prompt in found)
