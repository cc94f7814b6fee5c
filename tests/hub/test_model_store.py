"""The list of models on this machine: found, measured, and said what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from napari_ovam import load_pipeline
from napari_ovam.hub.recent import (
    forget_folder,
    model_folders,
    recent_models,
    remember_folder,
    remember_model,
)
from napari_ovam.hub.store import find_model, human_size, list_models

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    """Start with an empty machine: no hub cache, nothing remembered."""
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "c"))


@pytest.fixture
def kept(saved, tmp_path) -> Path:
    """Return a folder in which a person keeps models, one folder deeper."""
    shutil.copytree(saved, tmp_path / "kept" / "mine" / "small")
    return tmp_path / "kept"


def test_the_embedded_model_is_always_there():
    [model] = list_models()
    assert (model.name, model.source, model.complete) == ("tiny", "embedded", True)
    assert model.size > 1_000_000


def test_folders_and_files_are_found_and_their_names_load(kept, saved):
    save_file({"lora_unet_down.weight": torch.ones(2)}, kept / "style.safetensors")
    (kept / "old.ckpt").write_bytes(b"pickle")
    (kept / "notes.txt").write_text("no model")
    models = {m.path.name: m for m in list_models([kept])}
    assert set(models) == {"tiny", "small", "style.safetensors", "old.ckpt"}
    small = models["small"]
    assert small.complete
    assert small.architecture.startswith("Stable Diffusion")
    assert small.size == sum(p.stat().st_size for p in saved.rglob("*") if p.is_file())
    assert load_pipeline(small.name, device="cpu").unet is not None
    assert "LoRA" in models["style.safetensors"].problem
    assert "can run code" in models["old.ckpt"].problem
    assert "convert" in models["old.ckpt"].problem


def test_links_to_models_are_followed_and_each_is_listed_once(kept, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "linked").symlink_to(kept / "mine", target_is_directory=True)
    (folder / "round").symlink_to(folder, target_is_directory=True)
    (folder / "again").symlink_to(kept / "mine" / "small", target_is_directory=True)
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    [_, small] = list_models([folder])
    assert small.complete
    assert small.path.resolve() == (kept / "mine" / "small").resolve()
    assert load_pipeline(small.name, device="cpu").unet is not None


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_weights_that_are_cut_off_are_seen(kept, keep):
    path = kept / "mine" / "small" / UNET
    path.write_bytes(path.read_bytes()[:keep])
    [_, small] = list_models([kept])
    assert "broken or incomplete" in small.problem
    assert "download it again" in small.problem


def test_a_missing_shard_is_seen(kept):
    part = kept / "mine" / "small" / "unet"
    weights = part / "diffusion_pytorch_model.safetensors"
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (part / f"{weights.name}.index.json").write_text(json.dumps(index))
    shutil.copy(weights, part / names[0])
    weights.rename(part / names[1])
    assert find_model(str(kept / "mine" / "small")).complete
    (part / names[1]).unlink()
    assert names[1] in find_model(str(kept / "mine" / "small")).problem


def test_language_models_in_the_cache_are_not_listed(tmp_path):
    snapshot = tmp_path / "c" / "models--a--chat" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert [m.name for m in list_models([])] == ["tiny"]


def test_recent_models_come_first_and_stay_loadable(kept):
    other = Path(shutil.copytree(kept / "mine" / "small", kept / "another"))
    remember_model(str(kept / "mine" / "small"))
    remember_model("tiny")
    models = list_models([kept])
    assert [m.recent for m in models] == [0, 1, None]
    assert models[2].path == other
    assert [m.path.name for m in list_models([])] == ["tiny", "small"]
    shutil.rmtree(kept)
    assert [m.name for m in list_models([kept])] == ["tiny"]


def test_folders_are_remembered_until_they_are_forgotten(kept, tmp_path):
    remember_folder(kept)
    remember_folder(kept)
    assert model_folders() == [kept]
    assert len(list_models()) == 2
    forget_folder(kept)
    assert model_folders() == []
    (tmp_path / "scratch" / "recent-models.json").write_text('{"not": "a list"}')
    assert recent_models() == []


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1500, "1.5 kB"), (4_270_000_000, "4.3 GB"), (5e12, "5000.0 GB")],
)
def test_sizes_are_told_as_people_read_them(size, text):
    assert human_size(size) == text
