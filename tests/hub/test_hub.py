"""Getting models from a hub: what is asked first, and downloads that are cut short."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_server import HubServer

from napari_ovam import load_pipeline
from napari_ovam.base.progress import Cancelled
from napari_ovam.hub import transfer
from napari_ovam.hub.download import download_model
from napari_ovam.hub.families import ModelError
from napari_ovam.hub.hub import describe
from napari_ovam.hub.hub_files import PickleError
from napari_ovam.hub.pickles import convert_pickles
from napari_ovam.hub.store import find_model, list_models

NAME = "somebody/small"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory) -> Path:
    """Return the small pipeline as a repository of the hub: with what nobody needs."""
    folder = tmp_path_factory.mktemp("repository")
    pipe.save_pretrained(folder)
    for name in ("unet", "vae"):
        part = folder / name / "diffusion_pytorch_model.safetensors"
        shutil.copy(part, part.with_name("diffusion_pytorch_model.fp16.safetensors"))
        torch.save({"a": torch.ones(3)}, part.with_suffix(".bin"))
    shutil.copy(folder / UNET, folder / "small-v1.safetensors")
    (folder / "tokenizer" / "empty.txt").touch()
    (folder / "README.md").write_text("# Small")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"x" * 5000)
    (folder / "unet" / "evil.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def hub(saved, monkeypatch):
    """Return a hub with one model; the rest of the network stays away."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server = HubServer()
    server.add(NAME, saved, cardData={"license": "openrail"}, tags=[])
    yield server
    server.close()


