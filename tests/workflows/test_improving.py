"""Tokens from accepted images: better on images they did not see, or not stored."""

from pathlib import Path

import numpy as np
import pytest

from napari_ovam import OptimizationSettings, Token, trace_image
from napari_ovam.base.progress import Cancelled
from napari_ovam.project import Project
from napari_ovam.project.token_library import TokenLibrary
from napari_ovam.scenes import load_scenes
from napari_ovam.workflows.accepted import draw_names, split_names
from napari_ovam.workflows.improving import ImproveSettings, improve_tokens

RANDOM = np.random.default_rng(1)
QUICK = OptimizationSettings(iterations=5)
FAST = ImproveSettings(optimization=QUICK, store="always")


def labelled(height=32, width=32, ids=(1,)):
    labels = np.zeros((height, width), np.uint8)
    for place, number in enumerate(ids):
        labels[4 * place + 2 : 4 * place + 6, 4:20] = number
    labels[-3:] = 255
    return labels


def add(project, name, labels, status="accepted"):
    image = RANDOM.integers(0, 255, (*labels.shape, 3), np.uint8)
    image[labels > 0] = 200
    project.add_sample(image, {"prompt": "a cat"}, name)
    project.save_labels(name, labels, status)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.create(tmp_path / "project")
    for name in ("cat", "dog", "tree"):
        project.classes.add(name)
    return project


def test_each_of_few_images_is_left_out_once(project, pipe):
    for name, size in (("a", (32, 32)), ("b", (48, 80)), ("c", (40, 24))):
        add(project, name, labelled(*size))
    add(project, "edited", labelled(), "edited")
    steps = []
    report = improve_tokens(
        project, pipe, [1], settings=FAST, progress=lambda *s: steps.append(s)
    )
    (found,) = report.results
    assert (found.images, found.left_out) == (("a", "b", "c"), ("a", "b", "c"))
    assert found.source == "phrase"
    assert 0 <= found.before <= 1
    assert 0 <= found.after <= 1
    assert found.token.info["images"] == 3
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    again = Project.open(project.path)
    assert again.classes[1].source == "token"
    assert again.classes[1].thresholds["token"] is None
    assert again.load_token(1).info["learned_from"] == ["a", "b", "c"]


def test_the_same_seed_gives_the_same_figures(project, pipe):
    for name in "abcdefg":
        add(project, name, labelled())
    settings = ImproveSettings(optimization=QUICK, store="never", most=6)
    one, two = (
        improve_tokens(project, pipe, [1], settings=settings).results[0]
        for _ in range(2)
    )
    assert (one.before, one.after, one.left_out) == (
        two.before,
        two.after,
        two.left_out,
    )
    assert len(one.images) == 6
    assert one.images == one.left_out  # each once, by a token of the others
    assert project.classes[1].token is None


def cats(path: Path, count: int | None = None) -> Project:
    """A project of the scenes with a cat, accepted with their exact masks."""
    project = Project.create(path)
    project.classes.add("cat")
    scenes = [s for s in load_scenes() if "cat" in s.classes.values()]
    for scene in scenes[:count]:
        number = next(i for i, name in scene.classes.items() if name == "cat")
        project.add_sample(scene.image, name=scene.name)
        labels = (scene.labels == number).astype(np.uint8)
        project.save_labels(scene.name, labels, "accepted")
    return project


def test_a_token_that_is_no_better_is_not_stored(tmp_path, tiny, monkeypatch):
    def find_the_background(traces, token, targets, *_, **__):
        rows = token.embedding[[token.span[1] - 1, 0]]
        return Token(token.name, token.model, rows, info={"cancelled": False})

    monkeypatch.setattr(
        "napari_ovam.workflows.refitting.optimize_token", find_the_background
    )
    project = cats(tmp_path / "scenes", 2)
    (found,) = improve_tokens(project, tiny).results
    assert found.after < found.before
    assert not found.stored
    assert project.classes[1].source == "phrase"
    assert not list(project.path.joinpath("tokens").iterdir())


def test_the_token_that_is_replaced_is_kept_in_the_library(project, pipe, tmp_path):
    for name in "ab":
        add(project, name, labelled())
    library = TokenLibrary(tmp_path / "library")
    improve_tokens(project, pipe, [1], settings=FAST, library=library)
    assert library.entries() == []
    old = project.load_token(1)
    for name in "cde":
        add(project, name, labelled())
    (found,) = improve_tokens(
        project, pipe, [1], settings=FAST, library=library
    ).results
    (entry,) = library.entries()
    assert (entry.name, entry.images, entry.phrase) == ("cat", 2, "cat")
    assert entry.iou == pytest.approx(old.info["iou"])
    np.testing.assert_array_equal(library.load(entry.path).embedding, old.embedding)
    # scored on an image that neither has learned from
    assert found.source == "token"
    assert not found.known
    assert set(found.left_out) <= set("cde")


