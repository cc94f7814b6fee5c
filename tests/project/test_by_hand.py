"""A project.json that a person edited: what can be taken is, and the rest is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam.project import ConflictError, Project, ProjectError
from napari_ovam.project.verify import verify

PICTURE = np.full((8, 8, 3), 90, np.uint8)


def make(path) -> dict:
    project = Project.create(path)
    project.classes.add("cat")
    project.classes.add("hat", color=(1, 2, 3))
    project.add_sample(PICTURE, name="a")
    project.add_sample(PICTURE, name="b")
    project.save_labels("a", np.ones((8, 8), np.uint8), "proposed")
    project.save()
    return json.loads((path / "project.json").read_text())


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "p")
    return tmp_path / "p"


def edited(folder, change) -> tuple[Project, str]:
    """Return the project after an edit of its index, and all that is said."""
    content = json.loads((folder / "project.json").read_text())
    content["classes"][0]["name"] = "kitten"  # what the person meant to do
    changed = change(content)
    if not isinstance(changed, bytes):
        changed = json.dumps(content if changed is None else changed).encode()
    (folder / "project.json").write_bytes(changed)
    project = Project.open(folder)
    return project, " ".join(project.notes)


def spelled(content: dict) -> str:
    return json.dumps(content, indent=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: b"\xef\xbb\xbf" + spelled(c).encode(),
        lambda c: spelled(c).encode("utf-16"),
        lambda c: c["samples"][0].update(status="Accepted"),
        lambda c: c["classes"][0].update(color="#ff0000"),
        lambda c: c["classes"][0].update(color="red"),
        lambda c: c["classes"][0].update(id="1", thing="yes", key=3),
        lambda c: c["classes"][0].update(thresholds=0.5),
        lambda c: c["classes"][0].pop("thresholds") and None,
        lambda c: c.pop("format") and None,
        lambda c: c.update(last_id="2", format="1"),
        lambda c: c["samples"][0].update(absent=["2"]),
        lambda c: c["samples"][0].update(absent=["hat"]),
    ],
)
def test_what_is_plain_is_taken_without_a_word(folder, change):
    project, said = edited(folder, change)
    assert [entry.name for entry in project.classes] == ["kitten", "hat"]
    assert [sample.name for sample in project.samples] == ["a", "b"]
    assert said == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: ("// mine\n" + spelled(c)).encode(), ["comments"]),
        (lambda c: spelled(c).replace("\n ]", ",\n ]").encode(), ["commas", "line"]),
        (
            lambda c: c["samples"][0].update(status="done"),
            ["'a'", "'done'", "accepted"],
        ),
        (lambda c: c["classes"][1].update(id=1), ["class 2 ('hat')", "2 now"]),
        (lambda c: c["classes"][1].update(id=0), ["class 2 ('hat')", "0"]),
        (lambda c: c["classes"][1].pop("id") and None, ["class 2 ('hat')", "None"]),
        (
            lambda c: c["classes"][1].update(name="kitten"),
            ["another class", "kitten 2"],
        ),
        (lambda c: c["classes"][1].pop("name") and None, ["no name"]),
        (lambda c: c["classes"][1].update(colour="red"), ["'colour'", "no field"]),
        (lambda c: c["classes"][1].update(color="reddish"), ["color", "reddish"]),
        (lambda c: c["classes"][1].update(source="words"), ["source", "'words'"]),
        (lambda c: c["classes"][1].update(thing="perhaps"), ["thing", "perhaps"]),
        (lambda c: c["classes"].append(7), ["class 3", "7"]),
        (lambda c: c["samples"].append({"name": "a"}), ["'a'", "twice"]),
        (lambda c: c["samples"].append({}), ["sample 3", "no name"]),
        (lambda c: c["samples"][0].update(absent=["dog"]), ["'dog'", "absent"]),
        (lambda c: c["samples"][0].update(provenance=3), ["provenance"]),
        (lambda c: c.pop("samples") and None, ["samples"]),
        (lambda c: spelled(c).replace('"hat"', '"hât"').encode("cp1252"), ["UTF-8"]),
    ],
)
def test_what_is_wrong_is_named_and_the_rest_is_taken(folder, change, words):
    before = (folder / "project.json").read_bytes()
    project, said = edited(folder, change)
    assert project.classes[1].name == "kitten"
    assert len(project.classes) == 2
    assert {sample.name for sample in project.samples} == {"a", "b"}
    assert project.load_labels("a").max() == 1
    for word in words:
        assert word in said
    (kept,) = folder.glob("project.json.by-hand")
    assert kept.name in said
    assert kept.read_bytes() != before
    assert Project.open(folder).notes == []  # it is mended for good


def test_each_file_as_a_person_left_it_is_kept(folder):
    texts = []
    for status in ("done", "finished", "{"):
        content = (folder / "project.json").read_text()
        texts.append(content.replace('"proposed"', f'"{status}"', 1))
        (folder / "project.json").write_text(texts[-1] if status != "{" else "{")
        Project.open(folder)
    kept = {path.name: path.read_text() for path in folder.glob("project.json.*-*")}
    assert kept["project.json.by-hand"] == texts[0]
    assert kept["project.json.by-hand-2"] == texts[1]
    assert (folder / "project.json.damaged").read_text() == "{"


def test_damage_says_where_it_is(folder):
    text = (folder / "project.json").read_text().replace('"classes": [', '"classes" [')
    (folder / "project.json").write_text(text)
    (problem,) = verify(folder).problems
    assert "line 6" in problem
    (note,) = Project.open(folder).notes
    assert "line 6" in note
    assert "project.json.damaged" in note


def test_an_edit_while_it_is_open_is_taken_in(folder):
    project = Project.open(folder)
    content = json.loads((folder / "project.json").read_text())
    content["classes"][0].update(name="kitten", color="#0000ff")
    content["samples"][1]["status"] = "done"
    (folder / "project.json").write_text(json.dumps(content))
    project.change_sample("a", status="accepted")
    found = Project.open(folder)
    assert (found.classes[1].name, found.classes[1].color) == ("kitten", (0, 0, 255))
    assert found.sample("a").status == "accepted"
    assert "'done'" in " ".join(project.notes)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70_000)
    | st.floats()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_value_anywhere_loses_a_project(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("p") / "p"
    content = make(path)
    where = data.draw(st.sampled_from(["top", "class", "sample"]))
    table = {
        "top": content,
        "class": content["classes"][1],
        "sample": content["samples"][1],
    }[where]
    key = data.draw(st.sampled_from(sorted(set(table) - {"format"})))
    table[key] = data.draw(VALUES)
    (path / "project.json").write_text(json.dumps(content))
    project = Project.open(path)
    assert 1 in project.classes or "'cat'" in " ".join(project.notes)
    assert {"a", "b"} <= {sample.name for sample in project.samples}
    assert project.load_labels("a").max() == 1
    project.save()
    again = Project.open(path)
    assert [entry.name for entry in again.classes] == [e.name for e in project.classes]


def test_two_damaged_files_are_refused_by_name(folder):
    for name in ("project.json", "project.json.bak"):
        (folder / name).write_text("[" * 3)
    with pytest.raises(ProjectError, match="line 1"):
        Project.open(folder)


def test_an_index_that_is_damaged_while_it_is_open_is_written_anew(folder):
    project = Project.open(folder)
    for name in ("project.json", "project.json.bak"):
        (folder / name).write_text("{")
    project.change_sample("a", status="accepted")
    assert "is written anew" in " ".join(project.notes)
    assert (folder / "project.json.damaged").read_text() == "{"
    assert Project.open(folder).sample("a").status == "accepted"


def test_a_newer_version_that_wrote_meanwhile_is_left_alone(folder):
    project = Project.open(folder)
    content = json.loads((folder / "project.json").read_text()) | {"format": 99}
    (folder / "project.json").write_text(json.dumps(content))
    with pytest.raises(ConflictError, match="newer than this version"):
        project.change_sample("a", status="accepted")
    assert json.loads((folder / "project.json").read_text()) == content
