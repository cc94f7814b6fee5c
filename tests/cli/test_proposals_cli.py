"""The commands on projects and on the token library, as a script would call them."""

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from napari_ovam import Token
from napari_ovam.cli.proposals import register
from napari_ovam.project import Project
from napari_ovam.project.token_library import TokenLibrary
from napari_ovam.scenes import load_scenes


@pytest.fixture
def run(loaded_once, monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_OVAM_TOKENS", str(tmp_path / "tokens"))
    app = typer.Typer()
    register(app)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def ok(result):
    assert result.exit_code == 0, result.output
    return result.output


def test_proposals_and_better_tokens_from_a_shell(run, tmp_path):
    project = Project.create(tmp_path / "project")
    project.classes.add("cat")
    project.classes.add("ball")
    scenes = [s for s in load_scenes() if "cat" in s.classes.values()][:3]
    for scene in scenes:
        project.add_sample(scene.image, name=scene.name)
    assert "3 proposed, 0 left" in ok(run("propose", project.path))
    assert "0 proposed, 3 left" in ok(run("propose", project.path))
    output = ok(run("propose", project.path, "--redo", "--class", "cat"))
    assert "3 proposed" in output
    assert "no class 'dog'" in run("propose", project.path, "--class", "dog").output
    project = Project.open(project.path)
    for scene in scenes[:2]:
        number = next(i for i, name in scene.classes.items() if name == "cat")
        labels = (scene.labels == number).astype(np.uint8)
        project.save_labels(scene.name, labels, "accepted")
    result = ok(run("improve", project.path, "--store", "always", "--iterations", 3))
    assert "cat" in result
    assert "2 left out; used now" in result
    assert "ball: no accepted image" in result
    assert Project.open(project.path).classes[1].source == "token"
    assert run("improve", project.path, "--store", "often").exit_code == 1
    like = ("propose", project.path, "--like", scenes[0].name)
    assert "1 proposed, 1 left" in ok(run(*like, "--class", "cat"))
    assert "needs one --class" in run(*like).output
    (project.path / "images" / f"{scenes[2].name}.png").unlink()
    result = run("propose", project.path, "--redo")
    assert result.exit_code == 2
    assert scenes[2].name in result.output


def test_the_token_library_from_a_shell(run, tmp_path):
    library = TokenLibrary(tmp_path / "tokens")
    for name, seed in (("cat", 1), ("dog", 2)):
        rows = torch.randn(2, 12, generator=torch.Generator().manual_seed(seed))
        library.add(Token(name, "abc", rows, info={"images": 3, "iou": 0.5}))
    (library.folder / "bad.safetensors").write_bytes(b"no token")
    listed = ok(run("tokens", "list", "--sort", "iou", "--descending"))
    assert "'cat' of 'cat', model abc, 3 images, IoU 0.50" in listed
    assert "bad.safetensors: damaged" in listed
    ok(run("tokens", "export", "cat", tmp_path / "cat.npy"))
    assert run("tokens", "export", "cat", tmp_path / "cat.npy").exit_code == 1
    output = ok(run("tokens", "import", tmp_path / "cat.npy"))
    assert "text encoder" in output
    assert "cat-2.safetensors" in output
    ok(run("tokens", "remove", "cat-2"))
    assert "cat-2" not in ok(run("tokens", "list"))
    assert "cat-2" in ok(run("tokens", "restore", "cat-2"))
    result = run("tokens", "remove", "fox")
    assert result.exit_code == 1
    assert "no token 'fox'" in result.output
    assert run("tokens", "list", "--sort", "size").exit_code == 1
