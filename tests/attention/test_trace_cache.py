"""Traces at rest: lazily read, and cached within a limit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from napari_ovam import (
    GenerationSettings,
    LayerTrace,
    Trace,
    TraceSettings,
    generate,
    load_trace,
    save_trace,
)
from napari_ovam.attention import trace_files
from napari_ovam.attention.trace_cache import (
    DEFAULT_LIMIT,
    TraceCache,
    trace_bytes,
)

EXACT = TraceSettings(layers=None, calls=None, dtype=None, self_attention=True)
SETTINGS = GenerationSettings("a cat and a hat on the grass", seed=3, steps=4)


@pytest.fixture(scope="module")
def made(tiny):
    return generate(tiny, SETTINGS, trace=EXACT)


def small(value: float = 0, calls: int = 1, cells: int = 16, layers: int = 1) -> Trace:
    side = round(cells**0.5)
    return Trace(
        layers=tuple(
            LayerTrace(
                f"up_blocks.{i}.transformer_blocks.0.attn2",
                (side, side),
                torch.full((calls, 2, cells, 4), float(value)),
                torch.ones(8, 6),
                0.5,
            )
            for i in range(layers)
        ),
        image_size=(32, 32),
        model="",
        branch="cond",
    )


def assert_same(a: Trace, b: Trace) -> None:
    assert (a.calls, a.model, a.branch, a.image_size) == (
        b.calls,
        b.model,
        b.branch,
        b.image_size,
    )
    for one, other in zip(a.layers, b.layers, strict=True):
        assert one.queries.dtype == other.queries.dtype
        assert torch.equal(one.queries, other.queries)
        assert torch.equal(one.key_weight, other.key_weight)
    for one, other in zip(a.self_layers, b.self_layers, strict=True):
        assert torch.equal(one.queries, other.queries)
        assert torch.equal(one.keys, other.keys)


def test_a_trace_is_read_from_the_disk_layer_by_layer(tmp_path):
    layers = 4
    big = small(1.0, calls=30, cells=256 * 256, layers=layers)  # 63 MB a layer
    path = save_trace(big, tmp_path / "big.safetensors")
    each = big.layers[0].queries.nbytes
    del big
    process = psutil.Process()
    before = process.memory_info().rss
    trace = load_trace(path)
    assert process.memory_info().rss - before < each // 4
    assert trace.layers[2].queries.sum() == each // 4
    assert each * 0.8 < process.memory_info().rss - before < each * 1.5


def test_what_is_put_in_comes_out_and_is_counted(tmp_path, made):
    cache = TraceCache(tmp_path / "cache")
    assert cache.usage().size == 0
    assert cache.get("a") is None
    cache.put("a", made.trace)
    assert_same(cache.get("a"), made.trace)
    usage = cache.usage()
    assert usage.traces == 1
    assert trace_bytes(made.trace) <= usage.size < trace_bytes(made.trace) + 100_000
    assert usage.limit == DEFAULT_LIMIT
    assert cache.clear() == usage.size
    assert cache.usage().traces == 0
    assert cache.get("a") is None


def test_the_one_used_longest_ago_goes_first(tmp_path):
    size = TraceCache(tmp_path).put("x", small()).stat().st_size
    cache = TraceCache(tmp_path / "cache", limit=3 * size)
    for age, key in enumerate("abc"):
        path = cache.put(key, small(age))
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.get("a") is not None  # used now
    cache.put("d", small(4))
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]
    assert cache.usage().size <= cache.limit


def test_a_trace_above_the_limit_is_not_kept_and_nothing_goes_for_it(tmp_path):
    cache = TraceCache(tmp_path, limit=5000)
    cache.put("a", small())
    assert cache.put("b", small(cells=1024)) is None
    assert cache.get("a") is not None


def test_the_limit_is_remembered_and_kept_to(tmp_path):
    cache = TraceCache(tmp_path)
    for key in "abcd":
        cache.put(key, small())
    half = cache.usage().size // 2
    cache.set_limit(half)
    assert cache.usage().traces == 2
    assert TraceCache(tmp_path).limit == half
    with pytest.raises(ValueError, match="-1"):
        cache.set_limit(-1)
    (tmp_path / "limit.json").write_text("null")
    assert TraceCache(tmp_path).limit == DEFAULT_LIMIT


@pytest.mark.parametrize("damage", [b"", b"no trace", None])
def test_a_damaged_file_is_dropped_and_made_again(tmp_path, damage):
    cache = TraceCache(tmp_path)
    path = cache.put("a", small(1))
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    assert_same(cache.get_or_make("a", lambda: small(2)), small(2))
    assert_same(cache.get("a"), small(2))


def test_a_disk_that_takes_nothing_does_not_lose_the_trace(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = TraceCache(tmp_path / "file" / "cache")
    assert_same(cache.get_or_make("a", lambda: small(2)), small(2))


def test_what_a_killed_process_left_is_taken_away(tmp_path):
    cache = TraceCache(tmp_path)
    for name, age in ((".old.tmp", 10_000), (".new.tmp", 0)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    cache.put("a", small())
    assert {p.name for p in tmp_path.glob(".*")} == {".new.tmp"}


PROGRAM = """
import sys, random, torch
from napari_ovam.attention.trace import LayerTrace, Trace
from napari_ovam.attention.trace_cache import TraceCache
def small(v):
    queries = torch.full((1, 2, 16, 4), float(v))
    layer = LayerTrace('up_blocks.0.attn2', (4, 4), queries, torch.ones(8, 6), .5)
    return Trace((layer,), (32, 32), '', 'cond')
def use(folder, seed, goes_on, rounds):
    cache, pick = TraceCache(folder, 6000), random.Random(seed)
    while goes_on() or rounds > 0:
        v, rounds = pick.randrange(8), rounds - 1
        got = cache.get_or_make(f'k{v}', lambda: small(v))
        assert (got.layers[0].queries == v).all()
        if not pick.randrange(20): cache.clear()
if __name__ == '__main__':
    use(sys.argv[1], 1, lambda: False, 150)
"""


def test_two_processes_share_a_cache(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)])
    here: dict[str, Any] = {}
    exec(PROGRAM, here)  # noqa: S102 (ours)
    while not list(tmp_path.glob("*.safetensors")):
        assert other.poll() is None
        time.sleep(0.05)  # until it has imported all it needs
    here["use"](tmp_path, 2, lambda: other.poll() is None, 50)
    assert other.wait() == 0
    cache = TraceCache(tmp_path, 6000)
    assert cache.usage().size <= 6000 + 2000  # one that each put last
    assert all(cache.get(p.stem) is not None for p in tmp_path.glob("*.safetensors"))


def test_a_trace_that_another_deletes_while_it_is_opened_is_made_again(
    tmp_path, monkeypatch
):
    cache = TraceCache(tmp_path)
    cache.put("k", small())

    def vanished(path, framework):
        Path(path).unlink()
        return real(path, framework=framework)

    real = trace_files.safe_open
    monkeypatch.setattr(trace_files, "safe_open", vanished)
    assert cache.get("k") is None