@pytest.fixture
def where(hub, tmp_path, monkeypatch):
    """Return where the models of the test go to, from the hub of the test."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    _, _, path = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + path)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    return cache


def names(model) -> set[str]:
    return {file.name for file in model.files}


def cancel_at(share: float):
    def progress(done: int, total: int) -> None:
        if done > share * total:
            raise Cancelled

    return progress


def test_size_and_licence_are_known_before_anything_is_downloaded(where, saved):
    model = describe(NAME)
    assert model.licence == "openrail"
    assert model.architecture.startswith("Stable Diffusion")
    assert not model.gated
    assert model.variants == ("", "fp16")
    assert model.size == sum((saved / name).stat().st_size for name in names(model))
    assert model.missing == model.size
    assert not where.exists()


def test_only_what_is_needed_is_downloaded_and_it_loads_offline(
    where, hub, monkeypatch
):
    seen = []
    folder = download_model(NAME, progress=lambda *p: seen.append(p))
    here = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")}
    assert UNET in here
    assert not [n for n in here if "fp16" in n or n.endswith((".bin", ".py", ".md"))]
    assert not [n for n in here if "safety" in n or n == "small-v1.safetensors"]
    total = describe(NAME).size
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.close()
    assert load_pipeline(folder, device="cpu").unet is not None
    assert load_pipeline(NAME, device="cpu").unet is not None
    found = find_model(NAME)
    assert found is not None
    assert found.complete
    assert found.size == total


def test_the_half_precision_variant_is_taken_where_there_is_one(where):
    model = describe(NAME, variant="fp16")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in names(model)
    assert UNET not in names(model)
    assert "text_encoder/model.safetensors" in names(model)  # it has no other
    folder = download_model(model)
    assert load_pipeline(folder, device="cpu").unet is not None
    with pytest.raises(ModelError, match=r"no variant 'int4'.*'full', 'fp16'"):
        describe(NAME, variant="int4")


def test_a_cancelled_download_stops_soon_and_goes_on_where_it_was(where, hub):
    hub.slow = 0.02
    with pytest.raises(Cancelled):
        download_model(NAME, progress=cancel_at(0.5))
    [unfinished] = [m for m in list_models([]) if m.source == "hub"]
    assert "goes on from there" in unfinished.problem
    arrived = describe(NAME)
    assert 0.3 < arrived.missing / arrived.size < 0.6

    hub.slow, hub.sent = 0, {}
    first = []
    folder = download_model(NAME, progress=lambda done, _: first.append(done))
    assert hub.ranges  # it asked for the rest of a file
    again = sum(hub.sent.values())
    assert again < arrived.missing + 20_000  # what was on its way
    assert load_pipeline(folder, device="cpu").unet is not None
    assert not list(where.rglob("*.incomplete"))


def test_cancel_does_not_wait_for_a_server_that_hangs(where, hub, monkeypatch):
    monkeypatch.setattr(transfer, "_TIMEOUT", 2.0)
    hub.hang = True
    last, cancelled = (0, time.monotonic()), 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last, cancelled
        if done > last[0]:
            last = done, time.monotonic()
        elif time.monotonic() - last[1] > 1:  # nothing comes any more
            cancelled = time.monotonic()
            raise Cancelled

    with pytest.raises(Cancelled):
        download_model(NAME, progress=progress)
    assert time.monotonic() - cancelled < 1
    assert describe(NAME).missing > 0
    hub.hang = False
    assert download_model(NAME).is_dir()


def test_a_connection_that_breaks_is_taken_up_again(where, hub):
    hub.breaks = 2
    assert download_model(NAME).is_dir()
    assert len(hub.ranges) == 2


def test_a_server_without_ranges_sends_all_of_it_again(where, hub):
    hub.breaks, hub.knows_ranges = 1, False
    folder = download_model(NAME)
    assert load_pipeline(folder, device="cpu").unet is not None


def test_a_damaged_file_is_not_kept(where, hub):
    hub.damage = True
    with pytest.raises(ModelError, match=r"damaged.*get it again"):
        download_model(NAME)
    hub.damage = False
    folder = download_model(NAME)
    assert load_pipeline(folder, device="cpu").unet is not None


def test_a_second_download_fetches_nothing(where, hub):
    first = download_model(NAME)
    hub.sent = {}
    assert download_model(NAME) == first
    assert set(hub.sent) <= {"model_index.json"}


def test_pickles_are_refused_by_name_and_converted_when_told(
    where, hub, saved, tmp_path
):
    repository = Path(shutil.copytree(saved, tmp_path / "pickled"))
    for part in (repository / "vae").glob("*.safetensors"):
        part.unlink()
    weights = load_pipeline(saved, device="cpu").vae.state_dict()
    torch.save(weights, repository / "vae" / "diffusion_pytorch_model.bin")
    hub.add("somebody/pickled", repository)
    with pytest.raises(PickleError, match=r"vae/diffusion_pytorch_model\.bin"):
        describe("somebody/pickled")
    model = describe("somebody/pickled", pickles=True)
    assert model.pickles == ("vae/diffusion_pytorch_model.bin",)
    folder = download_model(model)
    with pytest.raises(ModelError, match="pickles"):
        load_pipeline(folder, device="cpu")
    [made] = convert_pickles(folder)
    assert made.name == "diffusion_pytorch_model.safetensors"
    loaded = load_pipeline(folder, device="cpu").vae.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_what_lies_beside_a_pickle_is_not_replaced(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.ckpt")
    there = tmp_path / "old.safetensors"
    there.write_text("mine")
    with pytest.raises(ModelError, match=r"old\.safetensors is there already"):
        convert_pickles(tmp_path / "old.ckpt")
    assert there.read_text() == "mine"


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"a": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(ModelError, match="could run code"):
        convert_pickles(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "evil.safetensors").exists()


def test_models_of_other_kinds_are_refused_before_a_download(where, hub):
    hub.repos["somebody/chat"] = {"config.json": b"{}"}
    hub.repos["somebody/chroma"] = {
        "model_index.json": b'{"_class_name": "ChromaPipeline"}'
    }
    hub.about["somebody/chat"] = hub.about["somebody/chroma"] = {}
    with pytest.raises(ModelError, match=r"no diffusers pipeline.*model_index\.json"):
        describe("somebody/chat")
    with pytest.raises(ModelError, match="Chroma"):
        describe("somebody/chroma")
    assert not where.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("somebody/nothing", "no model 'somebody/nothing'"),
        ("so:mebody/x", "no hub id"),
    ],
)
def test_a_wrong_name_is_said(where, name, message):
    with pytest.raises(ModelError, match=message):
        describe(name)


def test_no_network_and_offline_are_said_with_what_to_do(where, hub, monkeypatch):
    hub.close()
    with pytest.raises(ModelError, match=r"cannot be reached.*on this computer"):
        describe(NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set. Unset it"):
        describe(NAME)


def test_a_gated_model_says_where_to_accept_its_terms(where, hub):
    hub.refuse = 403
    with pytest.raises(ModelError, match="accept its terms"):
        describe(NAME)


def test_a_full_disk_is_known_before(where, monkeypatch):
    class Full:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    with pytest.raises(OSError, match="make room"):
        download_model(NAME)
    assert not where.exists()
