"""The dialog that lists, describes and downloads models."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import huggingface_hub
import numpy as np
import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "somebody/small"
PICKLED = "somebody/old"
SLOW = 60_000  # ms


class Picker:
    """The dialog as a person has it before them."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.bot = panel, panel.bot
        panel.click("model_browse_button")
        self.dialog = panel.widget.sections["Image"]._picker
        self.until(lambda: self.names)

    def find(self, name: str) -> Any:
        from qtpy.QtWidgets import QWidget

        return self.dialog.findChild(QWidget, name)

    def until(self, check: Callable[[], Any]) -> None:
        self.bot.waitUntil(lambda: bool(check()), timeout=SLOW)

    @property
    def names(self) -> list[str]:
        tree = self.dialog.list
        return [tree.topLevelItem(i).text(0) for i in range(tree.topLevelItemCount())]

    @property
    def about(self) -> str:
        return self.dialog.about.text()

    @property
    def told(self) -> str:
        return self.find("hub_text").text()

    def pick(self, name: str) -> None:
        tree = self.dialog.list
        tree.setCurrentItem(tree.topLevelItem(self.names.index(name)))

    def look_up(self, name: str) -> None:
        self.find("hub_id").setText(name)
        self.find("look_up_button").click()
        self.until(lambda: not self.dialog.getting.busy)


