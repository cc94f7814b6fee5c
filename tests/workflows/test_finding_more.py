"""An object of one image is looked for in the others, as proposals."""

import numpy as np
import pytest

from napari_ovam import iou
from napari_ovam.base.progress import Cancelled
from napari_ovam.project import Project
from napari_ovam.scenes import load_scenes
from napari_ovam.workflows.finding_more import find_more
from napari_ovam.workflows.proposals import ProposalError, ProposalSettings, propose

RANDOM = np.random.default_rng(3)


@pytest.fixture
def project(tmp_path):
    """Three images, of which the second is accepted; cat and dog are in it."""
    project = Project.create(tmp_path / "project")
    for name in ("cat", "dog"):
        project.classes.add(name)
    for name in "abc":
        project.add_sample(RANDOM.integers(0, 255, (32, 32, 3), np.uint8), name=name)
    labels = np.zeros((32, 32), np.uint8)
    labels[4:12, 4:12], labels[20:28, 20:28] = 1, 2
    project.save_labels("b", labels, "accepted")
    return project


def test_others_are_proposed_and_the_class_keeps_its_own(project, pipe):
    before = project.load_labels("b")
    names = []
    report = find_more(project, pipe, "b", 1, written=names.append)
    assert report.proposed == ("c", "a")  # the following ones first
    assert names == ["c", "a"]
    made_by = project.sample("a").provenance["proposed_by"]
    assert made_by["given"] == [1]
    assert "token" in made_by["sources"]["1"]
    assert "token" not in made_by["sources"]["2"]
    assert project.classes[1].source == "phrase"
    assert project.classes[1].token is None
    np.testing.assert_array_equal(project.load_labels("b"), before)
    # That the class's own source is another does not make them outdated.
    settings = ProposalSettings(redo="outdated")
    assert propose(project, pipe, settings=settings).proposed == ()
    assert find_more(project, pipe, "b", 1, ["a"]).proposed == ("a",)


def test_what_was_proposed_by_another_token_is_outdated(project, pipe):
    propose(project, pipe, ["a", "c"])
    again = ProposalSettings(redo="outdated")
    assert propose(project, pipe, settings=again).proposed == ()
    project.classes.change(1, phrase="lion")
    assert propose(project, pipe, ["a"], settings=again).proposed == ("a",)
    assert propose(project, pipe, settings=again).proposed == ("c",)


def test_mistakes_are_named(project, pipe):
    project.save_labels("a", np.ones((32, 32), np.uint8), "proposed")
    with pytest.raises(ProposalError, match="a are proposed: correct or accept"):
        find_more(project, pipe, "a", 1)
    project.change_sample("a", status="edited")
    with pytest.raises(ProposalError, match="full"):
        find_more(project, pipe, "a", 1)
    with pytest.raises(ProposalError, match="empty"):
        find_more(project, pipe, "a", 2)

    def cancel(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        find_more(project, pipe, "b", 1, progress=cancel)
    assert project.sample("c").status == "new"


def test_what_no_word_says_is_found_by_one_image(tmp_path, tiny):
    project = Project.create(tmp_path / "cats")
    project.classes.add("cat")
    project.classes.change(1, phrase="animal")
    scenes = [s for s in load_scenes() if "cat" in s.classes.values()]
    for scene in scenes:
        project.add_sample(scene.image, name=scene.name)
    exact = {
        s.name: np.isin(s.labels, [i for i, n in s.classes.items() if n == "cat"])
        for s in scenes
    }
    first, *rest = exact
    project.save_labels(first, exact[first].astype(np.uint8), "accepted")

    def found():
        return np.mean([iou(project.load_labels(n) == 1, exact[n]) for n in rest])

    propose(project, tiny, rest)
    by_word = found()
    assert find_more(project, tiny, first, 1).proposed == tuple(rest)
    print(f"IoU {by_word:.2f} by the word, {found():.2f} by one image")
    assert found() > by_word
