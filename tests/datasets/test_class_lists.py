"""Class lists of other tools, and what happens to their ids."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from napari_ovam import LabelClass, export_dataset
from napari_ovam.datasets.class_lists import (
    ClassListError,
    ListedClass,
    add_classes,
    preset,
    read_class_list,
)
from napari_ovam.datasets.classes import ClassTable
from napari_ovam.datasets.exporters import ExportItem
from napari_ovam.datasets.project_class import ClassError
from napari_ovam.project.by_hand import parse_index

STRANGE = [
    "../../etc/passwd",
    'say "cheese", please',
    "a\tb:c",
    "🐈",
    "x" * 300,
    "C:\\",
]


def pairs(path: Path) -> list[tuple[int | None, str]]:
    return [(entry.id, entry.name) for entry in read_class_list(path)]


def test_a_name_a_line(tmp_path: Path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeff# animals\ncat\n\n  hot dog \r\n🐈\n", encoding="utf-8")
    assert pairs(path) == [(None, "cat"), (None, "hot dog"), (None, "🐈")]


def test_our_own_classes_json_comes_back(tmp_path: Path):
    classes = [
        LabelClass(3, "cat", (1, 2, 3), thing=False),
        *(LabelClass(number, name) for number, name in enumerate(STRANGE, start=300)),
    ]
    item = ExportItem("a", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), int))
    out = export_dataset([item], classes, tmp_path / "o", ["indexed", "coco"])
    for place in ("indexed/classes.json", "coco/annotations.json"):
        found = read_class_list(out / place)
        assert [(e.id, e.name) for e in found] == [(c.id, c.name) for c in classes]
        assert found[0].color == (1, 2, 3)
    assert not read_class_list(out / "indexed/classes.json")[0].thing


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [cat, 'hot dog']\nnc: 2\n", ["cat", "hot dog"]),
        ("names:\n  1: dog\n  0: cat\n", ["cat", "dog"]),
        ('names:\n  0: "a\\u2028b"\n', ["a\u2028b"]),
        (
            "names: [no, Off, on, 'yes', 1.0, 007, ~, 1e3, 2026-11-25]\n",
            ["no", "Off", "on", "yes", "1.0", "007", "~", "1e3", "2026-11-25"],
        ),
        ("names:\n  0: no\n  1: off\n  10: y\n  2: true\n", ["no", "off", "true", "y"]),
        ("names: &n [no, cat]\nother: *n\n", ["no", "cat"]),
    ],
)
def test_yolo(tmp_path: Path, text: str, names: list[str]):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    assert pairs(path) == [(None, name) for name in names]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.txt", "", "names no class"),
        ("a.txt", "cat\ncat\n", "'cat' twice"),
        ("a.txt", "\0\1\2", "no text"),
        ("a.json", "{", "broken"),
        ("a.json", "3", "neither classes nor categories"),
        ("a.json", '[{"id": "x", "name": "cat"}]', "'x'"),
        ("a.json", '[{"id": 1, "name": ""}]', "no name"),
        ("a.json", "[" * 100_000, "broken"),
        ("a.yaml", "names: 3", "no list"),
        ("a.yaml", "names: {0: cat, 0: dog}", "twice"),
        ("a.yaml", "names: {a: cat}", "no numbers"),
        ("a.yaml", "names: [[cat]]", "no texts"),
        ("a.yaml", "names: ['']", "no name"),
        ("a.json", '["cat", true]', "True is no name"),
        ("a.json", '[{"id": 1.5, "name": "cat"}]', "1.5"),
        ("a.txt", "Ka\u0308fer\nK\u00e4fer\n", "twice"),
        ("a.yaml", "nc: 3", "no class list"),
        ("a.yaml", "names: [!!python/object/apply:os.getcwd []]", "no texts"),
    ],
)
def test_what_is_no_list_is_named(tmp_path: Path, name: str, content: str, named: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ClassListError, match=named):
        read_class_list(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_of_windows_programs(tmp_path: Path, encoding: str, end: str):
    path = tmp_path / "a.txt"
    path.write_bytes(f"no{end}Käfer{end}".encode(encoding))
    assert pairs(path) == [(None, "no"), (None, "Käfer")]
    path.write_bytes("Käfer".encode("cp1252"))
    with pytest.raises(ClassListError, match="UTF-8"):
        read_class_list(path)


def test_ids_that_are_written_otherwise_are_whole_numbers(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('[{"id": "7", "name": "cat"}, {"id": 8.0, "name": "dog"}]')
    assert pairs(path) == [(7, "cat"), (8, "dog")]


def test_two_unicode_forms_are_one_name():
    table = ClassTable()
    table.add("K\u00e4fer")
    with pytest.raises(ClassError, match="Käfer"):
        table.add("Ka\u0308fer")
    report = add_classes(table, [ListedClass("Ka\u0308fer", 9)])
    assert report.ids == {"Ka\u0308fer": 1}
    assert not report.added


def test_names_that_differ_by_case_only_come_from_lists_alone():
    table = ClassTable()
    table.add("Cat")
    with pytest.raises(ClassError, match="'Cat' already"):
        table.add("cat")
    assert add_classes(table, [ListedClass("cat")]).added == ("cat",)
    assert table.change(2, key="3").name == "cat"
    with pytest.raises(ClassError, match="'Cat' already"):
        table.change(2, name="CAT")
    assert table.change(1, name="CAR").name == "CAR"


def test_the_presets():
    voc, coco = preset("voc"), preset("coco")
    assert [e.id for e in voc] == list(range(1, 21))
    assert (voc[14].name, voc[19].name) == ("person", "tvmonitor")
    assert len({e.name for e in coco}) == 80
    by_id = {e.id: e.name for e in coco}
    # ids that everybody knows: they have gaps
    assert (by_id[1], by_id[13], by_id[44], by_id[62], by_id[90]) == (
        "person",
        "stop sign",
        "bottle",
        "chair",
        "toothbrush",
    )
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(by_id)
    with pytest.raises(ClassListError, match="ade20k"):
        preset("ade20k")
    table = ClassTable()
    assert not add_classes(table, coco).conflicts
    assert {entry.id: entry.name for entry in table} == by_id
    assert table.add("next").id == 91


def test_ids_are_kept_where_they_are_free_and_conflicts_are_named():
    table = ClassTable()
    table.add("cat")
    table.add("dog")
    table.remove(2)
    listed = [
        ListedClass("new"),
        ListedClass("hat", 1),
        ListedClass("car", 2),
        ListedClass("owl", 255),
        ListedClass("fox", 3),
        ListedClass("cat", 7),
    ]
    report = add_classes(table, listed)
    assert table.by_name("fox").id == 3
    assert table.by_name("cat").id == 1
    assert {"hat", "car", "owl", "new"} <= {e.name for e in table}
    assert {1, 3} <= {e.id for e in table}
    assert not {0, 2, 255} & {e.id for e in table}
    assert report.ids == {e.name: e.id for e in table}
    text = " ".join(report.conflicts)
    assert all(repr(name) in text for name in ("hat", "car", "owl", "cat"))
    assert "'fox'" not in text
    assert "removed" in text
    again = add_classes(table, listed)
    assert not again.added
    assert again.ids == report.ids


def read_table(content: dict) -> ClassTable:
    """What a project file with these classes says."""
    data = json.dumps({**content, "samples": []}).encode()
    return parse_index(data, Path()).classes


def test_a_thousand_classes():
    start = time.perf_counter()
    table = ClassTable()
    report = add_classes(table, [ListedClass(f"class {i}") for i in range(1000)])
    assert len(report.added) == len(table) == 1000
    assert 255 not in table
    restored = read_table(table.to_json())
    assert list(restored) == list(table)
    assert time.perf_counter() - start < 20  # seconds, on a busy machine


def test_a_key_chooses_one_class_and_is_1_to_9():
    table = ClassTable()
    table.add("cat")
    table.add("dog", thing=False)
    table.change(1, key="1")
    table.change(2, key="1")
    assert [entry.key for entry in table] == [None, "1"]
    with pytest.raises(ClassError, match="'0'"):
        table.change(1, key="0")
    restored = read_table(table.to_json())
    assert (restored[2].key, restored[2].thing) == ("1", False)
    assert not restored.label_classes()[1].thing


def test_an_older_table_is_read():
    old = {"id": 1, "name": "cat", "color": [1, 2, 3], "phrase": "cat"}
    table = read_table({"last_id": 4, "classes": [old]})
    assert (table[1].thing, table[1].key, table.retired) == (True, None, {})
    assert table.add("dog").id == 5