def test_several_classes_with_some_in_no_accepted_image(project, pipe):
    for i in range(4, 7):
        project.classes.add(f"class {i}")
    add(project, "a", labelled(32, 32, range(1, 5)))
    add(project, "b", labelled(32, 32, range(1, 5)))
    add(project, "full", np.full((32, 32), 5, np.uint8))
    report = improve_tokens(project, pipe, settings=FAST)
    assert [r.id for r in report.results] == list(range(1, 5))
    assert sorted(report.skipped) == ["class 5", "class 6"]
    assert "accepted" in report.skipped["class 6"]
    assert all(project.load_token(i) is not None for i in range(1, 5))


def test_a_mask_of_one_pixel_and_a_single_image(project, pipe):
    labels = np.zeros((32, 32), np.uint8)
    labels[16, 16] = 1
    add(project, "a", labels)
    (found,) = improve_tokens(project, pipe, [1], settings=FAST).results
    assert found.left_out == ()
    assert found.images == ("a",)
    assert not found.better  # it was scored on nothing that it has not seen


def test_bad_images_are_named_and_the_others_used(project, pipe):
    for name in "abc":
        add(project, name, labelled())
    (project.path / "images" / "a.png").unlink()
    (project.path / "labels" / "b.png").write_bytes(b"nothing")
    report = improve_tokens(project, pipe, [1], settings=FAST)
    assert sorted(report.failed) == ["a", "b"]
    assert report.results[0].images == ("c",)


def test_a_saved_trace_of_another_model_is_not_used_and_stays(project, pipe, make_pipe):
    for name in "ab":
        add(project, name, labelled())
    other = trace_image(make_pipe(seed=1), project.load_image("b")).trace
    path = project.save_trace("b", other)
    before = path.read_bytes()
    report = improve_tokens(project, pipe, [1], settings=FAST)
    assert report.results[0].token.model != other.model
    assert path.read_bytes() == before


def test_a_cancel_keeps_what_was_stored(project, pipe):
    add(project, "a", labelled(ids=(1, 2)))

    def cancel(done, total):
        if done > 110:
            raise Cancelled

    with pytest.raises(Cancelled):
        improve_tokens(project, pipe, [1, 2], settings=FAST, progress=cancel)
    again = Project.open(project.path)
    assert again.classes[1].source == "token"
    assert again.classes[2].source == "phrase"


def test_a_class_that_is_removed_meanwhile_gets_no_token(project, pipe):
    add(project, "a", labelled(ids=(1, 2, 3)))

    def remove(done, total):
        for number in (1, 2):  # while its token is optimized, and before that
            if done > 50 and number in project.classes:
                project.classes.remove(number)

    report = improve_tokens(project, pipe, settings=FAST, progress=remove)
    assert [(r.id, r.stored) for r in report.results] == [(1, False), (3, True)]
    assert "removed" in report.skipped["dog"]
    assert [entry.id for entry in Project.open(project.path).classes] == [3]


def test_images_are_dealt_by_seed():
    names = list("abcdefgh")
    folds = split_names(names, 0.25, (0, 1))
    assert len(folds) == 4
    assert sorted(name for _, outside in folds for name in outside) == names
    assert all(sorted(inside + outside) == names for inside, outside in folds)
    assert split_names(reversed(names), 0.25, (0, 1)) == folds
    assert split_names(names, 0.25, (0, 2)) != folds
    assert split_names("a", 0.5, (0,)) == [(["a"], [])]
    outs = sorted(out for _, out in split_names("abc", 0.5, (0,)))
    assert outs == [["a"], ["b"], ["c"]]
    (fold,) = split_names("abcdef", 0.5, (0,), known="abcde")
    assert fold == (list("abcde"), ["f"])  # what the token in use did not see
    assert len(draw_names(names, 3, (0, 1))) == 3
    for wrong in ({"leave_out": 1.0}, {"most": 0}, {"store": "perhaps"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ImproveSettings(**wrong)


def test_tokens_of_the_embedded_model_are_better_on_images_left_out(tmp_path, tiny):
    project = cats(tmp_path / "scenes")
    project.classes.change(1, phrase="animal")
    (found,) = improve_tokens(project, tiny).results
    print(f"IoU {found.before:.2f} -> {found.after:.2f} on {found.left_out}")
    assert found.after > found.before
    assert found.stored
