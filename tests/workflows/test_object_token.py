"""A project learns the token of any object, where clicks are better with it."""

from dataclasses import replace

import numpy as np
import pytest

from napari_ovam import Click, OptimizationSettings, encode_phrase, segment_clicks
from napari_ovam.attention.token_files import save_token
from napari_ovam.project import Project
from napari_ovam.workflows import object_token
from napari_ovam.workflows.improving import ImproveSettings
from napari_ovam.workflows.object_token import learn_objects, load_object_token
from napari_ovam.workflows.sample_trace import sample_trace

FAST = replace(
    ImproveSettings.quick("fine"), optimization=OptimizationSettings(iterations=3)
)


@pytest.fixture
def project(tmp_path):
    """Squares of two classes on a sky, which is no object."""
    random = np.random.default_rng(0)
    project = Project.create(tmp_path / "squares")
    for name in ("red", "blue", "sky"):
        project.classes.add(name)
    project.classes.change(3, thing=False)
    for index in range(5):
        labels = np.zeros((32, 32), np.uint8)
        labels[:6] = 3
        labels[8 + index : 16 + index, 4:12] = 1
        labels[18:26, 18:27] = 2
        image = random.integers(0, 60, (32, 32, 3), np.uint8)
        image[labels == 1] = (200, 0, 0)
        image[labels == 2] = (0, 0, 200)
        project.add_sample(image, name=f"picture-{index}")
        project.save_labels(f"picture-{index}", labels, "accepted")
    return project


def scored(monkeypatch, learned):
    """Let clicks be worth so much with a token that was learned, and else 0.5."""
    targets = []

    def clicked(example, things, token):
        targets.append(object_token._target(example, things))
        return 0.5 if token is None or "losses" not in token.info else learned

    monkeypatch.setattr(object_token, "_clicked", clicked)
    return targets


def test_what_is_better_is_kept_and_used_by_clicks(project, pipe, monkeypatch):
    targets = scored(monkeypatch, 0.9)
    found = learn_objects(project, pipe, settings=FAST)
    assert (found.before, found.after) == (0.5, 0.9)
    assert len(found.left_out) == len(found.images) == 5
    first = np.isin(project.load_labels("picture-0"), (1, 2))  # the sky is no object
    assert any((target == first).all() for target in targets)
    trace = sample_trace(project, "picture-0", pipe)
    token = load_object_token(Project.open(project.path), trace.model)
    assert token.info["learned_from"] == list(found.images)
    image, clicks = project.load_image("picture-0"), [Click(12, 8)]
    plain = segment_clicks(trace, image, clicks)
    with_it = segment_clicks(trace, image, clicks, objects=token)
    assert (plain.probability != with_it.probability).any()
    # The next time it is what new ones are compared with, on what it has not seen.
    labels = project.load_labels("picture-0")
    project.add_sample(image, name="new")
    project.save_labels("new", labels, "accepted")
    again = learn_objects(project, pipe, settings=FAST)
    assert again.before == 0.9
    assert again.left_out == ("new",)
    assert not again.better


def test_what_is_no_better_is_not_kept(project, pipe, monkeypatch):
    scored(monkeypatch, 0.5)
    assert not learn_objects(project, pipe, settings=FAST).better
    assert not project.files.object_token.exists()


def test_fewer_than_five_images_teach_nothing(project, pipe):
    project.change_sample("picture-0", status="edited")
    assert learn_objects(project, pipe, settings=FAST) is None


def test_a_token_of_another_model_or_a_damaged_one_is_not_used(project, pipe):
    save_token(encode_phrase(pipe, "object"), project.files.object_token)
    trace = sample_trace(project, "picture-0", pipe)
    assert load_object_token(project, trace.model) is not None
    assert load_object_token(project, "other") is None
    project.files.object_token.write_bytes(b"nothing")
    assert load_object_token(project, trace.model) is None


def test_a_click_is_worth_what_it_gives(project, pipe):
    how = "fine", FAST.trace, lambda: None
    with object_token.Examples(project, pipe, *how) as examples:
        example = examples["picture-0"]
    ((one, red), (two, blue)) = sorted(
        object_token._objects(example.labels, [1, 2]), key=lambda o: o[0].column
    )
    assert (red == (example.labels == 1)).all()
    assert (blue == (example.labels == 2)).all()
    assert red[int(one.row), int(one.column)]
    assert blue[int(two.row), int(two.column)]
    assert 0 < object_token._clicked(example, [1, 2], None) <= 1
