"""`napari-ovam models`: what a person reads and what it does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import huggingface_hub
import pytest
import torch
from hub_server import HubServer
from typer.testing import CliRunner

from napari_ovam.attention.trace import LayerTrace, Trace
from napari_ovam.attention.trace_cache import TraceCache
from napari_ovam.cli import models as models_cli

if TYPE_CHECKING:
    from pathlib import Path

NAME = "somebody/small"


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def hub(saved, monkeypatch, tmp_path):
    server = HubServer()
    server.add(NAME, saved, cardData={"license": "openrail"}, gated="auto")
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield server
    server.close()


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("NAPARI_OVAM_CACHE", str(tmp_path / "traces"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "c"))


def run(*words, code: int = 0) -> str:
    result = CliRunner().invoke(models_cli.app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_list_shows_what_is_here_and_remembers_folders(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "kept" / "mine")
    (tmp_path / "kept" / "old.ckpt").write_bytes(b"pickle")
    assert "mine" not in run("list")
    run("list", "--folder", tmp_path / "kept")
    text = run("list")
    assert "tiny  " in text
    assert "kept/mine  " in text
    assert "cannot be loaded: old.ckpt is a pickle" in text
    assert "mine" not in run("list", "--forget", tmp_path / "kept")
    assert "there is no folder" in run("list", "--folder", tmp_path / "x", code=1)


def test_info_tells_licence_and_size_before_and_memory_after_the_download(
    hub, tmp_path, monkeypatch
):
    before = run("info", NAME)
    assert "Licence: openrail" in before
    assert "terms have to be accepted" in before
    assert "not here yet" in before
    assert "Memory" not in before
    got = run("get", NAME)
    assert str(tmp_path / "c") in got.replace("\n", "")
    after = run("info", NAME, "--device", "cpu", "--width", 64)
    assert "Memory: about" in after
    assert "of which 0 bytes are not here yet" in after
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "Not looked up on the hub" in run("info", NAME, "--device", "cpu")
    assert NAME in run("list")


def test_list_says_the_memory_of_each_where_that_is_asked_for(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "mine" / "small")
    text = run("list", "--folder", tmp_path / "mine", "--memory", "--device", "cpu")
    assert text.count("on cpu: weights") == 2  # the embedded one's, too


def test_info_of_the_embedded_model_needs_no_network():
    assert "Memory: about" in run("info", "tiny", "--device", "cpu")


def test_info_offers_what_takes_less(monkeypatch):
    from napari_ovam.diffusion import memory

    monkeypatch.setattr(memory, "free_memory", lambda _: 1)
    text = run("info", "tiny", "--device", "cpu")
    assert "does not fit" in text
    assert "Half precision" in text


def test_mistakes_are_one_line_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for words in (("info", NAME), ("get", NAME)):
        text = run(*words, code=1)
        assert text.startswith("napari-ovam: ")
        assert "Unset it" in text
    assert "is no pickle" in run("convert", "x.safetensors", code=1)


def test_a_pickled_checkpoint_is_converted(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "old.ckpt")
    assert "old.safetensors" in run("convert", tmp_path / "old.ckpt").replace("\n", "")
    assert (tmp_path / "old.safetensors").is_file()


def test_the_cache_is_shown_limited_and_emptied():
    layer = LayerTrace(
        "up_blocks.0.attn2", (4, 4), torch.ones(1, 2, 16, 4), torch.ones(8, 6), 0.5
    )
    TraceCache().put("a", Trace((layer,), (32, 32), "", "cond"))
    assert "1 trace," in run("cache")
    assert "of at most 2.0 GB" in run("cache", "--limit", "2GB")
    assert "deleted" in run("cache", "--clear")
    assert "0 traces, 0 bytes" in run("cache")
    assert "such as 500MB" in run("cache", "--limit", "much", code=1)


def test_help_does_not_wait_for_torch():
    program = (
        "import sys, napari_ovam.cli.models; assert not {'torch', 'diffusers', "
        "'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
