"""Making a plan's items: once each, whatever ends a run, and never over a person."""

import errno
import json
import multiprocessing
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from fast_items import Fast, load_fast, make_plan, start
from PIL import Image

from napari_ovam import GenerationSettings
from napari_ovam.base.progress import Cancelled
from napari_ovam.base.progress import no_progress as quiet
from napari_ovam.diffusion.devices import OutOfMemory
from napari_ovam.diffusion.generation import GenerationError
from napari_ovam.project import Project
from napari_ovam.project.verify import verify
from napari_ovam.workflows.dataset import collecting, shards
from napari_ovam.workflows.dataset.making import ModelMaker
from napari_ovam.workflows.dataset.plan import Filters, PlanError
from napari_ovam.workflows.dataset.planning import (
    plan_pictures,
    plan_prompts,
    start_folder,
)
from napari_ovam.workflows.dataset.prompts import fill_templates
from napari_ovam.workflows.dataset.running import Inline, run
from napari_ovam.workflows.dataset.status import estimate, read_status
from napari_ovam.workflows.review_order import how_unsure


def made(folder: Path) -> dict[str, str]:
    """Return the hash of each image and label of a project."""
    paths = [*folder.glob("images/*.png"), *folder.glob("labels/*.png")]
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def go(folder, plan, maker=None, **how):
    """Run a plan in this process, with a maker of one's own."""
    load = load_fast if maker is None else lambda *_: maker
    with Inline(folder, plan, load=load) as engine:
        return run(Project.open(folder), engine, **how)


def statuses(folder):
    return {s.name: s.status for s in Project.open(folder).samples}


def test_the_result_is_a_project_to_be_reviewed(tmp_path):
    plan = make_plan(60)
    start(plan, tmp_path / "a")
    steps = []
    report = go(tmp_path / "a", plan, progress=lambda *step: steps.append(step))
    assert (report.made, list(report.failed)) == (59, [5])
    assert steps[-1] == (60, 60)
    assert [s[0] for s in steps] == sorted(s[0] for s in steps)
    project = Project.open(tmp_path / "a")
    assert not project.notes
    assert len(project.samples) == 59
    assert not verify(project.path).problems
    rejected = [s for s in project.samples if s.status == "rejected"]
    assert len(rejected) == report.rejected > 0
    reasons = {r for s in rejected for r in s.provenance["dataset"]["reasons"]}
    assert reasons == {"area", "presence", "agreement", "unsure"}
    queue = [how_unsure(s) for s in project.samples if s.status == "proposed"]
    assert len(queue) == 59 - len(rejected)
    assert min(queue) >= 0
    assert len(project.items()) == len(queue)  # rejected ones are not exported
    sample = project.samples[0]
    assert sample.provenance["title"] == project.settings(sample.name)["prompt"]
    assert not [p for p in (tmp_path / "a/shards").iterdir() if p.is_dir()]


def test_what_a_worker_commits_meanwhile_waits_for_the_next_time(tmp_path, monkeypatch):
    plan, folder = make_plan(24), tmp_path / "a"
    start(plan, folder)
    with Inline(folder, plan, load=load_fast) as engine:
        (folder / "shards").mkdir()
        each = [shards.Shard(i, tuple(range(4 * i, 4 * i + 4))) for i in range(6)]
        list(engine.make(each, quiet))
    first, calls = collecting.read_records, []

    def late(*of):
        """Return the last shard from the third time on: it was not there before."""
        calls.append(of)
        records = list(first(*of))
        return records if len(calls) > 2 else records[:-1]

    monkeypatch.setattr(collecting, "read_records", late)
    collecting.collect(Project.open(folder), plan)
    assert not Project.open(folder).notes, "an image that no sample has"
    collecting.collect(Project.open(folder), plan)
    assert set(statuses(folder).values()) <= {"proposed", "rejected"}
    assert len(statuses(folder)) == 23


