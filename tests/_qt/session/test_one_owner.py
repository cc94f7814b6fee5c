"""One class table, one export, one way to give a token, with a folder or without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ovam._qt.annotator import AnnotatorWidget
from napari_ovam._qt.session.edits import Edits
from napari_ovam.project.token_library import TokenLibrary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IMAGE = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)


@pytest.fixture
def widget(
    make_napari_viewer: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    monkeypatch.setenv("NAPARI_OVAM_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("NAPARI_OVAM_TOKENS", str(tmp_path / "tokens"))
    monkeypatch.setenv("HOME", str(tmp_path))
    made = AnnotatorWidget(make_napari_viewer())
    yield made
    made.session.close()


def add_image(session: Any, title: str = "a cat") -> Any:
    edits = Edits(np.zeros((32, 32), np.uint16))
    return session.projects.add(IMAGE, title, choice=session.choice, edits=edits)


def test_export_without_a_folder_keeps_things_and_instances(
    widget: Any, qtbot: Any, tmp_path: Path
) -> None:
    session = widget.session
    session.class_changes.add("cat")
    session.class_changes.add("sky")
    session.class_changes.change(2, thing=False)
    sample = add_image(session)
    labels = np.zeros((32, 32), np.uint16)
    labels[2:12, 2:20], labels[20:] = 1, 2
    layer = session.layers.find(sample.key, "labels")
    layer.data = labels
    session.instances.show(True)
    qtbot.waitUntil(lambda: not session.instances.busy, timeout=30_000)
    halves = [(4, 4), (4, 17)]  # one part that is two cats
    from napari_ovam.segmentation.instances import split_by_seeds

    number = int(session.instances.of(sample).ids[4, 4])
    session.instances._want(sample, lambda each: split_by_seeds(each, number, halves))
    qtbot.waitUntil(lambda: not session.instances.busy, timeout=30_000)
    session.exports.export(
        str(tmp_path / "out"), ["coco-parts", "coco-panoptic"], session.projects.keys
    )
    qtbot.waitUntil(lambda: not session.busy, timeout=30_000)
    assert session.message[0].startswith("Exported 1 image"), session.message
    paths = (tmp_path / "out" / "coco-parts").rglob("*.json")
    content = next(
        c for c in map(json.loads, (p.read_text() for p in paths)) if "annotations" in c
    )
    counts = [each["category_id"] for each in content["annotations"]]
    assert counts.count(1) == 2
    paths = (tmp_path / "out" / "coco-panoptic").rglob("*.json")
    content = next(
        c for c in map(json.loads, (p.read_text() for p in paths)) if "categories" in c
    )
    things = {each["name"]: each["isthing"] for each in content["categories"]}
    assert things == {"cat": 1, "sky": 0}


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"name": "hat"}, "already"),
        ({"name": "  "}, "needs a name"),
        ({"color": (1, 2, 300)}, "colour"),
        ({"phrase": "a, b"}, "several phrases"),
        ({"key": "x"}, "key"),
    ],
)
def test_what_a_class_cannot_be_is_refused_everywhere(
    widget: Any, values: dict[str, Any], word: str
) -> None:
    session = widget.session
    session.class_changes.add("cat")
    session.class_changes.add("hat")
    before = list(session.classes)
    assert not session.class_changes.change(1, **values)
    assert word in session.message[0]
    assert list(session.classes) == before
    assert session.project.classes is session.classes
    with pytest.raises(ValueError, match=word):  # as a script gets it
        session.project.classes.change(1, **values)


def test_a_painted_id_that_cannot_be_a_class_is_said(widget: Any) -> None:
    session = widget.session
    session.class_changes.add("class 7")
    sample = add_image(session)
    layer = session.layers.find(sample.key, "labels")
    layer.data = np.full((32, 32), 7, np.uint16)
    button = widget.findChild(object, "create_class_button")
    assert not button.isHidden()
    button.click()  # the name that it would have is taken
    assert "already" in session.message[0]
    assert 7 not in session.classes


def test_a_threshold_out_of_range_is_refused(widget: Any) -> None:
    session = widget.session
    session.class_changes.add("cat")
    assert not session.class_changes.set_threshold(1, 1.5)
    assert "1.5 is no threshold" in session.message[0]
    assert session.classes[1].threshold is None


def test_a_token_that_is_replaced_is_kept(widget: Any, qtbot: Any) -> None:
    torch = pytest.importorskip("torch")
    from napari_ovam import Token
    from napari_ovam._qt.session.tasks import Optimized

    session = widget.session
    session.class_changes.add("cat")
    add_image(session)
    tokens = [Token("cat", "abc", torch.full((2, 4), float(n))) for n in range(3)]
    for better, token in zip((False, True, False), tokens, strict=True):
        result = Optimized(token, 0.5, 0.6 if better else 0.4)
        session.tokens._optimized(1, result, "")
        qtbot.waitUntil(lambda: not session.busy, timeout=30_000)
        session.saving.flush()
        found = session.project.load_token(1)
        assert torch.equal(found.embedding, token.embedding)
    library = TokenLibrary()
    kept = [
        library.load(entry.path).embedding[0, 0].item() for entry in library.entries()
    ]
    assert sorted(kept) == [0, 1]
    assert {entry.name for entry in library.entries()} == {"cat"}


def test_a_class_changed_from_a_script_is_shown_and_saved(widget: Any) -> None:
    session = widget.session
    session.class_changes.add("cat")
    add_image(session)
    session.project.classes.change(1, name="tiger")
    session.classes_changed.emit()
    session.saving.flush()
    from napari_ovam.project import Project

    (entry,) = Project.open(session.project.path).classes
    assert entry.name == "tiger"
    assert widget.sections["Classes"].model.index(0, 1).data() == "tiger"
