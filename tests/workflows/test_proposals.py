"""Proposals: what they write, what they leave alone, how they end and go on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_ovam import Token, iou, labels_to_target, trace_image
from napari_ovam.base.progress import Cancelled
from napari_ovam.project import Project
from napari_ovam.scenes import load_scenes
from napari_ovam.segmentation.class_maps import class_labels, class_map, class_maps
from napari_ovam.workflows.proposals import (
    ProposalError,
    ProposalSettings,
    named_in,
    propose,
)

RANDOM = np.random.default_rng(0)


def picture(height=32, width=32):
    return RANDOM.integers(0, 255, (height, width, 3), np.uint8)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.create(tmp_path / "project")
    project.classes.add("cat")
    project.classes.add("red hat")
    for name in ("a", "b", "c", "d"):
        project.add_sample(picture(), {"prompt": "a pet"}, name)
    return project


def statuses(project: Project) -> dict[str, str]:
    return {s.name: s.status for s in Project.open(project.path).samples}


def test_all_classes_are_looked_for_in_all_images(project, pipe):
    steps = []
    report = propose(project, pipe, progress=lambda *step: steps.append(step))
    assert report.proposed == ("a", "b", "c", "d")
    assert not report.kept
    assert not report.failed
    assert set(statuses(project).values()) == {"proposed"}
    assert {1, 2} <= {int(i) for n in "abcd" for i in np.unique(project.load_labels(n))}
    assert steps[0] == (0, 4)
    assert steps[-1] == (4, 4)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    made_by = Project.open(project.path).sample("a").provenance["proposed_by"]
    assert made_by["thresholds"] == {"1": None, "2": None}
    assert made_by["sources"]["2"]["phrase"] == "red hat"
    assert not any(project.path.joinpath("traces").iterdir())


def test_labels_are_those_of_the_shared_rule(project, pipe):
    from napari_ovam import encode_phrase

    project.classes.change(2, thresholds={"phrase": 0.8, "token": 0.5})
    propose(project, pipe, ["b"])
    image = project.load_image("b")
    trace = trace_image(pipe, image, prompt="a pet").trace
    tokens = {
        1: [encode_phrase(pipe, "cat")],
        2: [encode_phrase(pipe, "red hat")],
    }
    maps = class_maps(trace, tokens)
    for number, values in maps.items():
        np.testing.assert_allclose(values, class_map(trace, tokens[number]), atol=2e-3)
    expected = class_labels(maps, {1: None, 2: 0.8}, image)
    np.testing.assert_array_equal(project.load_labels("b"), expected)


def test_what_a_person_decided_is_never_touched(project, pipe):
    mine = np.zeros((32, 32), np.uint8)
    mine[3:9, 3:9] = 2
    project.save_labels("a", mine, "edited")
    project.save_labels("b", mine, "accepted")
    project.change_sample("c", status="rejected")
    # killed between the strokes and their status
    project.save_labels("d", mine, "new", painted=mine > 0)
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in project.path.rglob("*.png")
    }
    report = propose(project, pipe, settings=ProposalSettings(redo=True))
    assert report.proposed == ()
    assert report.kept == {
        "a": "edited",
        "b": "accepted",
        "c": "rejected",
        "d": "painted",
    }
    after = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in project.path.rglob("*.png")
    }
    assert after == before


def test_strokes_that_are_saved_while_a_run_looks_at_the_image_win(project, pipe):
    mine = np.full((32, 32), 2, np.uint8)
    steps = 0

    def paint(*_):
        nonlocal steps
        steps += 1
        if steps == 2:  # while the first image is traced
            project.save_labels("a", mine, "edited")

    report = propose(project, pipe, ["a", "b"], progress=paint)
    assert report.kept == {"a": "edited"}
    assert report.proposed == ("b",)
    assert (project.load_labels("a") == 2).all()
    assert project.sample("a").status == "edited"


def test_a_cancelled_run_is_gone_on_with(project, pipe):
    def cancel(done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        propose(project, pipe, progress=cancel)
    assert statuses(project) == {
        "a": "proposed",
        "b": "proposed",
        "c": "new",
        "d": "new",
    }
    again = propose(Project.open(project.path), pipe)
    assert again.proposed == ("c", "d")
    assert again.kept == {"a": "proposed already", "b": "proposed already"}
    redone = propose(
        Project.open(project.path), pipe, settings=ProposalSettings(redo=True)
    )
    assert redone.proposed == ("a", "b", "c", "d")


def test_one_bad_image_does_not_stop_the_rest(project, pipe):
    (project.path / "images" / "a.png").unlink()
    (project.path / "images" / "c.png").write_bytes(b"\x89PNG no image")
    report = propose(project, pipe)
    assert report.proposed == ("b", "d")
    assert sorted(report.failed) == ["a", "c"]
    assert "a.png" in report.failed["a"]
    assert project.sample("a").status == "new"


def test_a_saved_trace_is_used_and_one_of_another_model_is_not(
    project, pipe, make_pipe, monkeypatch
):
    other = make_pipe(seed=1)
    for name, model in (("a", pipe), ("b", other)):
        image = project.load_image(name)
        project.save_trace(name, trace_image(model, image, prompt="a cat").trace)
    project.trace_path("c").write_bytes(b"half a file")
    kept = {n: project.trace_path(n).read_bytes() for n in "abc"}
    traced = []

    def counted(*values, **options):
        traced.append(1)
        return trace_image(*values, **options)

    monkeypatch.setattr("napari_ovam.workflows.sample_trace.trace_image", counted)
    report = propose(project, pipe, settings=ProposalSettings(keep_traces=True))
    assert report.proposed == ("a", "b", "c", "d")
    assert len(traced) == 3
    assert {n: project.trace_path(n).read_bytes() for n in "abc"} == kept
    assert project.trace_path("d").is_file()


def test_classes_that_are_absent_inactive_or_gone_get_no_pixel(project, pipe):
    project.classes.add("tree")
    project.classes.change(3, active=False)
    project.change_sample("a", absent=[1])

    def remove(done, total):
        if done == 1 and 2 in project.classes:
            project.classes.remove(2)

    propose(project, pipe, ["a", "b"], progress=remove)
    assert set(np.unique(project.load_labels("a"))) == {0, 2}
    assert set(np.unique(project.load_labels("b"))) == {0, 1}
    propose(project, pipe, ["c"], classes=[3])
    assert set(np.unique(project.load_labels("c"))) == {0, 3}


def test_classes_that_cannot_be_looked_for_are_named_before_anything_is_done(
    project, pipe
):
    rows = torch.ones(2, 32)
    project.save_token(1, Token("cat", "of-another-model", rows))
    project.classes.change(1, source="token")
    project.classes.change(2, phrase=" ")
    with pytest.raises(ProposalError, match=r"2 classes.*'cat'.*'red hat'"):
        propose(project, pipe)
    with pytest.raises(ProposalError, match="add classes"):
        propose(project, pipe, classes=[])
    assert set(statuses(project).values()) == {"new"}


def test_images_of_different_sizes_and_a_threshold_of_zero(project, pipe):
    project.add_sample(picture(48, 80), name="wide")
    project.classes.change(1, thresholds={"phrase": 0.0, "token": 0.5})
    propose(project, pipe, ["wide"], classes=[1])
    assert (project.load_labels("wide") == 1).all()
    assert project.load_labels("wide").shape == (48, 80)


def test_proposals_of_the_embedded_model_find_their_objects(tmp_path, tiny):
    project = Project.create(tmp_path / "scenes")
    scenes = [s for s in load_scenes() if "cat" in s.classes.values()][:2]
    for scene in scenes:
        project.add_sample(scene.image, name=scene.name)
    project.classes.add("cat")
    propose(project, tiny)
    for scene in scenes:
        number = next(i for i, name in scene.classes.items() if name == "cat")
        found = project.load_labels(scene.name) == 1
        assert iou(found, labels_to_target(scene.labels, number)) > 0.3


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a cat on the grass", {1}),
        ("Cats and a Red hat", {1, 2}),
        ("a red cathedral with a hat", set()),
        ("", set()),
    ],
)
def test_a_prompt_names_classes_in_whole_words(project, prompt, named):
    assert named_in(prompt, project.classes) == named


def test_where_a_prompt_names_classes_no_others_are_looked_for(project, pipe):
    project.add_sample(picture(), {"prompt": "a cat"}, "e")
    propose(project, pipe, ["e"])
    assert set(np.unique(project.load_labels("e"))) <= {0, 1}
    assert set(project.sample("e").provenance["proposed_by"]["sources"]) == {"1"}
    propose(project, pipe, ["e"], settings=ProposalSettings(redo=True, by_prompt=False))
    assert set(project.sample("e").provenance["proposed_by"]["sources"]) == {"1", "2"}


def test_labels_of_another_program_are_kept_also_with_redo(project, pipe):
    propose(project, pipe)
    theirs = np.zeros((32, 32), np.uint8)
    theirs[:4] = 2
    Image.fromarray(theirs).save(project.files.labels("a"))
    project.files.labels("b").write_bytes(b"half a file")
    for opened in (project, Project.open(project.path)):
        report = propose(opened, pipe, settings=ProposalSettings(redo=True))
        assert report.kept["a"] == "changed by another program"
        assert project.files.labels("b").read_bytes() == b"half a file"
        assert "b" in {**report.kept, **report.failed}
        np.testing.assert_array_equal(opened.load_labels("a", to_edit=False), theirs)
    assert "b.png" in report.failed["b"]  # by one that has not seen it whole


def test_labels_that_another_program_writes_while_an_image_is_looked_at_are_kept(
    project, pipe
):
    theirs = np.full((32, 32), 2, np.uint8)

    def write(done, total):
        if done == 1:
            Image.fromarray(theirs).save(project.files.labels("b"))

    report = propose(project, pipe, ["a", "b", "c"], progress=write)
    assert report.proposed == ("a", "c")
    assert report.kept == {"b": "changed by another program"}
    np.testing.assert_array_equal(project.load_labels("b"), theirs)
