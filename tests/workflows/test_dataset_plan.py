"""A plan: what it is made of, what is refused, and that it cannot change unseen."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from napari_ovam import GenerationSettings, Token
from napari_ovam.diffusion.weights_hash import model_hash, text_encoder_hash
from napari_ovam.project import Project
from napari_ovam.project.class_tokens import give_token
from napari_ovam.workflows.dataset.plan import Plan, PlanError
from napari_ovam.workflows.dataset.planning import (
    plan_pictures,
    plan_prompts,
    start_folder,
)
from napari_ovam.workflows.dataset.prompts import Prompt
from napari_ovam.workflows.dataset.verdicts import Ledger, next_items

SETTINGS = GenerationSettings("", steps=2)
PROMPTS = [Prompt("a cat"), Prompt("two dogs"), Prompt("a cat and a dog")]


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "project")
    for name in ("cat", "dog"):
        project.classes.add(name)
    project.save()
    return project


def planned(project, pipe, prompts=PROMPTS, **how):
    how = {"model": "small", "dtype": "auto", **how}
    notes = []
    return plan_prompts(
        project, pipe, prompts, SETTINGS, note=notes.append, **how
    ), notes


def test_items_are_prompts_with_their_classes_seed_by_seed(project, pipe):
    plan, notes = planned(project, pipe, seeds=(3, 4))
    assert not notes
    assert [p.classes for p in plan.prompts] == [(1,), (2,), (1, 2)]
    assert plan.settings == {
        "steps": 2,
        "guidance_scale": 7.5,
        "height": 32,
        "width": 32,
    }
    items = plan.items(range(len(plan)))
    assert [i.prompt.text for i in items] == [p.text for p in PROMPTS] * 2
    assert len({item.key for item in items}) == len({i.seed for i in items}) == 6
    assert next_items(plan, Ledger(plan, ())) == list(range(6))


def test_an_item_is_the_same_whatever_else_is_planned(project, pipe):
    plan, _ = planned(project, pipe)
    other, _ = planned(project, pipe, PROMPTS[1:], seeds=(7, 0), quotas={"dog": 1})
    mine, theirs = plan.item(1), other.item(2)
    assert (mine.key, mine.seed) == (theirs.key, theirs.seed)
    assert plan.hash != other.hash


def test_what_makes_another_result_makes_another_hash(project, pipe, make_pipe):
    plan, _ = planned(project, pipe)
    assert planned(project, pipe, model="elsewhere")[0].hash == plan.hash
    others = [
        planned(project, make_pipe(seed=1))[0],
        planned(project, pipe, dtype="float16")[0],
        planned(project, pipe, quotas={"": 5})[0],
        planned(project, pipe, agreement="thresholds")[0],
        planned(project, pipe, PROMPTS[::-1])[0],
    ]
    project.classes.change(1, thresholds={"phrase": 0.7, "token": None})
    others.append(planned(project, pipe)[0])
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    token = Token("cat", text_encoder_hash(pipe), rows)
    give_token(project, 1, token)
    others.append(planned(project, pipe)[0])
    assert len({plan.hash, *(other.hash for other in others)}) == len(others) + 1
    assert plan.item(0).key != others[-1].item(0).key  # a cat, found by its token
    assert plan.item(1).key == others[-1].item(1).key  # a dog
    assert plan.item(0).seed == others[-1].item(0).seed  # the same picture


def test_precision_is_no_other_model(pipe, make_pipe):
    assert model_hash(make_pipe().to(torch.float16)) == model_hash(pipe)


def test_a_folder_is_started_whole_and_takes_one_plan(project, pipe, tmp_path):
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    give_token(project, 1, Token("cat", text_encoder_hash(pipe), rows))
    plan, _ = planned(project, pipe)
    folder = tmp_path / "night"
    folder.mkdir()  # empty
    assert start_folder(plan, project, folder)
    assert not start_folder(plan, project, folder)
    assert json.dumps(Plan.load(folder).to_json()) == json.dumps(plan.to_json())
    started = Project.open(folder)
    assert not started.notes
    assert [entry.name for entry in started.classes] == ["cat", "dog"]
    torch.testing.assert_close(started.load_token(1).embedding, rows)
    other, _ = planned(project, pipe, seeds=(0, 1))
    with pytest.raises(PlanError, match=r"another plan; they differ in seeds\."):
        start_folder(other, project, folder)
    moved, _ = planned(project, pipe, model="elsewhere")
    assert not start_folder(moved, project, folder)
    assert Plan.load(folder).model == "elsewhere"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(PlanError, match="not empty"):
        start_folder(plan, project, tmp_path / "full")
    assert not list(tmp_path.glob(".dataset-*"))


def test_a_plan_that_was_edited_or_damaged_is_refused(project, pipe, tmp_path):
    plan, _ = planned(project, pipe)
    start_folder(plan, project, tmp_path / "night")
    path = tmp_path / "night" / "plan.json"
    text = path.read_text()
    path.write_text(text.replace("two dogs", "ten dogs"))
    with pytest.raises(PlanError, match="changed since it was made"):
        Plan.load(path.parent)
    path.write_text(text[:-20])
    with pytest.raises(PlanError, match="damaged"):
        Plan.load(path.parent)
    path.write_text(re.sub('"format": 1', '"format": 2', text))
    with pytest.raises(PlanError, match="another version"):
        Plan.load(path.parent)
    path.unlink()
    with pytest.raises(PlanError, match="no plan"):
        Plan.load(path.parent)


def test_classes_without_pictures_are_said_or_refused(project, pipe):
    _, notes = planned(project, pipe, PROMPTS[:1])
    assert notes == ["No prompt names 'dog': there will be no images of it."]
    with pytest.raises(PlanError, match=r"no prompt names 'dog'.*quota 0"):
        planned(project, pipe, PROMPTS[:1], quotas={"": 5})
    planned(project, pipe, PROMPTS[:1], quotas={"": 5, "dog": 0})
    with pytest.raises(PlanError, match="quota of 'cow': there are the classes cat"):
        planned(project, pipe, quotas={"cow": 5})
    with pytest.raises(PlanError, match="has the class 'cow'"):
        planned(project, pipe, [Prompt("a cow", classes=("cow",))])
    _, notes = planned(project, pipe, [*PROMPTS, Prompt("a tree")])
    assert notes == ["1 prompts name no class: all are looked for in their images."]
    _, notes = planned(project, pipe, [*PROMPTS, Prompt("a cat " * 40)])
    assert "longer than what the model reads" in notes[0]


def test_quotas_and_densities_choose_what_is_made_first(project, pipe):
    plan, _ = planned(project, pipe, seeds=range(10), quotas={"cat": 4, "dog": 2})
    chosen = [plan.prompt(n).classes for n in next_items(plan, Ledger(plan, ()))]
    assert chosen == [(1,), (2,), (1, 2), (1,), (1, 2)]
    plan, _ = planned(project, pipe, seeds=range(10), densities={2: 3})
    chosen = [plan.prompt(n).classes for n in next_items(plan, Ledger(plan, ()))]
    assert chosen == [(1, 2)] * 3


def test_pictures_are_known_by_what_they_hold(project, pipe, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "more/b.JPG", "more/same.png")):
        pixels = np.full((40, 40, 3), 50 * min(number, 1), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "same.png")
    (folder / "text.txt").touch()
    how = {"model": "small", "dtype": "auto"}
    notes = []
    plan = plan_pictures(project, pipe, folder, note=notes.append, **how)
    assert len(plan) == 3
    assert notes == ["1 pictures are there more than once."]
    assert plan.looked_for(plan.prompt(0)) == (1, 2)
    folder.rename(tmp_path / "moved")
    assert plan_pictures(project, pipe, tmp_path / "moved", **how).hash == plan.hash
    (tmp_path / "none").mkdir()
    with pytest.raises(PlanError, match="holds no picture"):
        plan_pictures(project, pipe, tmp_path / "none", **how)
