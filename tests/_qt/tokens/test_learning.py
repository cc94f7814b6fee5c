"""Tokens learn by themselves from accepted images, and are used if they are better."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from project_window import Window

from napari_ovam.project import Project
from napari_ovam.project.token_library import TokenLibrary
from napari_ovam.scenes import load_scenes
from napari_ovam.workflows import improving, refitting
from napari_ovam.workflows.proposals import ProposalSettings, propose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_ovam import Token

CAT = 1


def cats() -> list[Any]:
    """Three scenes with a cat, and one without."""
    scenes = list(load_scenes())
    scenes.sort(key=lambda scene: "cat" not in scene.classes.values())
    return scenes[:4]


@pytest.fixture
def project(tmp_path: Path, tiny: Any) -> Project:
    """Scenes with their exact cats, of which the last two are proposed."""
    project = Project.create(tmp_path / "cats")
    project.classes.add("cat")
    names = []
    for scene in cats():
        project.add_sample(scene.image, name=scene.name)
        names.append(scene.name)
        number = next((i for i, name in scene.classes.items() if name == "cat"), 0)
        labels = ((scene.labels == number) & (number > 0)).astype(np.uint8)
        project.save_labels(scene.name, labels, "edited")
    for name in names[2:]:
        project.change_sample(name, status="new")
        project.save_labels(name, np.zeros_like(labels), "new")
    propose(project, tiny, names[2:], settings=ProposalSettings(redo=True))
    project.save()
    return project


class Learner(Window):
    """A window with the panel beside the table."""

    panel: Any

    def accept(self) -> None:
        """Accept the image that is shown, as the key does."""
        self.session.do("accept")

    def learned(self) -> None:
        """Wait until nothing is learned any more."""
        learning = self.session.learning

        def idle() -> bool:
            return not learning.busy and not self.session.busy

        self.bot.wait(50)
        self.bot.waitUntil(idle, timeout=120_000)

    def part(self, name: str) -> Any:
        found = self.panel.findChild(object, name)
        assert found is not None, f"there is no widget {name!r}"
        return found


@pytest.fixture
def window(
    dock: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    project: Project,
) -> Learner:
    monkeypatch.setenv("NAPARI_OVAM_TOKENS", str(tmp_path / "library"))
    made: Learner = dock("OVAM project", Learner)
    add = made.viewer.window.add_plugin_dock_widget
    _, made.panel = add("napari-ovam", "OVAM annotator")
    made.open(project.path)
    return made


def make_better(monkeypatch: pytest.MonkeyPatch, gain: float = 0.1) -> None:
    """Let each token that is learned look better, or worse, by so much."""

    class Score:
        def __init__(self, *_: Any) -> None:
            pass

        def __call__(self, tokens: Any, *_: Any) -> float:
            return 0.5 + gain * ("losses" in tokens[0].info)

    monkeypatch.setattr(improving, "ClassScore", Score)


def test_what_is_better_is_used_and_can_be_gone_back_from(
    window: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_better(monkeypatch)
    session, names = window.session, [scene.name for scene in cats()]
    before = window.written().sample(names[2]).provenance["proposed_by"]["sources"]
    window.accept()
    window.learned()
    assert session.view(CAT).token is None, "nothing can be left out of one image"
    window.until_shown(names[1])
    window.accept()
    window.learned()
    entry = session.classes[CAT]
    assert entry.source == "token"
    assert session.view(CAT).token.info["learned_from"] == names[:2]
    said = "cat: 0.50 → 0.60 from 2 pictures"
    assert said in window.said
    assert window.part("scores_text").text() == f"{said}, in use"
    assert window.written().load_token(CAT) is not None
    # What comes next is proposed by it.
    window.until_shown(names[2])
    window.learned()
    again = Project.open(session.project.path)
    after = again.sample(names[2]).provenance["proposed_by"]["sources"]
    assert set(after["1"]) - set(before["1"]) == {"token"}
    np.testing.assert_array_equal(window.labels.data, again.load_labels(names[2]))
    menu = window.part("source_button").menu()
    menu.aboutToShow.emit()
    texts = [action.text() for action in menu.actions()]
    assert texts == ["By its phrase", "By its token", "Back to before it learned"]
    menu.actions()[-1].trigger()
    window.wait()
    window.learned()
    assert session.classes[CAT].source == "phrase"
    window.session.do("accept")  # one more; it was said that it shall not be learned
    window.learned()
    assert session.classes[CAT].source == "phrase"


def test_what_is_no_better_is_not_used(
    window: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_better(monkeypatch, -0.1)
    for scene in cats()[:2]:
        window.until_shown(scene.name)
        window.accept()
        window.learned()
    assert window.session.classes[CAT].source == "phrase"
    assert window.session.view(CAT).token is None
    assert not list((window.session.project.path / "tokens").iterdir())


def test_the_token_before_comes_back_with_its_threshold(
    window: Learner, monkeypatch: pytest.MonkeyPatch, tiny: Any
) -> None:
    from napari_ovam import encode_phrase

    make_better(monkeypatch)
    session = window.session
    own = encode_phrase(tiny, "dog")
    session.sources.give({CAT: own})
    window.wait()
    session.class_changes.set_threshold(CAT, 0.4)
    for scene in cats()[:2]:
        window.until_shown(scene.name)
        window.accept()
        window.learned()
    assert session.view(CAT).token is not own
    window.written()
    assert len(TokenLibrary().entries()) == 1, "what was replaced is kept"
    session.sources.back(CAT)
    window.wait()
    entry = session.classes[CAT]
    assert (entry.source, entry.threshold) == ("token", 0.4)
    assert session.view(CAT).token is own
    stored = window.written().load_token(CAT)
    np.testing.assert_array_equal(stored.embedding, own.embedding)


def test_it_is_switched_off(window: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    make_better(monkeypatch)
    window.part("learn").click()
    for scene in cats()[:2]:
        window.until_shown(scene.name)
        window.accept()
        window.learned()
    assert window.session.view(CAT).token is None


def test_it_gives_way_and_begins_again(
    window: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_better(monkeypatch)
    session, begun, whole = window.session, threading.Event(), refitting.optimize_token
    rounds: list[bool] = []

    def slow(*given: Any, progress: Any) -> Token:
        first = not rounds
        rounds.append(first)
        begun.set()
        while first:  # until it is told to stop
            progress(0, 1)
        return whole(*given, progress=progress)

    monkeypatch.setattr(refitting, "optimize_token", slow)
    for scene in cats()[:2]:
        window.until_shown(scene.name)
        window.accept()
    window.bot.waitUntil(begun.is_set, timeout=60_000)
    done: list[Any] = []
    assert session.start("Drawing", lambda _: 1, returned=done.append) is not None
    window.wait()
    assert done == [1]
    window.learned()
    assert session.classes[CAT].source == "token"
    assert len(rounds) > 3  # two left out, then both
    assert session.message[1] == "info"
