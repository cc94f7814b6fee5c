"""Traces hold what they say, and come back from files as they were."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from reference import random_trace
from safetensors.torch import save_file

import napari_ovam
from napari_ovam import SelfTrace, Trace, TraceSettings, load_trace, save_trace
from napari_ovam.attention.trace_files import TraceFileError
from napari_ovam.diffusion.weights_hash import text_encoder_hash

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trace():
    plain = random_trace(napari_ovam, bias=True)
    queries = torch.randn(3, 2, 24, 8)
    name = "up_blocks.0.attentions.0.transformer_blocks.0.attn1"
    own = SelfTrace(name, (4, 6), queries, queries + 1, 0.3)
    return replace(plain, model="abc", calls=(2, 5, 9), self_layers=(own,))


def tensors(trace: Trace) -> dict[str, torch.Tensor]:
    layers = (*trace.layers, *trace.self_layers)
    return {
        f"{layer.name}.{name}": value
        for layer in layers
        for name, value in vars(layer).items()
        if isinstance(value, torch.Tensor)
    }


def assert_same(actual: Trace, expected: Trace) -> None:
    assert tensors(actual).keys() == tensors(expected).keys()
    for name, tensor in tensors(expected).items():
        torch.testing.assert_close(tensors(actual)[name], tensor, rtol=0, atol=0)
    for name in ("image_size", "model", "branch", "calls"):
        assert getattr(actual, name) == getattr(expected, name)
    for one, other in zip(actual.layers, expected.layers, strict=True):
        assert (one.grid, one.scale) == (other.grid, other.scale)


def test_calls_are_selected_by_their_numbers(trace):
    part = trace.select(calls=[9, 2])
    assert part.calls == (2, 9)
    torch.testing.assert_close(
        part.layers[0].queries, trace.layers[0].queries[[0, 2]], rtol=0, atol=0
    )
    torch.testing.assert_close(
        part.self_layers[0].keys, trace.self_layers[0].keys[[0, 2]], rtol=0, atol=0
    )
    assert trace.select(calls=[-1]).calls == (9,)
    assert trace.select().calls == (2, 5, 9)


def test_layers_are_selected_by_name_and_grid(trace):
    assert [la.grid for la in trace.select(layers=[12]).layers] == [(8, 12), (8, 12)]
    assert trace.select(layers=[12]).self_layers == ()
    part = trace.select(layers=[trace.layers[0].name])
    assert [la.name for la in part.layers] == [trace.layers[0].name]
    assert len(part.self_layers) == 1  # of the same transformer block


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calls": [3]}, r"call 3 is not.*\(2, 5, 9\)"),
        ({"calls": [-4]}, "call -4"),
        ({"calls": []}, "calls is empty"),
        ({"layers": [7]}, r"no layer 7.*\[3, 6, 12\]"),
        ({"layers": ["mid"]}, "no layer 'mid'"),
        ({"layers": []}, "layers is empty"),
        ({"layers": "mid"}, "give a list"),
    ],
)
def test_what_is_not_there_cannot_be_selected(trace, options, message):
    with pytest.raises(ValueError, match=message):
        trace.select(**options)


def test_moving_changes_all_tensors(trace):
    half = trace.to("cpu", torch.float16)
    assert {t.dtype for t in tensors(half).values()} == {torch.float16}
    assert {t.device.type for t in tensors(trace.to("meta")).values()} == {"meta"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"queries": torch.zeros(3, 2, 23, 8)},
            r"up_blocks\.0\..*\(3, 2, 23, 8\).*4\*6",
        ),
        ({"queries": torch.zeros(3, 24, 8)}, r"\(3, 24, 8\)"),
        ({"queries": torch.zeros(3, 2, 24, 8).int()}, "int32"),
        ({"key_weight": torch.zeros(15, 12)}, r"\(15, 12\).*16"),
        ({"key_bias": torch.zeros(15)}, r"\(15,\).*16"),
        ({"grid": (0, 6)}, r"\(0, 6\)"),
    ],
)
def test_layers_that_contradict_themselves_are_refused(trace, change, message):
    with pytest.raises(ValueError, match=message):
        replace(trace.layers[0], **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branch": "both"}, "'both'"),
        ({"layers": ()}, "at least one layer"),
        ({"image_size": (0, 5)}, r"\(0, 5\)"),
        ({"calls": (1, 2)}, r"3 denoising calls.*2: \(1, 2\)"),
    ],
)
def test_traces_that_contradict_themselves_are_refused(trace, change, message):
    with pytest.raises(ValueError, match=message):
        replace(trace, **change)
    with pytest.raises(ValueError, match=r"attn2 more than once"):
        replace(trace, layers=trace.layers[:1] * 2)
    with pytest.raises(ValueError, match="'both'"):
        TraceSettings(branch="both")


def test_a_file_gives_back_the_trace(trace, tmp_path):
    path = tmp_path / "a trace.safetensors"
    save_trace(trace, path)
    assert_same(load_trace(path), trace)
    save_trace(trace.to("cpu", torch.bfloat16), path)  # over the older one
    assert_same(load_trace(path), trace.to("cpu", torch.bfloat16))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_parts_of_tensors_and_shared_tensors_are_saved(trace, tmp_path):
    part = trace.select(calls=[5, 9])
    same = [replace(part.layers[0], name=f"x.{i}.attn2") for i in range(2)]
    part = replace(part, layers=(*part.layers, *same))
    save_trace(part, tmp_path / "t.safetensors")
    assert_same(load_trace(tmp_path / "t.safetensors"), part)


def test_some_layers_can_be_loaded_alone(trace, tmp_path):
    path = save_trace(trace, tmp_path / "t.safetensors")
    assert_same(load_trace(path, layers=[12]), trace.select(layers=[12]))
    with pytest.raises(ValueError, match="no layer 5"):
        load_trace(path, layers=[5])


@pytest.mark.parametrize("kept", [0, 3, 8, 200, 5000, -1])
def test_a_truncated_file_is_named(trace, tmp_path, kept):
    path = save_trace(trace, tmp_path / "t.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TraceFileError, match=re.escape(str(path))):
        load_trace(path)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def write_foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def write_other_version(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, {"format": "napari-ovam trace 9"})


def write_without_tensors(path: Path) -> None:
    save_trace(random_trace(napari_ovam), path)
    content = path.read_bytes()
    assert b"up_blocks.1" in content
    path.write_bytes(content.replace(b"up_blocks.1", b"up_blocks.7", 1))


def write_nonsense(path: Path) -> None:
    about = '{"layers": [{"name": 5, "grid": "ab"}]}'
    meta = {"format": "napari-ovam trace 1", "trace": about}
    save_file({"weight": torch.zeros(3)}, path, meta)


@pytest.mark.parametrize(
    "write",
    [
        write_pickle,
        write_foreign,
        write_other_version,
        write_without_tensors,
        write_nonsense,
    ],
)
def test_a_file_that_is_no_trace_is_named(tmp_path, write):
    path = tmp_path / "t.safetensors"
    write(path)
    with pytest.raises(TraceFileError, match=re.escape(str(path))):
        load_trace(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        load_trace(tmp_path / "none.safetensors")


def test_a_failed_write_keeps_the_older_file(trace, tmp_path, monkeypatch):
    path = save_trace(trace, tmp_path / "t.safetensors")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_trace(trace.select(calls=[2]), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert_same(load_trace(path), trace)


def test_the_hash_tells_text_encoders_apart_but_not_their_dtypes(make_pipe):
    pipe, other = make_pipe(), make_pipe(seed=1)
    known = text_encoder_hash(pipe)
    assert len(known) == 32
    assert text_encoder_hash(other) != known
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        pipe.text_encoder.to(dtype)
        assert text_encoder_hash(pipe) == known
    with torch.no_grad():
        next(pipe.text_encoder.parameters()).sub_(0.01)
    assert text_encoder_hash(pipe) != known
    pipe.text_encoder = None
    assert text_encoder_hash(pipe) == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_may_read_a_saved_trace_as_far_as_the_umask_says(trace, tmp_path):
    ordinary, saved = tmp_path / "ordinary", tmp_path / "a.safetensors"
    ordinary.touch()
    save_trace(trace, saved)
    assert saved.stat().st_mode == ordinary.stat().st_mode