def test_a_second_run_makes_nothing_again(tmp_path):
    plan, folder = make_plan(20), tmp_path / "a"
    start(plan, folder)
    go(folder, plan)
    before = made(folder), statuses(folder), (folder / "project.json").read_bytes()
    maker = Fast(0)
    go(folder, plan, maker)
    assert maker.made == 0
    assert (made(folder), statuses(folder)) == before[:2]
    report = go(folder, plan, maker, again=True)
    assert list(report.failed) == [5]
    assert maker.made == 3  # the others of its shard
    assert made(folder) == before[0]


def test_a_run_that_is_cancelled_keeps_what_is_committed(tmp_path):
    plan = make_plan(20)
    for name in ("a", "b"):
        start(plan, tmp_path / name)

    def cancel(done, total):
        if done == 14:
            raise Cancelled

    with pytest.raises(Cancelled):
        go(tmp_path / "a", plan, progress=cancel)
    assert len(Project.open(tmp_path / "a").samples) == 11  # three shards, a failure
    go(tmp_path / "a", plan)
    go(tmp_path / "b", plan)
    assert made(tmp_path / "a") == made(tmp_path / "b")
    assert statuses(tmp_path / "a") == statuses(tmp_path / "b")


def test_an_item_that_fails_now_and_then_is_tried_again(tmp_path):
    class Moody(Fast):
        tries = 0

        def make(self, items):
            self.tries += 1
            if self.tries % 3:
                raise GenerationError("not now")
            return super().make(items)

    plan = make_plan(8)
    start(plan, tmp_path / "a")
    report = go(tmp_path / "a", plan, Moody(0))
    assert report.made == 7


def test_out_of_memory_halves_the_batch(tmp_path):
    sizes = []

    class Small(Fast):
        def make(self, items):
            sizes.append(len(items))
            if len(items) > 1:
                raise OutOfMemory("no room")
            return super().make(items)

    plan = make_plan(8, batch=4)
    start(plan, tmp_path / "a")
    report = go(tmp_path / "a", plan, Small(0))
    assert sizes[:4] == [4, 2, 1, 1]
    assert report.made == 7
    records = list(shards.read_records(tmp_path / "a", plan))
    assert [record["batch"] for record in records] == [1, 1]


def test_one_bad_item_of_a_batch_does_not_fail_the_others(tmp_path):
    plan = make_plan(8, batch=4)
    start(plan, tmp_path / "a")
    report = go(tmp_path / "a", plan)
    assert report.made == 7
    assert list(report.failed) == [5]


def test_a_full_disk_ends_the_run_and_is_no_items_fault(tmp_path, monkeypatch):
    plan, folder = make_plan(12), tmp_path / "a"
    start(plan, folder)
    written = 0
    write = shards.write_labels

    def full(*of):
        nonlocal written
        written += 1
        if written == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*of)

    monkeypatch.setattr(shards, "write_labels", full)
    with pytest.raises(OSError, match="No space"):
        go(folder, plan)
    assert len(Project.open(folder).samples) == 4
    report = go(folder, plan)
    assert (report.made, list(report.failed)) == (11, [5])


def test_a_process_that_an_item_ends_goes_on_without_it(tmp_path):
    class Fatal(Fast):
        def make(self, items):
            if any(item.number == 2 for item in items):
                os._exit(9)
            return super().make(items)

    plan, folder = make_plan(4, batch=2), tmp_path / "a"
    start(plan, folder)
    fork = multiprocessing.get_context("fork")
    ends = []
    for _ in range(9):
        child = fork.Process(target=go, args=(folder, plan, Fatal(0)))
        child.start()
        child.join()
        ends.append(child.exitcode)
    assert set(ends) == {9, 0}
    assert ends == sorted(ends, reverse=True)  # done in the end, once and for all
    record = next(shards.read_records(folder, plan))
    assert [f["item"] for f in record["failures"]] == [2]
    assert "the process ended" in record["failures"][0]["error"]
    assert len(Project.open(folder).samples) == 3