@pytest.fixture
def hub(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """Return a hub with one good model and one of pickles; the network stays away."""
    constants = huggingface_hub.constants
    old = tmp_path / "old"
    shutil.copytree(model_folder, old)
    for weights in [*old.rglob("*.safetensors")]:
        name = weights.with_suffix(".bin").name
        name = "pytorch_model.bin" if name == "model.bin" else name
        torch.save(load_file(weights), weights.with_name(name))
        weights.unlink()
    server = HubServer()
    server.add(NAME, model_folder, cardData={"license": "openrail"}, tags=[])
    server.add(PICKLED, old, cardData={}, tags=[])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("NAPARI_OVAM_CACHE", str(tmp_path / "traces"))
    yield server
    server.close()


@pytest.fixture
def picker(hub: HubServer, panel: Any) -> Picker:
    return Picker(panel)


def test_what_is_here_is_listed_with_its_memory(picker: Picker) -> None:
    assert picker.names[0] == "tiny"
    picker.pick("tiny")
    picker.until(lambda: "weights" in picker.about)
    assert "are free" in picker.about
    assert picker.find("use_model_button").isEnabled()
    picker.find("use_model_button").click()
    assert picker.panel.find("model").currentText() == "tiny"
    assert not picker.dialog.isVisible()


def test_less_memory_is_one_click(picker: Picker, model_folder: Path) -> None:
    picker.dialog.add_file(str(model_folder))
    picker.until(lambda: picker.dialog.name == str(model_folder))
    picker.until(lambda: picker.find("option_0") is not None)
    choice = picker.dialog.choice
    option = next(
        button
        for button in picker.dialog.findChildren(type(picker.find("option_0")))
        if "Half precision" in button.text()
    )
    option.click()
    assert picker.panel.session.models.plans[choice].dtype == "bfloat16"
    picker.until(lambda: picker.find("as_usual_button") is not None)
    picker.find("use_model_button").click()

    picker.panel.press("generate_button")
    pipe = picker.panel.session.models.loaded(choice)
    assert pipe.unet.dtype == torch.bfloat16
    assert picker.panel.session.current.image.any()

    picker.panel.click("model_browse_button")
    picker.until(lambda: picker.find("as_usual_button") is not None)
    picker.find("as_usual_button").click()
    assert choice not in picker.panel.session.models.plans


def test_a_model_is_looked_up_downloaded_and_used(picker: Picker) -> None:
    assert NAME not in picker.names
    picker.look_up(NAME)
    assert "licence openrail" in picker.told
    assert "MB" in picker.told or "kB" in picker.told
    picker.find("download_button").click()
    picker.until(lambda: picker.dialog.name == NAME)
    assert NAME in picker.names
    picker.until(lambda: "weights" in picker.about)
    picker.find("use_model_button").click()
    picker.panel.press("generate_button")
    assert picker.panel.session.current.choice.model == NAME


def test_a_cancelled_download_goes_on_where_it_was(
    picker: Picker, hub: HubServer
) -> None:
    hub.slow = 0.05
    picker.look_up(NAME)
    picker.find("download_button").click()
    picker.until(lambda: sum(hub.sent.values()) > 50_000)
    # The panel is not held up by it.
    assert not picker.panel.session.busy
    picker.find("cancel_download_button").click()
    picker.until(lambda: not picker.dialog.getting.busy)
    assert "stays" in picker.told
    hub.slow = 0
    picker.look_up(NAME)
    assert "of it are here" in picker.told
    assert picker.find("download_button").text() == "Go on"
    hub.ranges.clear()
    picker.find("download_button").click()
    picker.until(lambda: picker.dialog.name == NAME)
    assert hub.ranges  # it asked for the rest of a file


def test_pickles_are_refused_until_told(picker: Picker) -> None:
    picker.look_up(PICKLED)
    assert "pickle" in picker.told
    assert not picker.find("download_button").isEnabled()
    picker.find("take_pickles_button").click()
    picker.until(lambda: not picker.dialog.getting.busy)
    assert "converted" in picker.told
    picker.find("download_button").click()
    picker.until(lambda: picker.dialog.name == PICKLED)
    picker.until(lambda: "weights" in picker.about)
    assert picker.dialog.model.complete


def test_a_pickled_checkpoint_is_named_and_can_be_converted(
    picker: Picker, tmp_path: Path
) -> None:
    path = tmp_path / "their.ckpt"
    torch.save({"state_dict": {"a": torch.ones(3)}}, path)
    picker.dialog.add_file(str(path))
    picker.until(lambda: picker.dialog.name == str(path))
    assert "run code" in picker.about
    assert not picker.find("use_model_button").isEnabled()
    picker.find("convert_model_button").click()
    picker.until(lambda: "their.safetensors" in picker.dialog.name)
    made = load_file(path.with_suffix(".safetensors"))
    np.testing.assert_array_equal(made["a"], np.ones(3))
    # It holds three numbers and is no model, and that is said.
    assert picker.about
    assert not picker.find("use_model_button").isEnabled()


def test_without_a_network_what_is_here_works(picker: Picker, hub: HubServer) -> None:
    hub.close()
    picker.look_up(NAME)
    assert "cannot be reached" in picker.told
    assert not picker.find("download_button").isEnabled()
    picker.pick("tiny")
    assert picker.find("use_model_button").isEnabled()


def test_an_unknown_name_is_said(picker: Picker) -> None:
    picker.look_up("nobody/nothing")
    assert "nobody/nothing" in picker.told


def test_a_model_that_is_not_here_is_not_fetched_unasked(
    picker: Picker, hub: HubServer
) -> None:
    picker.dialog.hide()
    picker.panel.find("model").setCurrentText(NAME)
    picker.panel.press("generate_button")
    assert "not on this computer" in picker.panel.status
    assert not hub.sent


def test_kept_traces_are_counted_limited_and_emptied(
    picker: Picker, tmp_path: Path
) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.safetensors").write_bytes(b"x" * 1000)
    picker.dialog.look()
    picker.until(lambda: picker.find("cache_text").text() == "3 traces, 3.0 kB")
    limit = picker.find("cache_limit")
    assert limit.value() == 5.0
    limit.setValue(2)
    limit.editingFinished.emit()
    picker.until(lambda: (folder / "limit.json").exists())
    picker.find("empty_cache_button").click()
    picker.until(lambda: picker.find("cache_text").text().startswith("0 traces"))
    assert not [*folder.glob("*.safetensors")]
    picker.until(lambda: limit.value() == 2.0)
