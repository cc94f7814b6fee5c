"""Phrases are encoded where they stand; token files are read and never run."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_ovam import Token, encode_phrase, load_token, load_tokens, save_token
from napari_ovam.attention.token_files import TokenFileError
from napari_ovam.attention.tokens import TokenError, check_token
from napari_ovam.attention.trace import ModelMismatchError
from napari_ovam.diffusion.phrases import text_space
from napari_ovam.diffusion.weights_hash import text_encoder_hash


def padded(pipe, text):
    """Return what the pipeline itself makes of a prompt."""
    return pipe.encode_prompt(text, "cpu", 1, False)[0][0]


def test_a_phrase_is_what_the_pipeline_encodes_without_its_padding(pipe):
    token = encode_phrase(pipe, "  red   cat ")
    assert token.name == "red cat"
    assert "".join(token.pieces) == "redcat"
    count = len(pipe.tokenizer.tokenize("red cat"))
    assert len(token.pieces) == count
    assert token.span == (1, 1 + count)
    assert token.model == text_encoder_hash(pipe)
    assert token.embedding.dtype == torch.float32
    assert not token.embedding.requires_grad
    torch.testing.assert_close(token.embedding, padded(pipe, "red cat")[: count + 2])


def test_a_word_of_several_pieces(pipe):
    token = encode_phrase(pipe, "Catfish")
    assert "".join(token.pieces) == "Catfish"
    assert len(token.pieces) > 1
    assert token.span == (1, 1 + len(token.pieces))
    assert len(token.embedding) == 2 + len(token.pieces)


def test_a_phrase_in_its_context(pipe):
    before, phrase, after = "a photo of a hat and a", "Red cat", "on the grass"
    first = 1 + len(pipe.tokenizer.tokenize(before))
    last = first + len(pipe.tokenizer.tokenize(phrase))
    prompt = f"{before} {phrase} {after}"
    token = encode_phrase(pipe, "red cat", context=prompt)
    assert token.span == (first, last)
    assert "".join(token.pieces) == "Redcat"
    torch.testing.assert_close(
        token.embedding, padded(pipe, prompt)[: len(token.embedding)]
    )
    alone = encode_phrase(pipe, "red cat")
    assert not torch.allclose(token.embedding[first], alone.embedding[1])


@pytest.mark.parametrize(
    ("phrase", "context", "message"),
    [
        ("", None, "phrase is ''"),
        ("  ", None, "phrase is '  '"),
        (None, None, "phrase is None"),
        ("cat", "", "context is ''"),
        ("K\udce4fer", None, r"K\\udce4fer.*no UTF-8"),
        ("at", "a cat", "'at' is not in the context 'a cat'"),
        ("cat " * 31, None, r"\d\d pieces .* takes 32"),
        ("cat", "cat " * 40, "context .* takes 32"),
    ],
)
def test_phrases_that_cannot_be_encoded(pipe, phrase, context, message):
    with pytest.raises(TokenError, match=message):
        encode_phrase(pipe, phrase, context=context)


@pytest.mark.parametrize(
    ("embedding", "span", "message"),
    [
        (torch.zeros(3), (1, 2), r"shape \(3,\)"),
        (torch.zeros(2, 4, dtype=torch.int64), (1, 2), "int64"),
        (torch.full((2, 4), float("nan")), (1, 2), "NaN"),
        (torch.zeros(2, 4), (1, 3), r"span of 'x' is \(1, 3\)"),
        (torch.zeros(2, 4), (1, 1), r"span of 'x' is \(1, 1\)"),
    ],
)
def test_tokens_that_make_no_sense(embedding, span, message):
    with pytest.raises(TokenError, match=message):
        Token("x", "", embedding, span)


@pytest.fixture
def token():
    info = {
        "phrase": "a cat",
        "losses": [0.5, 0.25],
        "scores": {"before": 0.1, "after": 0.9},
        "cancelled": False,
        "note": "12",
        "settings": {"recipe": "default", "iterations": None},
    }
    rows = torch.arange(8.0).reshape(2, 4)
    return Token("cät", "abc", rows, (1, 2), ("a", "cat"), info)


def test_a_saved_token_comes_back_whole(token, tmp_path):
    path = save_token(token, tmp_path / "cat.safetensors")
    again = load_token(path)
    assert torch.equal(again.embedding, token.embedding)
    for name in ("name", "model", "span", "pieces", "info"):
        assert getattr(again, name) == getattr(token, name)
    assert list(tmp_path.iterdir()) == [path]


def test_the_references_array(token, tmp_path):
    path = save_token(token, tmp_path / "cat.npy")
    np.testing.assert_array_equal(np.load(path), token.embedding.numpy())
    with pytest.warns(UserWarning, match="does not say which text encoder"):
        again = load_token(path)
    assert again.name == "cat"
    assert again.model == ""
    assert torch.equal(again.embedding, token.embedding)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_the_references_dictionary(tmp_path, pipe, protocol):
    rng = np.random.default_rng(0)
    arrays = {
        "cat": rng.normal(size=32).astype(np.float32),
        "dog": rng.normal(size=32).astype(">f8"),
        "fox": np.asfortranarray(rng.normal(size=(2, 32)).astype(np.float16)),
    }
    path = tmp_path / "tokens.npy"
    with path.open("wb") as file:
        box = np.array(arrays, dtype=object)
        header = np.lib.format.header_data_from_array_1_0(box)
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(box, file, protocol=protocol)
    with pytest.warns(UserWarning, match="does not say"):
        tokens = load_tokens(path)
    assert set(tokens) == set(arrays)
    for name, token in tokens.items():
        start, stop = token.span
        expected = np.atleast_2d(arrays[name])[-1]
        np.testing.assert_allclose(token.embedding[start:stop][0], expected, rtol=1e-6)
    with pytest.warns(UserWarning, match="does not say"):
        joined = load_tokens(path, target=text_space(pipe))
    start_token = encode_phrase(pipe, "cat").embedding[0]
    torch.testing.assert_close(joined["cat"].embedding[0], start_token)
    assert joined["cat"].span == (1, 2)


def test_what_numpy_itself_saves(tmp_path):
    path = tmp_path / "tokens.npy"
    np.save(path, {"cat": np.ones(6, np.float32)}, allow_pickle=True)
    with pytest.warns(UserWarning, match="does not say"):
        token = load_token(path)
    assert token.name == "cat"
    assert token.embedding.tolist() == [[1] * 6]


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("inside", [True, False], ids=["in the dict", "alone"])
def test_a_pickle_that_would_run_something_is_refused(tmp_path, inside):
    mark, path = tmp_path / "ran", tmp_path / "tokens.npy"
    bad = Malicious(mark)
    content = {"cat": np.ones(4), "dog": bad} if inside else bad
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"tokens\.npy .*only arrays are read"):
        load_tokens(path)
    assert not mark.exists()
    np.load(path, allow_pickle=True)  # it would have
    assert mark.exists()


def test_broken_and_other_files(token, tmp_path):
    path = save_token(token, tmp_path / "cat.safetensors")
    whole = path.read_bytes()
    np.save(tmp_path / "cat.npy", {"cat": np.ones(400, np.float32)}, allow_pickle=True)
    pickled = (tmp_path / "cat.npy").read_bytes()
    contents = {
        "short.safetensors": whole[:-5],
        "head.safetensors": whole[:20],
        "empty.safetensors": b"",
        "text.safetensors": b"not a token at all",
        "short.npy": pickled[:-300],
        "head.npy": pickled[:30],
        "pickle.npy": pickle.dumps({"cat": [1, 2]}),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_token(tmp_path / name)
    for value in (np.ones(4, int), np.ones((3, 4)), np.array([["a"]])):
        np.save(tmp_path / "odd.npy", value)
        with pytest.raises(ValueError, match=r"odd\.npy"):
            load_token(tmp_path / "odd.npy")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_token(tmp_path / "nowhere.safetensors")


@pytest.mark.filterwarnings("ignore")  # of the type of a changed header
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    objects=st.booleans(),
    places=st.lists(st.integers(0, 127) | st.integers(0, 400), min_size=1, max_size=4),
    value=st.integers(0, 255),
)
def test_a_damaged_npy_gives_tokens_or_the_named_error(
    tmp_path: Path, objects: bool, places: list[int], value: int
) -> None:
    path = tmp_path / "tokens.npy"
    rows = np.ones((2, 8), np.float32)
    np.save(path, {"cat": rows} if objects else rows, allow_pickle=True)
    content = bytearray(path.read_bytes())
    for place in places:
        content[min(place, len(content) - 1)] = value
    path.write_bytes(content)
    with suppress(TokenFileError):
        load_tokens(path)


@pytest.mark.filterwarnings("ignore")
def test_a_header_that_has_no_end_is_no_whole_token_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    np.save(path, np.ones((2, 8), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(2, 8)", b"(2, 8,"))
    with pytest.raises(TokenFileError, match=r"tokens\.npy is not a whole token file"):
        load_tokens(path)


def test_a_failed_save_keeps_the_old_file(token, tmp_path, monkeypatch):
    path = save_token(token, tmp_path / "cat.safetensors")
    before = path.read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_token(Token("dog", "", torch.zeros(2, 4)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_format_cannot_hold(token, tmp_path):
    with pytest.raises(ValueError, match=r"cat\.txt ends in neither"):
        save_token(token, tmp_path / "cat.txt")
    phrase = Token("cat", "", torch.zeros(3, 4))
    with pytest.raises(ValueError, match="has 3: save it as"):
        save_token(phrase, tmp_path / "cat.npy")
    odd = Token("cat", "", torch.zeros(2, 4), info={"image": torch.zeros(1)})
    with pytest.raises(ValueError, match="info 'image'"):
        save_token(odd, tmp_path / "cat.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_tokens_of_other_models(pipe, make_pipe, tmp_path):
    own = encode_phrase(pipe, "cat")
    assert check_token(own, text_space(pipe)) is own
    path = save_token(own, tmp_path / "cat.safetensors")
    other = make_pipe(seed=1)
    with pytest.raises(ModelMismatchError, match=own.model):
        load_token(path, text_space(other))
    assert load_token(path, text_space(other), confirm=True).model == ""
    with pytest.raises(ModelMismatchError, match=r"rows of 8 .* reads 32"):
        check_token(Token("cat", "", torch.zeros(2, 8)), text_space(pipe), confirm=True)
    unknown = Token("cat", "", torch.zeros(2, 32))
    assert check_token(unknown, text_space(pipe)) is unknown


@pytest.mark.parametrize("phrase", ["cat,", '"cat"', "(cat:1.3)", "((cat))"])
def test_a_phrase_is_encoded_without_what_is_not_meant_which_is_said(pipe, phrase):
    with pytest.warns(UserWarning, match=r"is read as 'cat'"):
        found = encode_phrase(pipe, phrase)
    expected = encode_phrase(pipe, "cat")
    assert found.pieces == expected.pieces
    torch.testing.assert_close(found.embedding, expected.embedding)


def test_signs_and_scripts_are_found_in_a_context(pipe):
    assert encode_phrase(pipe, "猫", context="一只猫在草地上").name == "猫"
    assert encode_phrase(pipe, "caf\u00e9", context="a cafe\u0301 at night").pieces
    with pytest.raises(TokenError, match=r"phrase is '\.\.\.'"):
        encode_phrase(pipe, "...")