def test_damaged_records_and_lost_files_are_made_again(tmp_path):
    plan, folder = make_plan(12), tmp_path / "a"
    project = start(plan, folder)
    with Inline(folder, plan, load=load_fast) as engine:
        (folder / "shards").mkdir()
        all_shards = [shards.Shard(i, tuple(range(4 * i, 4 * i + 4))) for i in range(3)]
        assert list(engine.make(all_shards, quiet)) == [(s, "") for s in all_shards]
    (folder / "shards/00000.json").write_text("{")
    record = json.loads((folder / "shards/00001.json").read_text())
    record["rows"][0]["scores"]["unsure"] = 9
    (folder / "shards/00001.json").write_text(json.dumps(record))
    next((folder / "shards/00002").glob("*.labels.png")).unlink()
    maker = Fast(0)
    with Inline(folder, plan, load=lambda *_: maker) as engine:
        report = run(project, engine)
    assert report.made == maker.made == 11
    assert not verify(folder).problems


@pytest.mark.parametrize("when", ["committed", "made again"])
def test_a_worker_killed_after_the_commit_leaves_nothing(tmp_path, monkeypatch, when):
    plan, folder = make_plan(8), tmp_path / "a"
    project, shard = start(plan, folder), shards.Shard(0, (0, 1, 2, 3))
    (folder / "shards").mkdir()
    if when == "made again":
        shards.make_shard(folder, plan, shard, Fast(0))

    class Killed(BaseException):
        pass

    def kill(*args: object) -> None:
        if when == "committed":
            commit(*args)
        raise Killed

    commit = shards._commit
    with monkeypatch.context() as patched:
        patched.setattr(shards, "_commit", kill)
        with pytest.raises(Killed):
            shards.make_shard(folder, plan, shard, Fast(0))
    assert (shard.folder(folder) / "trying.json").exists()
    with Inline(folder, plan, load=load_fast) as engine:
        assert run(project, engine).made == 7
    assert not [p for p in (folder / "shards").iterdir() if p.is_dir()]
    assert not verify(folder).problems


def test_what_a_late_worker_writes_never_replaces_a_persons_work(tmp_path):
    plan, folder = make_plan(8), tmp_path / "a"
    start(plan, folder)
    go(folder, plan)
    project = Project.open(folder)
    name, other = (s.name for s in project.samples[:2])
    mine = np.full((16, 16), 2, np.uint8)
    project.save_labels(name, mine, "accepted")
    project.change_sample(other, status="rejected")
    shard = shards.Shard(0, (0, 1, 2, 3))
    shards.make_shard(folder, plan, shard, Fast(0))
    go(folder, plan)
    project = Project.open(folder)
    assert (project.load_labels(name) == mine).all()
    assert project.sample(name).status == "accepted"
    assert project.sample(other).status == "rejected"
    assert not shard.folder(folder).exists()


def test_the_status_of_an_image_follows_the_filters_as_more_are_made(tmp_path):
    plan, folder = make_plan(60), tmp_path / "a"
    start(plan, folder)

    def stop(done, total):
        if done >= 20:
            raise Cancelled

    with pytest.raises(Cancelled):
        go(folder, plan, progress=stop)
    before = statuses(folder)
    assert go(folder, plan).rejected == sum(
        s == "rejected" for s in statuses(folder).values()
    )
    after = statuses(folder)
    # of twenty images and more the areas say something
    assert any(before[name] != after[name] for name in before)


def test_quotas_are_filled_from_what_the_plan_has_left(tmp_path):
    plan = make_plan(90, quotas={1: 20, 2: 5})
    start(plan, tmp_path / "a")
    report = go(tmp_path / "a", plan)
    assert not report.missing
    assert report.made < 89
    status = read_status(tmp_path / "a")
    assert status.kept["cat"] >= 20
    assert status.left == 0
    assert not status.running
    plan = make_plan(15, quotas={1: 20}, filters=Filters(*[None] * 5))
    start(plan, tmp_path / "b")
    assert go(tmp_path / "b", plan).missing == {"'cat'": 20 - 9}


def test_filters_can_be_left_out(tmp_path):
    plan = make_plan(30, filters=Filters(*[None] * 5))
    start(plan, tmp_path / "a")
    assert go(tmp_path / "a", plan).rejected == 0


def test_the_same_files_whatever_the_shards_and_the_order(tmp_path, pipe):
    project = Project.create(tmp_path / "project")
    project.classes.add("cat")
    project.classes.add("dog")
    lists = {"class": ["cat", "dog"], "place": ["on the grass", "in the snow"]}
    prompts = fill_templates(["a {class} {place}", "a {class} and a {class}"], lists)
    settings = GenerationSettings("", steps=2)
    held = []
    for size in (1, 4):
        folder = tmp_path / str(size)
        plan = plan_prompts(
            project, pipe, prompts, settings, model="small", dtype="auto", shard=size
        )
        start_folder(plan, project, folder)
        maker = ModelMaker(plan, folder, pipe=pipe)
        if size == 4:  # as a worker that was killed half-way leaves it
            (folder / "shards").mkdir()
            shards.make_shard(folder, plan, shards.Shard(0, (0, 1)), maker)
        assert go(folder, plan, maker).made == 5
        assert not verify(folder).problems
        held.append(made(folder))
    assert held[0] == held[1]
    assert len(held[0]) == 10
    scores = next(shards.read_records(tmp_path / "4", plan))["rows"][0]["scores"]
    assert scores["classes"]["1"]["presence"] > 0
    assert 0 <= scores["classes"]["1"]["agreement"] <= 1
    found = estimate(plan, maker, tmp_path / "next")
    assert (found.items, found.most) == (5, 5)
    assert found.seconds > 0
    assert 1000 < found.size < 100_000


def test_a_picture_is_made_again_from_what_its_file_says(tmp_path, pipe):
    from napari_ovam import generate

    project = Project.create(tmp_path / "project")
    project.classes.add("cat")
    prompts = fill_templates(["a {class}"], {"class": ["cat"]})
    plan = plan_prompts(
        project,
        pipe,
        prompts,
        GenerationSettings("", steps=2),
        model="small",
        dtype="auto",
    )
    start_folder(plan, project, tmp_path / "night")
    go(tmp_path / "night", plan, ModelMaker(plan, tmp_path / "night", pipe=pipe))
    night = Project.open(tmp_path / "night")
    name = night.samples[0].name
    stored = night.settings(name)
    stored.pop("model")
    image = generate(pipe, GenerationSettings(**stored)).image
    np.testing.assert_array_equal(image, night.load_image(name))


def test_pictures_of_a_folder_are_labelled_and_bad_ones_named(tmp_path, pipe):
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in "abc":
        pixels = random.integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "bad.png").write_bytes(b"\x89PNG no picture")
    project = Project.create(tmp_path / "project")
    project.classes.add("cat")
    plan = plan_pictures(project, pipe, folder, model="small", dtype="auto")
    start_folder(plan, project, tmp_path / "night")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "c.png").unlink()
    maker = ModelMaker(plan, tmp_path / "night", pipe=pipe)
    report = go(tmp_path / "night", plan, maker)
    assert report.made == 1
    assert sorted(report.failed) == [1, 2, 3]
    assert "another picture than when" in report.failed[1]
    assert report.failed[2].startswith("'bad.png': ")
    assert "c.png is gone" in report.failed[3]
    folder.rename(tmp_path / "away")
    with pytest.raises(PlanError, match="does not see the folder"):
        go(tmp_path / "night", plan, maker, again=True)


def test_another_model_version_or_token_is_refused(tmp_path, pipe, make_pipe):
    project = Project.create(tmp_path / "project")
    project.classes.add("cat")
    prompts = fill_templates(["a {class}"], {"class": ["cat"]})
    how = {"settings": GenerationSettings("", steps=2), "model": "x", "dtype": "auto"}
    plan = plan_prompts(project, pipe, prompts, **how)
    with pytest.raises(PlanError, match="other weights than the plan"):
        ModelMaker(plan, project.path, pipe=make_pipe(seed=3))
    old = plan_prompts(project, pipe, prompts, **how, program="0.0.1")
    with pytest.raises(PlanError, match=r"made with 0\.0\.1"):
        ModelMaker(old, project.path, pipe=pipe)
